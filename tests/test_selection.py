"""Selection: the budget is met to within one channel, floors and protections hold."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case
from networks import CifarResNet
from scoring import score
from torch import nn
from twin import Analysed, analysed, analysed_case

from compressor.choose import (
    LEAST_SHARE,
    SCOPES,
    Bounds,
    Budget,
    Choice,
    LayersAlone,
    Ranking,
    Share,
    select,
)
from compressor.errors import CompressorError, UsageError
from compressor.graph.axes import Axis
from compressor.graph.network import Network, Tied
from compressor.options import MOST


@pytest.fixture(scope="module")
def deep() -> Analysed:
    return analysed_case(Case(lambda: CifarResNet(20), (3, 16, 16)))


def scores_of(of: Analysed, criterion: str = "l2") -> dict[str, np.ndarray]:
    return score(of.network, dict(of.model.named_parameters()), criterion, seed=0)


def chosen(of: Analysed, /, **options: Any) -> Choice:
    return choose(of.network, scores_of(of), **options)


def choose(
    network: Network,
    scores: dict[str, np.ndarray],
    *,
    ratio: float | None,
    of: str = "macs",
    scope: str = "global",
    clock: Any = None,
    best_effort: bool = False,
    **bounds: Any,
) -> Choice:
    goal = LayersAlone() if ratio is None else Share(ratio)
    budget = Budget(goal, of, clock, best_effort=best_effort)
    return select(network, Ranking(scores, scope), budget, Bounds(**bounds))


def counts(network: Network, choice: Choice) -> dict[str, int]:
    whole = {group.name: group.size for group in network.groups}
    return whole | {name: len(kept) for name, kept in choice.keep.items()}


def cost(network: Network, unit: str, kept: dict[str, int]) -> int:
    return network.cost.of(unit, network.sizes(kept))


def assert_within_one_channel(of: Analysed, choice: Choice, ratio: float, step: int = 1) -> None:
    """Met, and missed as soon as some group keeps one step more."""
    kept, before = counts(of.network, choice), of.network.cost.of(choice.cost_unit)
    target = before * (1 - ratio)
    assert choice.before == before
    assert choice.after == cost(of.network, choice.cost_unit, kept) <= target
    assert choice.removed == 1 - choice.after / before >= ratio
    sizes = {group.name: group.size for group in of.network.groups}
    one_more = [
        cost(of.network, choice.cost_unit, kept | {name: min(sizes[name], kept[name] + step)})
        for name in choice.keep
    ]
    assert any(more > target for more in one_more)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("unit", ["macs", "params", "channels"])
@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.8])
def test_the_ratio_is_hit_within_one_channel(
    deep: Analysed, ratio: float, unit: str, scope: str
) -> None:
    assert_within_one_channel(deep, chosen(deep, ratio=ratio, of=unit, scope=scope), ratio)


@pytest.mark.parametrize("name", CASES)
def test_small_networks_too(name: str) -> None:
    choice = chosen(analysed(name), ratio=0.2, prune=("stream",))
    assert_within_one_channel(analysed(name), choice, 0.2)


@pytest.mark.parametrize("step", [2, 4, 8])
def test_kept_counts_are_multiples(deep: Analysed, step: int) -> None:
    choice = chosen(deep, ratio=0.5, round_to=step)
    assert choice.keep
    assert all(len(kept) % step == 0 for kept in choice.keep.values())
    assert_within_one_channel(deep, choice, 0.5, step)


@pytest.mark.parametrize("step", [2, 4, 8])
def test_what_a_large_step_overshoots_by_is_given_back(deep: Analysed, step: int) -> None:
    """No group could have a step more within the budget."""
    network = deep.network
    choice = chosen(deep, ratio=0.5, round_to=step)
    kept, target = counts(network, choice), 0.5 * choice.before
    for group in network.groups:
        wider = min(group.size, kept[group.name] + step)
        if wider > kept[group.name]:
            assert cost(network, "macs", kept | {group.name: wider}) > target


def test_groups_may_have_steps_of_their_own(deep: Analysed) -> None:
    steps = {group.name: 8 for group in deep.network.groups if group.size >= 32}
    choice = chosen(deep, ratio=0.5, round_to=steps)
    sizes = {group.name: group.size for group in deep.network.groups}
    assert all(len(kept) % 8 == 0 for name, kept in choice.keep.items() if sizes[name] >= 32)
    assert any(len(kept) % 8 for name, kept in choice.keep.items() if sizes[name] < 32)
    assert_within_one_channel(deep, choice, 0.5, 8)


# -- by the clock --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layer:
    name: str
    axes: tuple[Axis, ...]


@dataclasses.dataclass(frozen=True)
class Staircase:
    """Each group is a layer; its time rises every 16 channels, and the second half costs twice."""

    network: Network

    def latency_ms(self, sizes: Mapping[Axis, int]) -> float:
        return 1.0 + self.layers_ms([self.layers_of(a)[0] for a in self._axes], sizes)

    @property
    def _axes(self) -> list[Axis]:
        return [self.network.axes[group.name] for group in self.network.groups]

    def layers_of(self, axis: Axis) -> tuple[Layer, ...]:
        return (Layer(str(self._axes.index(axis)), (axis,)),)

    def layers_ms(self, layers: Sequence[Layer], sizes: Mapping[Axis, int]) -> float:
        ms = 0.0
        for layer in layers:
            steps = math.ceil(sizes.get(layer.axes[0], layer.axes[0].size) / 16)
            ms += 0.1 * steps * (2 if int(layer.name) % 2 else 1)
        return ms


def test_by_the_clock_no_channel_goes_for_nothing(deep: Analysed) -> None:
    clock = Staircase(deep.network)
    choice = chosen(deep, ratio=0.3, of="latency", clock=clock)
    sizes = {group.name: group.size for group in deep.network.groups}
    assert choice.cost_unit == "latency"
    assert choice.before == pytest.approx(clock.latency_ms({}))
    assert 0.7 * choice.before * 0.9 < choice.after <= 0.7 * choice.before
    assert all(len(kept) % 16 == 0 for kept in choice.keep.values())
    assert all(sizes[name] > 16 for name in choice.keep)


def test_by_the_clock_as_little_is_lost_as_any_choice_loses(deep: Analysed) -> None:
    """Against all choices of a few groups' widths."""
    groups = [group for group in deep.network.groups if group.size == 64][:3]
    few = dataclasses.replace(deep.network, groups=tuple(groups))
    clock, scores = Staircase(few), scores_of(deep)
    ordered = {group.name: np.sort(scores[group.name]) for group in groups}

    def lost(widths: Sequence[int]) -> float:
        pairs = zip(groups, widths, strict=True)
        return sum(float(ordered[g.name][: 64 - w].sum()) for g, w in pairs)

    for ratio in (0.1, 0.2, 0.3):
        choice = choose(few, scores, ratio=ratio, of="latency", clock=clock)
        within = [
            lost(widths)
            for widths in itertools.product((16, 32, 48, 64), repeat=3)
            if clock.latency_ms(few.sizes(dict(zip(ordered, widths, strict=True))))
            <= choice.after + 1e-9
        ]
        assert lost([counts(few, choice)[group.name] for group in groups]) == min(within)


def test_the_highest_scores_stay(deep: Analysed) -> None:
    found = scores_of(deep)
    for name, kept in chosen(deep, ratio=0.5).keep.items():
        assert list(kept) == sorted(set(kept))
        dropped = np.delete(found[name], kept)
        assert found[name][list(kept)].min() >= dropped.max()


def test_global_scope_drops_the_lowest_scores_of_all(deep: Analysed) -> None:
    """But for those that the budget leaves room for, after the last one that was needed."""
    found, choice = scores_of(deep), chosen(deep, ratio=0.3)
    floors = {g.name: max(1, math.ceil(g.size / 10)) for g in deep.network.groups}
    assert choice.last is not None
    needed = np.sort(found[choice.last.unit])[-counts(deep.network, choice)[choice.last.unit] - 1]
    for name, kept in choice.keep.items():
        assert np.delete(found[name], kept).max() <= needed
        assert len(kept) >= floors[name]


def test_no_channel_that_the_budget_has_room_for_is_dropped(deep: Analysed) -> None:
    network, choice = deep.network, chosen(deep, ratio=0.3)
    widths = counts(network, choice)
    for name in choice.keep:
        wider = network.sizes({**widths, name: widths[name] + 1})
        assert network.cost.macs(wider) > 0.7 * choice.before


def test_layer_scope_gives_equal_shares(deep: Analysed) -> None:
    kept = counts(deep.network, chosen(deep, ratio=0.5, scope="layer"))
    shares = [kept[g.name] / g.size for g in deep.network.groups]
    step = max(1 / g.size for g in deep.network.groups)
    assert max(shares) - min(shares) <= step
    global_kept = counts(deep.network, chosen(deep, ratio=0.5))
    spread = [global_kept[g.name] / g.size for g in deep.network.groups]
    assert max(spread) - min(spread) > step


def classes(network: Network) -> dict[Any, list[str]]:
    """Groups of one role and size whose members have the same shapes."""
    found: dict[Any, list[str]] = {}
    for group in network.groups:
        shapes = [
            (m.dim, m.contracted, *(d.size for d in network.tensors[m.tensor]))
            for m in group.members
        ]
        found.setdefault((group.role, group.size, *sorted(shapes)), []).append(group.name)
    return found


def test_isomorphic_scope_gives_equal_shares_to_classes(deep: Analysed) -> None:
    """Within a class the lowest scores go, wherever they are."""
    rng = np.random.default_rng(0)
    found = {g.name: rng.random(g.size) * rng.uniform(0.2, 5) for g in deep.network.groups}
    choice = choose(deep.network, found, ratio=0.4, scope="isomorphic")
    kept = counts(deep.network, choice)
    whole = {g.name: g.size for g in deep.network.groups}
    of_classes = classes(deep.network)
    assert any(len(names) > 1 for names in of_classes.values()) and len(of_classes) > 3
    shares, steps, spread = [], [], 0.0
    for names in of_classes.values():
        total = sum(whole[name] for name in names)
        shares.append(sum(kept[name] for name in names) / total)
        steps.append(1 / total)
        within = [kept[name] / whole[name] for name in names]
        spread = max(spread, max(within) - min(within))
        floors = {name: math.ceil(whole[name] / 10) for name in names}
        dropped = [np.delete(found[n], choice.keep.get(n, range(whole[n]))) for n in names]
        for name in names:
            if kept[name] > floors[name]:
                stay = list(choice.keep.get(name, range(whole[name])))
                assert found[name][stay].min() >= np.concatenate(dropped).max()
    assert max(shares) - min(shares) <= max(steps) + 0.05  # floors stop small groups early
    assert spread > max(1 / size for size in whole.values())
    assert_within_one_channel(deep, choice, 0.4)


# -- floors and what is out of reach -------------------------------------------------------------


def test_one_channel_and_a_tenth_of_each_group_stay(deep: Analysed) -> None:
    choice = chosen(deep, ratio=0.999, best_effort=True)
    for group in deep.network.groups:
        assert len(choice.keep[group.name]) == max(1, math.ceil(group.size / 10))
    small = chosen(analysed("residual"), ratio=0.999, best_effort=True)
    assert {name: len(kept) for name, kept in small.keep.items()} == {
        "stem.weight:0": 1,
        "a.weight:0": 1,
    }


@pytest.mark.parametrize("step", [2, 4, 16])
def test_floors_are_rounded_up(deep: Analysed, step: int) -> None:
    """A group that is smaller than a step keeps all."""
    choice = chosen(deep, ratio=0.999, best_effort=True, round_to=step)
    kept = counts(deep.network, choice)
    for group in deep.network.groups:
        least = step * math.ceil(math.ceil(group.size / 10) / step)
        assert kept[group.name] == min(group.size, least)


def test_a_ratio_out_of_reach_says_what_is_reachable(deep: Analysed) -> None:
    most = chosen(deep, ratio=0.999, best_effort=True)
    assert 0.9 < most.removed < 0.999
    said = math.floor(most.removed * 1000) / 1000
    with pytest.raises(CompressorError, match="out of reach") as refused:
        chosen(deep, ratio=0.999)
    assert refused.value.exit_code == 1
    assert f"{said:.3f}" in refused.value.what
    assert "--best-effort" in refused.value.next_step
    assert_within_one_channel(deep, chosen(deep, ratio=said), said)


def test_best_effort_changes_nothing_within_reach(deep: Analysed) -> None:
    assert chosen(deep, ratio=0.4, best_effort=True) == chosen(deep, ratio=0.4)


# -- ratios of single layers ---------------------------------------------------------------------


def kept_shares(of: Analysed, **options: Any) -> dict[str, float]:
    kept = counts(of.network, chosen(of, **options))
    return {group.name: kept[group.name] / group.size for group in of.network.groups}


def test_layers_that_match_lose_their_share_and_no_other_loses_any(deep: Analysed) -> None:
    found = kept_shares(deep, ratio=None, layer_ratios=[("blocks.[012].*", 0.25), ("stem.0", 0.5)])
    inner = {f"blocks.{i}.a.weight:0": 0.75 for i in range(3)}
    assert found == dict.fromkeys(found, 1) | inner | {"stem.0.weight:0": 0.5}


def test_the_lowest_scores_of_a_layer_go(deep: Analysed) -> None:
    name = "blocks.1.a.weight:0"
    keep = chosen(deep, ratio=None, layer_ratios=[("blocks.1.a", 0.5)]).keep
    assert list(keep) == [name]
    assert set(keep[name]) == set(np.argsort(scores_of(deep)[name])[-8:])


@pytest.mark.parametrize("step", [1, 4])
def test_the_other_layers_make_up_the_ratio(deep: Analysed, step: int) -> None:
    ratios = [("blocks.0.*", 0), ("blocks.1.*", 0.5)]
    choice = chosen(deep, ratio=0.4, layer_ratios=ratios, round_to=step)
    kept = counts(deep.network, choice)
    assert (kept["blocks.0.a.weight:0"], kept["blocks.1.a.weight:0"]) == (16, 8)
    fixed = {name for name in kept if name.startswith(("blocks.0.", "blocks.1."))}
    assert choice.removed >= 0.4
    one_more = [
        cost(deep.network, "macs", kept | {name: kept[name] + step})
        for name in choice.keep.keys() - fixed
    ]
    assert any(more > 0.6 * choice.before for more in one_more)


def test_the_last_ratio_that_matches_counts(deep: Analysed) -> None:
    found = kept_shares(deep, ratio=None, layer_ratios=[("blocks.*", 0.5), ("blocks.3.a", 0)])
    assert found["blocks.3.a.weight:0"] == 1
    assert found["blocks.4.a.weight:0"] == 0.5


def test_the_nearest_count_is_taken_and_a_tenth_stays(deep: Analysed) -> None:
    found = kept_shares(deep, ratio=None, layer_ratios=[("blocks.0.a", 0.3), ("blocks.1.a", 0.9)])
    assert found["blocks.0.a.weight:0"] == 11 / 16
    assert found["blocks.1.a.weight:0"] == 2 / 16
    assert pytest.approx(1 - LEAST_SHARE) == MOST


@pytest.mark.parametrize("step", [1, 4])
def test_tied_groups_of_different_sizes_keep_one_proportion(deep: Analysed, step: int) -> None:
    names = ("blocks.0.a.weight:0", "blocks.3.a.weight:0", "blocks.6.a.weight:0")
    sizes = [deep.network.axes[name].size for name in names]
    assert sizes == [16, 32, 64]
    tied = dataclasses.replace(deep.network, tied=(Tied(names, (1, 2, 4)),))
    scores = scores_of(deep)
    for options in ({"ratio": 0.4}, {"ratio": None, "layer_ratios": [("blocks.3.a", 0.5)]}):
        choice = choose(tied, scores, round_to=step, **options)
        kept = [len(choice.keep[name]) for name in names]
        assert kept[0] % step == 0 and kept[0] < 16
        assert kept == [kept[0], 2 * kept[0], 4 * kept[0]]
        best = np.sort(np.argsort(scores[names[2]], kind="stable")[-kept[2] :])
        assert list(best) == list(choice.keep[names[2]])


def test_linked_groups_get_one_ratio(deep: Analysed) -> None:
    """Where user code takes two groups to be of one size, the ratio of one is that of both."""
    linked = tuple(f"blocks.{i}.a.weight:0" for i in (0, 2))
    network = dataclasses.replace(deep.network, linked=(linked,))
    options = {"ratio": None, "layer_ratios": [("blocks.2.a", 0.5)], "keep_linked": True}
    assert counts(network, choose(network, scores_of(deep), **options)) == (
        counts(network, Choice({}, "macs", 1, 1)) | dict.fromkeys(linked, 8)
    )


def test_layers_that_remove_more_than_the_ratio_are_refused(deep: Analysed) -> None:
    ratios = [("blocks.*", 0.8)]
    alone = chosen(deep, ratio=None, layer_ratios=ratios)
    with pytest.raises(CompressorError, match="--layer-ratio alone removes") as refused:
        chosen(deep, ratio=0.2, layer_ratios=ratios)
    assert f"{alone.removed:.3f}" in refused.value.what
    assert "leave --ratio out" in refused.value.next_step
    assert chosen(deep, ratio=0.2, layer_ratios=ratios, best_effort=True).keep == alone.keep


def test_layers_that_keep_too_much_are_said(deep: Analysed) -> None:
    ratios = [("blocks.*", 0.1)]
    with pytest.raises(CompressorError, match="out of reach") as refused:
        chosen(deep, ratio=0.9, layer_ratios=ratios)
    assert "--layer-ratio" in refused.value.where
    most = chosen(deep, ratio=0.9, layer_ratios=ratios, best_effort=True)
    assert f"{math.floor(most.removed * 1000) / 1000:.3f}" in refused.value.what


@pytest.mark.parametrize(
    ("ratios", "says", "next_step"),
    [
        ([("steem", 0.5)], "--layer-ratio 'steem' matches no module", "stem"),
        ([("b", 0.5)], "no layer that makes channels of its own", "--layer-ratio 'stem=0.5'"),
        ([("head", 0.5)], "no layer that makes channels of its own", "compress inspect"),
        ([("a", 0.0)], "removes nothing", "larger shares"),
    ],
)
def test_layer_ratios_that_cannot_be_meant(
    ratios: list[tuple[str, float]], says: str, next_step: str
) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        chosen(analysed("residual"), ratio=None, layer_ratios=ratios)
    assert next_step in refused.value.next_step


# -- what may be pruned --------------------------------------------------------------------------


def untouched(of: Analysed, protect: Sequence[str]) -> set[str]:
    """Groups that lose nothing even when all that can go goes."""
    choice = chosen(of, ratio=0.999, best_effort=True, protect=protect)
    return {group.name for group in of.network.groups} - set(choice.keep)


@pytest.mark.parametrize(
    ("glob", "kept"),
    [
        ("a", {"stem.weight:0", "a.weight:0"}),
        ("bn", {"a.weight:0"}),
        ("bn.weight", {"a.weight:0"}),
        ("b?.bias", {"a.weight:0"}),
        ("bn.running_*", {"a.weight:0"}),
        ("head", {"stem.weight:0"}),
        ("stem.*", {"stem.weight:0"}),
    ],
)
def test_globs_protect_modules_and_parameters(glob: str, kept: set[str]) -> None:
    of = analysed("residual")
    everything = {group.name for group in of.network.groups}
    if kept == everything:
        with pytest.raises(CompressorError, match="no group of channels to prune") as refused:
            untouched(of, [glob])
        assert "protect less" in refused.value.next_step
    else:
        assert untouched(of, [glob]) == kept


def test_a_glob_protects_what_is_below_a_module(deep: Analysed) -> None:
    kept = untouched(deep, ["blocks.1", "blocks.4.*"])
    assert {"blocks.1.a.weight:0", "blocks.4.a.weight:0"} <= kept
    assert "blocks.2.a.weight:0" not in kept


def test_a_glob_reaches_tied_tensors_by_either_name() -> None:
    of = analysed("tied_layers")
    expected = {"stem.weight:0", "left.weight:0"}
    for glob in ("left.weight", "right.weight"):
        with pytest.raises(CompressorError, match="no group of channels"):
            untouched(of, [glob])
    assert {g.name for g in of.network.groups} == expected


@pytest.mark.parametrize(("glob", "near"), [("steem", "stem"), ("hed.weight", "head.weight")])
def test_a_glob_that_matches_nothing_names_the_nearest(glob: str, near: str) -> None:
    with pytest.raises(UsageError, match="matches no module or parameter") as refused:
        chosen(analysed("residual"), ratio=0.2, protect=["a", glob])
    assert near in refused.value.next_step
    assert refused.value.exit_code == 2


def test_streams_behind_norms_are_pruned_only_when_asked() -> None:
    of = analysed("normed_mlp")
    stream, inner = "embed.weight:0 stream", "up.weight:0"
    assert set(chosen(of, ratio=0.2).keep) == {inner}
    both = chosen(of, ratio=0.999, best_effort=True, prune=["stream"])
    assert set(both.keep) == {stream, inner}
    with pytest.raises(CompressorError, match="out of reach") as refused:
        chosen(of, ratio=0.7)
    assert "--prune stream" in refused.value.next_step


def test_heads_are_pruned_by_default_and_their_widths_are_not() -> None:
    of = analysed("fused_attention")
    keep = chosen(of, ratio=0.999, best_effort=True).keep
    roles = {g.role for g in of.network.groups if g.name in keep}
    assert roles == {"channels", "heads"}
    keep = chosen(of, ratio=0.999, best_effort=True, prune=["head_width"]).keep
    assert {g.role for g in of.network.groups if g.name in keep} == {*roles, "head_width"}


def test_a_network_with_nothing_to_prune_says_why() -> None:
    of = analysed_case(Case(lambda: nn.Sequential(nn.Linear(5, 4)), (5,)))
    with pytest.raises(CompressorError, match="no group of channels to prune") as refused:
        choose(of.network, {}, ratio=0.5)
    assert "a model input" in refused.value.where
    assert "a model output" in refused.value.where
    assert refused.value.exit_code == 1
