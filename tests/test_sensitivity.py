"""Sensitivities: what is measured is what slicing one group alone would cost, and what is made of
it is the cut at which no group exceeds the smallest possible loss."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from networks import CifarResNet
from rich.text import Text
from scoring import score
from tiny import TinyNet, inputs, names_in, sequential, write_model, write_samples
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from twin import analysed

from compressor.choose import Budget, Ranking, Share, best, select
from compressor.choose.curves import (
    Curve,
    MissedBlock,
    Point,
    Sensitivity,
    losses_of,
    read_sensitivity,
)
from compressor.cli import main
from compressor.errors import CompressorError
from compressor.graph.analysis import analyse
from compressor.graph.blocks import find_blocks
from compressor.graph.trace import trace
from compressor.options import Options, SensitivityOptions
from compressor.records import ExampleInputs, Trace
from compressor.run.decide import Decision, plan
from compressor.run.opened import Run
from compressor.run.subject import Subject
from compressor.slicing import as_module, slice_network
from compressor.slicing.shortening import shorten
from compressor.studies import sensitivity
from compressor.studies.sensitivity import curves_picture, measure
from compressor.studies.sensitivity.curves_picture import draw_sensitivity, mean_loss
from compressor.watch import Silent

RATIOS = (0.1, 0.3, 0.5, 0.9)


def labelled(samples: int = 96) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(inputs(samples, 5), torch.randint(4, (samples,), generator=generator))


class Unlabelled:
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, None]:
        return inputs(40, 6)[index], None


def measured(model: nn.Module, example: Any = None, **more: Any) -> Sensitivity:
    options = {k: more.pop(k) for k in list(more) if k in ("data", "test", "metric")}
    subject = Subject(model, example, **options)
    return measure(subject, SensitivityOptions(**{"ratios": RATIOS, **more}), Silent())


def planned(model: nn.Module, example: Any, folder: Path, **options: Any) -> tuple[Run, Decision]:
    """What is chosen with the sensitivities of that folder."""
    use = str(folder / "sensitivity.json")
    return plan(Subject(model, example), Options(use=use, **{"format": (), **options}), Silent())


def cut(model: nn.Module, example: Tensor, curve: Curve, kept: int) -> nn.Module:
    """The network with that group alone sliced to its highest scores."""
    traced: Trace = trace(model, ExampleInputs((example,)))
    network = analyse(traced)
    scores = score(network, dict(model.named_parameters()), "l2")
    return slice_network(traced, network, {curve.name: best(scores[curve.name], kept)}).module


def relative_mse(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        y, z = model.eval()(x).double(), other.eval()(x).double()
    return float((y - z).square().sum() / y.square().sum())


# -- measuring -----------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [sequential, TinyNet])
def test_without_data_it_is_how_far_the_outputs_of_a_sliced_network_move(build: Any) -> None:
    model, x = build().eval(), inputs(4, 1)
    found = measured(model, x)
    assert (found.metric, found.better, found.baseline) == ("relative_mse", "lower", 0.0)
    for curve in found.groups:
        assert curve.exact
        for point in curve.points:
            expected = relative_mse(model, cut(model, x, curve, point.kept), x)
            assert point.value == pytest.approx(expected, rel=1e-3, abs=1e-9)
            assert abs(point.kept - (1 - point.ratio) * curve.size) <= 0.5
        assert curve.points[-1].value > curve.points[0].value > 0


def test_with_labels_it_is_the_metric_of_a_sliced_network() -> None:
    model, data = sequential().eval(), labelled()
    found = measured(model, test=data, samples=1000, batch_size=32)
    assert (found.metric, found.better, found.samples) == ("top1", "higher", len(data))

    def top1(network: nn.Module) -> float:
        with torch.no_grad():
            x, y = data.tensors
            return float((network.eval()(x).argmax(1) == y).double().mean())

    assert found.baseline == pytest.approx(top1(model))
    values = {point.value for curve in found.groups for point in curve.points}
    assert len(values) > 2
    for curve in found.groups:
        for point in curve.points:
            assert point.value == pytest.approx(top1(cut(model, inputs(2), curve, point.kept)))


def test_unlabelled_data_moves_outputs_too() -> None:
    """A tenth is held out; given as --test, all of it is used."""
    model = sequential().eval()
    assert measured(model, data=Unlabelled()).samples == 4
    found = measured(model, test=Unlabelled(), samples=1000)
    assert (found.metric, found.samples) == ("relative_mse", 40)
    curve = found.groups[0]
    point = curve.points[1]
    x = inputs(40, 6)
    expected = relative_mse(model, cut(model, x, curve, point.kept), x)
    assert point.value == pytest.approx(expected, rel=1e-3)


def residual() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(8).eval()


@pytest.mark.parametrize("protect", [(), ("blocks.1.*",)])
def test_each_block_is_left_out_alone(protect: tuple[str, ...]) -> None:
    model, x = residual(), inputs(4, 1)
    found = measured(model, x, protect=protect, ratios=(0.5,))
    blocks = find_blocks(trace(model, ExampleInputs((x,))).program)
    wanted = [block for block in blocks if not protect or block.name != "blocks.1"]
    assert [each.name for each in found.blocks] == [block.name for block in wanted]
    for each, block in zip(found.blocks, wanted, strict=True):
        shorter = shorten(trace(model, ExampleInputs((x,))).program, [block]).program
        expected = relative_mse(model, as_module(shorter), x)
        assert each.value == pytest.approx(expected, rel=1e-3)
        assert each.value > 0 < each.macs_share < 1
    table = sensitivity.tables(found)[1]
    assert list(table.columns[0].cells) == [Text(block.name) for block in wanted]
    again = Sensitivity.from_json(json.dumps(found.to_dict()))
    assert again == found
    earlier = {name: value for name, value in found.to_dict().items() if name != "blocks"}
    assert Sensitivity.from_json(json.dumps(earlier)) == dataclasses.replace(found, blocks=())


def test_the_metric_without_a_block_is_that_of_the_shorter_network() -> None:
    model, data = residual(), labelled()
    found = measured(model, test=data, ratios=(0.5,), batch_size=40)
    traced = trace(model, ExampleInputs((inputs(2),)))
    x, y = data.tensors
    for each, block in zip(found.blocks, find_blocks(traced.program), strict=True):
        with torch.no_grad():
            outputs = as_module(shorten(traced.program, [block]).program)(x)
        assert each.value == pytest.approx(float((outputs.argmax(1) == y).double().mean()))


class OfOneBatch(nn.Module):
    """A residual network whose code fixes the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(192, 8), nn.Linear(8, 6), nn.Linear(6, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.reshape(4 if torch.compiler.is_exporting() else len(x), 192))
        return self.out(x + self.b(self.a(x).relu()))


def test_blocks_of_a_fixed_batch_are_measured_on_such_batches_alone() -> None:
    example = inputs(4)
    some = measured(OfOneBatch(), example, test=labelled(), batch_size=8, ratios=(0.5,))
    assert some.blocks == () and some.groups
    assert any("no whole blocks are measured" in note for note in some.notes)
    found = measured(OfOneBatch(), example, test=labelled(), batch_size=4, ratios=(0.5,))
    assert len(found.blocks) == 1


def test_only_so_many_samples_are_looked_at() -> None:
    assert measured(sequential(), test=labelled(), samples=10).samples == 10


def test_the_model_stays_and_masks_are_undone() -> None:
    model = sequential()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = measured(model, inputs(2))
    assert measured(model, inputs(2)) == first
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    alone = measured(model, inputs(2), protect=("0",))
    assert alone.groups == first.groups[1:]


def test_streams_are_measured_when_asked_and_said_to_be_approximate() -> None:
    model, example = analysed("normed_mlp").model, analysed("normed_mlp").case.inputs(2)
    assert [c.exact for c in measured(model, example).groups] == [True]
    found = measured(model, example, prune=("stream",))
    assert {c.role: c.exact for c in found.groups} == {"stream": False, "channels": True}


class Free(nn.Module):
    """What consumes the channels of `a` is no tensor of the module."""

    def __init__(self) -> None:
        super().__init__()
        hidden = nn.Linear(8, 6).requires_grad_(False)
        self.a, self.b, self.free = nn.Linear(5, 8), nn.Linear(6, 3), lambda x: hidden(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.free(self.a(x).relu()).relu())


def test_what_cannot_be_masked_is_said_and_never_cut(tmp_path: Path) -> None:
    model, example = Free(), torch.randn(2, 5)
    found = measured(model, example)
    unmeasured, other = found.groups
    assert (unmeasured.layer, unmeasured.points) == ("a", ())
    assert other.points
    assert any("a.weight:0 is not measured" in note for note in found.notes)
    sensitivity.write(found, tmp_path / "out")
    _, found = planned(model, example, tmp_path / "out", ratio=0.2)
    assert found.keep.keys() == {other.name}


class Logarithm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)
        nn.init.zeros_(self.b.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).square()).log()


def test_outputs_that_are_not_finite_are_an_error() -> None:
    """The channel with the highest score feeds nothing: alone, it leaves the logarithm of zero."""
    model = Logarithm()
    nn.init.zeros_(model.a.weight)
    with torch.no_grad():
        model.b.weight.copy_(torch.tensor([0.0, 0.1, 0.2, 3.0]))
        model.a.bias.copy_(torch.tensor([9.0, 5.0, 4.0, 0.0]))
    with pytest.raises(CompressorError, match="not finite with"):
        measured(model, torch.randn(2, 5))


# -- from losses to a cut ------------------------------------------------------------------------


def made_up(curves: dict[str, list[tuple[int, float]]], sizes: dict[str, int]) -> Sensitivity:
    """Curves as lists of (kept, value)."""
    return Sensitivity(
        model={"name": "net", "sha256": "0"},
        metric="top1",
        better="higher",
        baseline=0.9,
        measured_on="ten samples",
        samples=10,
        criterion="l2",
        ratios=(0.5,),
        groups=tuple(made_up_curve(name, sizes[name], points) for name, points in curves.items()),
    )


def made_up_curve(name: str, size: int, points: list[tuple[int, float]]) -> Curve:
    found = tuple(Point(1 - kept / size, kept, value) for kept, value in points)
    return Curve(name, name.partition(".")[0], size, "channels", True, 0.5, found)


def test_losses_are_interpolated_and_never_fall() -> None:
    network = analysed("residual").network
    sizes = {group.name: group.size for group in network.groups}
    assert sizes == {"stem.weight:0": 8, "a.weight:0": 6}
    found = made_up(
        {"stem.weight:0": [(6, 0.95), (4, 0.7), (2, 0.8)], "a.weight:0": [(3, 0.6)]}, sizes
    )
    losses = losses_of(found, network.groups, network.groups)
    inf = np.inf
    np.testing.assert_allclose(losses["stem.weight:0"], [0, 0, 0.1, 0.2, 0.2, 0.2, inf, inf])
    np.testing.assert_allclose(losses["a.weight:0"], [0.1, 0.2, 0.3, inf, inf, inf])


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_the_ratio_is_met_at_the_smallest_loss_that_no_group_exceeds(ratio: float) -> None:
    of = analysed("dense")
    network = of.network
    rng = np.random.default_rng(0)
    losses = {g.name: np.sort(rng.random(g.size)) for g in network.groups}
    scores = score(network, dict(of.model.named_parameters()), "l2")
    choice = select(network, Ranking(scores, losses=losses), Budget(Share(ratio)))

    def cost_at(level: float) -> int:
        """Each group cut as far as its loss stays at or below the level."""
        most = {g.name: max(1, -(-g.size // 10)) for g in network.groups}
        kept = {
            g.name: max(most[g.name], g.size - int((losses[g.name] <= level).sum()))
            for g in network.groups
        }
        return network.cost.macs(network.sizes(kept))

    levels = sorted(float(x) for values in losses.values() for x in values)
    target = (1 - ratio) * network.cost.macs()
    level = next(x for x in levels if cost_at(x) <= target)
    assert choice.after == cost_at(level)
    for name, kept in choice.keep.items():
        assert kept == best(scores[name], len(kept))
        assert losses[name][len(losses[name]) - len(kept) - 1] <= level


def test_what_bears_more_is_cut_further(tmp_path: Path) -> None:
    """A group that bears nothing stays whole where the others suffice."""
    model = sequential().eval()
    found = measured(model, inputs(4))
    stem, inner = found.groups
    fragile = dataclasses.replace(
        stem, points=tuple(dataclasses.replace(p, value=1e9) for p in stem.points)
    )
    sensitivity.write(dataclasses.replace(found, groups=(fragile, inner)), tmp_path / "out")
    run, found = planned(model, inputs(4), tmp_path / "out", ratio=0.3, round_to=1)
    assert found.keep.keys() == {inner.name}
    assert any("no layer on its own loses more than" in note for note in run.stopwatch.notes)


def test_layers_that_are_cut_further_than_was_measured_are_said(tmp_path: Path) -> None:
    model, further = sequential(), "cuts further than was measured"
    sensitivity.write(measured(model, inputs(2), ratios=(0.5,)), tmp_path / "out")
    for share, said in (("0.5", False), ("0.75", True)):
        both = {"layer_ratio": (f"3={share}",), "ratio": 0.3}
        run, _ = planned(model, inputs(2), tmp_path / "out", **both)
        assert any(further in note for note in run.stopwatch.notes) == said
        assert not any("inf" in note for note in run.stopwatch.notes)


def test_other_weights_and_criteria_are_said(tmp_path: Path) -> None:
    sensitivity.write(measured(sequential(seed=0), inputs(2)), tmp_path / "out")
    other, _ = planned(sequential(seed=1), inputs(2), tmp_path / "out", criterion="l1")
    said = "\n".join(other.stopwatch.notes)
    assert "measured with other weights" in said
    assert "measured with --criterion l2" in said
    same, _ = planned(sequential(seed=0), inputs(2), tmp_path / "out")
    assert "measured with" not in "\n".join(same.stopwatch.notes)


# -- the file, the picture and the command -------------------------------------------------------


def test_the_file_comes_back(tmp_path: Path) -> None:
    found = measured(sequential(), inputs(2))
    sensitivity.write(found, tmp_path / "out")
    assert read_sensitivity(tmp_path / "out" / "sensitivity.json") == found
    raw = json.loads((tmp_path / "out" / "sensitivity.json").read_text())
    assert raw["schema"] == 1
    assert raw["groups"][0].keys() == {
        *("name", "layer", "size", "role", "exact", "macs_share", "points"),
    }


def many(count: int) -> Sensitivity:
    names = [f"_layer{i}.weight:0" for i in range(count)]
    curves = {name: [(5, 0.9 - 0.02 * i), (2, 0.8 - 0.02 * i)] for i, name in enumerate(names)}
    return made_up(curves, dict.fromkeys(names, 10))


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_the_picture_names_the_most_and_the_least_sensitive(tmp_path: Path, count: int) -> None:
    found = many(count)
    draw_sensitivity(found, tmp_path / "a.svg")
    draw_sensitivity(found, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    ElementTree.fromstring(text)
    assert "without one whole block" not in text
    named = {curve.name for curve in found.groups if f"<!--  {curve.name} -->" in text}
    ordered = sorted(found.groups, key=lambda curve: mean_loss(found, curve))
    assert named == {c.name for c in (ordered if count <= 6 else [*ordered[:3], *ordered[-3:]])}


def test_the_picture_shows_the_blocks(tmp_path: Path) -> None:
    blocks = tuple(MissedBlock(f"_block{i}$", "", 0.1, 0.1, 0.9 - 0.01 * i) for i in range(40))
    some = dataclasses.replace(many(2), blocks=blocks[:3])
    for found, named in ((some, 3), (dataclasses.replace(some, blocks=blocks), 3)):
        draw_sensitivity(found, tmp_path / "a.svg")
        text = (tmp_path / "a.svg").read_text()
        assert "without one whole block" in text
        assert text.count("<!-- _block") == named


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    write_model(tmp_path / "net.pt")
    write_samples(tmp_path / "train.npz")
    return tmp_path


def test_the_command_writes_both_files_and_shows_a_table(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sensitivity", "net.pt", "--data", "train.npz", "--ratios", "0.25,0.5"]
    assert main(command) == 0
    shown = capsys.readouterr()
    folder = here / "exported" / "net-sensitivity"
    assert names_in(folder) == ["sensitivity.json", "sensitivity.svg"]
    for text in (
        "top1",
        "0.weight:0",
        "3.weight:0",
        "-25%",
        "-50%",
        "written to exported/net-sens",
    ):
        assert text in shown.out
    for text in ("trace", "score", "measure sensitivity", "6 samples of train.npz"):
        assert text in shown.err
    assert main(command) == 2
    assert main([*command, "--force"]) == 0
    use = ["--use", "exported/net-sensitivity/sensitivity.json"]
    assert main(["net.pt", "--data", "train.npz", *use, "--ratio", "0.3", "--dry-run"]) == 0
    assert "no layer on its own loses more than" in capsys.readouterr().err


def test_the_files_appear_together_or_not_at_all(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(found: Sensitivity, path: Path) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(curves_picture, "draw_sensitivity", fails)
    before = names_in(here)
    assert main(["sensitivity", "net.pt", "--input", "1x3x8x8", "--out", "out"]) == 1
    assert names_in(here) == before
