"""Blocks: branches that an addition joins to a stream are found, taken out and made up for."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from cases import Case
from networks import CifarResNet
from test_masked_twin import assert_exact
from tiny import compress
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from twin import Analysed, analysed, analysed_case, assert_alive, assert_same, live, random_keep

import compressor
from compressor.choose import OutOfReachError
from compressor.choose.blocks import removable, saved_by
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.graph.analysis import analyse
from compressor.graph.blocks import Block, find_blocks
from compressor.graph.programs.rebuilding import rebuild
from compressor.graph.trace import trace
from compressor.least_squares import Divergence, Whole, refit
from compressor.options import Options
from compressor.records import ExampleInputs, Plan, Trace
from compressor.run.compress import cut_and_recover, plan
from compressor.run.found import Candidate, Search
from compressor.run.in_steps import record_of, restore
from compressor.run.journal import Journal
from compressor.run.judging import Judge
from compressor.run.subject import Subject
from compressor.slicing import apply_plan, as_module, compare, slice_network, variants
from compressor.slicing.compare import outputs_of
from compressor.slicing.program import copy_graph, slice_program
from compressor.slicing.shortening import shorten
from compressor.slicing.taking_out import take_out
from compressor.watch import Silent

WITH_BLOCKS = (
    *("residual", "padded_shortcut", "fused_attention", "multi_head", "encoder_layer"),
    *("language_model", "normed_mlp"),
)


@cache
def resnet() -> Analysed:
    return analysed_case(Case(lambda: CifarResNet(20), sample=(3, 16, 16)))


def names_of(blocks: Sequence[Block]) -> list[str]:
    return [block.name for block in blocks]


def multiply_by_zero(whole: ExportedProgram, blocks: Sequence[Block]) -> nn.Module:
    """The whole program with each of the blocks' branches multiplied by zero."""
    graph = copy_graph(whole.graph)
    named = {node.name: node for node in graph.nodes}
    for block in blocks:
        addition, branch = named[block.addition], named[block.branch]
        with graph.inserting_before(addition):
            zero = graph.call_function(torch.ops.aten.mul.Scalar, (branch, 0.0))
        zero.meta = dict(branch.meta)
        addition.replace_input_with(branch, zero)
    return as_module(rebuild(whole, module=GraphModule(whole.graph_module, graph)))


def without(of: Analysed, blocks: Sequence[Block]) -> Analysed:
    shorter = take_out(of.trace, blocks)
    return Analysed(of.case, shorter.module, shorter, analyse(shorter))


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_a_block_taken_out_is_its_branch_times_zero(name: str) -> None:
    of = analysed(name)
    for block in find_blocks(of.trace.program):
        shorter = without(of, [block])
        twin = multiply_by_zero(of.trace.program, [block])
        assert_alive(twin, of.case)
        assert_same(twin, as_module(shorter.trace.program), of.case)
        assert_same(twin, shorter.trace.module, of.case)
        assert not block.tensors & dict(shorter.trace.module.named_parameters()).keys()


@pytest.mark.parametrize("seed", range(3))
def test_blocks_go_beside_channels(seed: int) -> None:
    of = resnet()
    blocks = find_blocks(of.trace.program)
    some = [block for block in blocks if random.Random(f"{seed} {block.name}").random() < 0.5]
    shorter = without(of, some)
    assert_same(multiply_by_zero(of.trace.program, some), shorter.trace.module, of.case)
    assert_exact(shorter, seed)
    assert shorter.network.cost.macs() < of.network.cost.macs()


def test_every_residual_block_is_found() -> None:
    of = resnet()
    assert names_of(find_blocks(of.trace.program)) == [f"blocks.{i}" for i in range(9)]


class Written(nn.Module):
    """The branch changes the stream in place, or is read elsewhere: it cannot go alone."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem, self.branch, self.out = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.branch(x.view_as(x).mul_(0.5) if self.how == "in place" else x)
        return self.out((x + y) * (y if self.how == "read elsewhere" else 1.0))


@pytest.mark.parametrize(("how", "count"), [("in place", 0), ("read elsewhere", 0), ("plain", 1)])
def test_what_others_need_is_no_block(how: str, count: int) -> None:
    traced = trace(Written(how).eval(), ExampleInputs((torch.randn(2, 5),)))
    assert len(find_blocks(traced.program)) == count


class WrittenAfterwards(nn.Module):
    """What follows the sum changes it in place, and the stream is read once more later."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.out = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.branch(x).relu()
        y.view_as(y).clamp_(-0.5, 0.5)
        return self.out(y * x)


def test_what_is_written_to_afterwards_is_a_copy_of_the_stream() -> None:
    of = analysed_case(Case(WrittenAfterwards, sample=(5,)))
    blocks = find_blocks(of.trace.program)
    shorter = shorten(of.trace.program, blocks).program
    assert_same(multiply_by_zero(of.trace.program, blocks), as_module(shorter), of.case)


def test_a_plan_without_blocks_is_replayed_on_the_class() -> None:
    of = resnet()
    blocks = find_blocks(of.trace.program)
    shorter = without(of, [blocks[1], blocks[2], blocks[3], blocks[8]])
    made = slice_network(shorter.trace, shorter.network, random_keep(shorter.network, 0))
    plan = Plan.from_json(made.plan.to_json())
    assert plan.removal is not None and made.plan.form == "class"
    assert plan.removal.blocks == ("blocks.1", "blocks.2", "blocks.3", "blocks.8")
    fresh = CifarResNet(20).double().eval()
    replayed = apply_plan(plan, fresh, lambda: made.program)
    replayed.load_state_dict(made.module.state_dict())
    assert_same(made.module, replayed, of.case)


class Linear(nn.Module):
    """A stem, then branches that are linear: the stem alone can do what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (nn.Linear(6, 6) for _ in range(3))
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.first(x)
        return self.out((x + self.second(x)).relu())


def linear() -> Trace:
    torch.manual_seed(0)
    return trace(Linear().double().eval(), ExampleInputs((torch.randn(2, 6).double(),)))


def test_what_stands_before_a_block_makes_up_for_it() -> None:
    traced = linear()
    blocks = find_blocks(traced.program)
    assert names_of(blocks) == ["first", "second"]
    short = shorten(traced.program, blocks)
    assert set(short.stands_for.values()) == {blocks[1].addition}
    data = [(torch.randn(64, 6).double(),)]
    shorter = replace(traced, program=short.program)
    network = analyse(shorter)
    program = slice_program(shorter, network, {})
    whole = Whole(traced.program, short.stands_for)
    before = Divergence(traced.program, lambda: data).of(program)
    refit(short.program, program, network, {}, lambda: data, ridge=1e-12, whole=whole)
    after = Divergence(traced.program, lambda: data).of(program)
    assert after < 1e-12 < before


def test_the_divergence_without_each_block_is_that_of_the_shorter_program() -> None:
    traced = linear()
    blocks, data = find_blocks(traced.program), [(torch.randn(8, 6).double(),)]
    divergence = Divergence(traced.program, lambda: data)
    assert divergence.of(traced.program) == 0.0
    expected = [divergence.of(shorten(traced.program, [block]).program) for block in blocks]
    assert divergence.without(blocks) == pytest.approx(expected)


def test_what_a_block_saves_is_what_the_shorter_network_lacks() -> None:
    of = resnet()
    for block in find_blocks(of.trace.program)[::4]:
        shorter = without(of, [block]).network.cost
        for unit in ("macs", "params"):
            lacks = 1 - shorter.of(unit) / of.network.cost.of(unit)
            assert saved_by(of.network, block, unit) == pytest.approx(lacks)


def test_protected_blocks_stay() -> None:
    of = resnet()
    blocks = find_blocks(of.trace.program)
    left = removable(of.network, blocks, ("blocks.3.*", "blocks.4.a.weight", "blocks.5"))
    assert set(names_of(blocks)) - set(names_of(left)) == {"blocks.3", "blocks.4", "blocks.5"}


# -- the command ---------------------------------------------------------------------------------


class Samples(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Random images of four classes, told apart by their means."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 8, 8, generator=generator) + index % 4, index % 4


def blocky() -> nn.Module:
    """A residual network with weights drawn anew, whose later blocks add little."""
    torch.manual_seed(0)
    model = CifarResNet(14).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm_b.weight"):
                parameter.mul_(1e-4 if name.startswith(("blocks.1", "blocks.3")) else 0.5)
    return model


def shorten_by_command(**options: object) -> compressor.Result:
    asked = {"ratio": 0.3, "prune": "block", "search": 7, "round_to": 16, "calibration": 256}
    given = {"data": Samples(), "batch_size": 16, **asked, **options}
    return compress(blocky(), torch.randn(1, 3, 8, 8), **given)


@cache
def shortened() -> compressor.Result:
    """One result for all tests that only look at it."""
    return shorten_by_command()


def test_the_command_takes_blocks_out_and_says_so(tmp_path: Path) -> None:
    result = shortened()
    removal, search = result.plan.removal, result.report["budget"]["search"]
    assert removal is not None and {"blocks.1", "blocks.3", "blocks.5"} & set(removal.blocks)
    assert search["blocks"] == list(removal.blocks) and search["of"] == 6
    assert len(search["candidates"]) == 7
    best = min(search["candidates"], key=lambda each: each["divergence"])
    assert best["blocks"] == search["blocks"]
    before, after = result.report["before"]["macs"], result.report["after"]["macs"]
    assert 1 - after / before == pytest.approx(0.3, abs=0.05)
    assert any("blocks are taken out" in note for note in result.report["notes"])
    result.save(tmp_path / "result")
    said = f"blocks taken out: {', '.join(removal.blocks)} (6 could go; 7 networks were tried)"
    assert said in (tmp_path / "result" / "report.md").read_text()
    loaded = compressor.load(tmp_path / "result", blocky)
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), result.module.eval()(x))


@pytest.mark.slow
def test_the_same_seed_finds_the_same_blocks() -> None:
    first, second = shortened(), shorten_by_command()
    assert first.plan.to_json() == second.plan.to_json()


def test_a_plan_replays_blocks_and_channels(tmp_path: Path) -> None:
    found = shortened()
    found.save(tmp_path / "result")
    plan = str(tmp_path / "result" / "plan.json")
    again = compress(blocky(), torch.randn(1, 3, 8, 8), plan=plan, repair=False)
    assert again.plan.to_json() == found.plan.to_json()
    assert again.report["before"]["macs"] == found.report["before"]["macs"]


def test_blocks_bring_within_reach_what_channels_alone_do_not() -> None:
    far = {"ratio": 0.6, "search": 6, "calibration": 64}
    with pytest.raises(OutOfReachError, match="at most") as caught:
        shorten_by_command(**{**far, "search": 0})
    alone = float(re.search(r"at most (\S+) can", caught.value.what)[1])  # type: ignore[index]
    assert alone < 0.6
    result = shorten_by_command(**far)
    before, after = result.report["before"]["macs"], result.report["after"]["macs"]
    assert 1 - after / before == pytest.approx(0.6, abs=0.1)
    assert result.plan.removal is not None
    first, *others = result.report["budget"]["search"]["candidates"]
    assert first["divergence"] is None  # it is out of reach
    assert any(each["divergence"] is not None for each in others)
    with pytest.raises(OutOfReachError, match=r"ratio 0.999 .* out of reach"):
        shorten_by_command(**{**far, "ratio": 0.999})


def test_a_dry_run_says_that_blocks_may_bring_it_within_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(blocky(), tmp_path / "net.pt")
    images = torch.stack([Samples()[index][0] for index in range(64)]).numpy()
    np.savez(tmp_path / "data.npz", inputs=images)
    asked = ["--ratio", "0.6", "--round-to", "16", "--prune", "block", "--input", "1x3x8x8"]
    words = [str(tmp_path / "net.pt"), *asked, "--trust-pickle", "--dry-run"]
    assert main([*words, "--data", str(tmp_path / "data.npz")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "out of reach" in said and "unless whole blocks go" in said
    assert "no more can go" not in said


class Gated(nn.Module):
    """Only the block reads the second input, (N, 12) and (N, 16) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(12, 16), nn.Linear(16, 4)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        x = self.first(x)
        y: Tensor = self.last(x + self.down(self.up(x * gate).relu()))
        return y


def test_an_input_that_only_a_block_reads_is_still_given() -> None:
    given = ExampleInputs((torch.randn(2, 12), torch.rand(2, 16)))
    traced = trace(Gated().eval(), given)
    blocks = find_blocks(traced.program)
    shorter = take_out(traced, blocks)
    assert len(blocks) == 1
    assert len(shorter.program.graph_signature.user_inputs) == 2
    wanted = multiply_by_zero(traced.program, blocks)(*given.args)
    for module in (shorter.module, as_module(shorter.program)):
        torch.testing.assert_close(module(*given.args), wanted)


@pytest.mark.slow
def test_steps_go_on_without_the_blocks() -> None:
    result = shorten_by_command(steps=2)
    assert result.plan.removal is not None
    before, after = result.report["before"]["macs"], result.report["after"]["macs"]
    assert 1 - after / before == pytest.approx(0.3, abs=0.05)


@pytest.mark.slow
def test_protected_blocks_stay_in_the_command() -> None:
    result = shorten_by_command(protect=("blocks.1.*", "blocks.3.*"))
    removed = result.plan.removal.blocks if result.plan.removal is not None else ()
    assert not {"blocks.1", "blocks.3"} & set(removed)


@pytest.mark.slow
def test_without_a_search_all_blocks_stay() -> None:
    result = shorten_by_command(search=0)
    assert result.plan.removal is None and '"removal"' not in result.plan.to_json()


def test_blocks_need_data() -> None:
    result = compress(blocky(), torch.randn(1, 3, 8, 8), ratio=0.2, prune="block")
    assert result.plan.removal is None
    assert any("no blocks are taken out" in note for note in result.report["notes"])


def test_a_run_goes_on_without_the_blocks_that_it_had_taken_out() -> None:
    subject = Subject(blocky(), torch.randn(1, 3, 8, 8), data=Samples())
    options = Options(
        ratio=0.3, prune=("block",), search=4, round_to=16, batch_size=16, calibration=48, format=()
    )
    run, decision = plan(subject, options, Silent())
    made = cut_and_recover(run, decision, Judge(run, None), Journal())
    again = restore(run, decision, record_of(made))
    assert again.cut.decision.search == made.cut.decision.search
    assert again.cut.sliced.plan == made.cut.sliced.plan
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.cut.sliced.module(x), made.cut.sliced.module(x))


def test_a_search_comes_back_from_what_the_report_says() -> None:
    tried = (Candidate((), math.inf), Candidate(("a", "b"), 0.25, {"c": 2.0}, scored_again=True))
    search = Search(7, tried)
    assert search.blocks == ("a", "b")
    assert Search.from_report(json.loads(json.dumps(search.to_report()))) == search


def test_the_page_of_the_report_names_the_blocks(tmp_path: Path) -> None:
    shortened().save(tmp_path / "result")
    page = (tmp_path / "result" / "report.html").read_text()
    assert "Blocks taken out: " in page and "6 could go" in page


def test_a_search_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="below the least"):
        shorten_by_command(search=-1)


def test_a_plan_with_unknown_blocks_is_refused(tmp_path: Path) -> None:
    found = shortened()
    assert found.plan.removal is not None
    removal = replace(found.plan.removal, blocks=("blocks.77",))
    file = tmp_path / "plan.json"
    file.write_text(replace(found.plan, removal=removal).to_json())
    with pytest.raises(CompressorError, match=r"no block blocks\.77"):
        compress(blocky(), torch.randn(1, 3, 8, 8), plan=str(file))


# -- networks of libraries -------------------------------------------------------------------------


def assert_shorter_is_exact(model: nn.Module, inputs: ExampleInputs, seed: int = 0) -> str:
    """Half of the blocks out, beside half of the channels; return the form of the result."""
    traced = trace(live(model), inputs)
    blocks = find_blocks(traced.program)
    chosen = set(random.Random(seed).sample(names_of(blocks), len(blocks) // 2))
    some = [block for block in blocks if block.name in chosen]
    shorter = take_out(traced, some)
    twin = multiply_by_zero(traced.program, some)
    for example in variants(traced):
        expected = outputs_of(twin, example)
        for form in (as_module(shorter.program), shorter.module):
            for a, b in zip(expected, outputs_of(form, example), strict=True):
                assert float((a - b).abs().max()) <= 1e-10 * float(a.abs().max())
    network = analyse(shorter)
    made = slice_network(shorter, network, random_keep(network, seed))
    compare(made, shorter)
    return made.plan.form


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "resnet50", "mobilenet_v2", "swin_t", "efficientnet_b0", "regnet_y_400mf"),
        *("convnext_tiny", "maxvit_t"),
    ],
)
def test_blocks_of_torchvision(name: str) -> None:
    model = torchvision.models.get_model(name, num_classes=10)
    side = 224 if name == "maxvit_t" else 64
    image = torch.randn(2, 3, side, side, dtype=torch.float64)
    assert assert_shorter_is_exact(model, ExampleInputs((image,))) == "class"


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 100,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "form"),
    [
        ("Bert", SIZES, "class"),
        ("Llama", {**SIZES, "num_key_value_heads": 2}, "class"),
        ("Phi", SIZES, "class"),
        ("GPTNeoX", SIZES, "class"),
    ],
)
def test_blocks_of_transformers(name: str, sizes: dict[str, int], form: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    configuration = getattr(transformers, f"{name}Config")(**sizes)
    model = getattr(transformers, f"{name}Model")(configuration)
    ids = torch.randint(100, (2, 9), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, **({} if name == "Bert" else {"use_cache": False})}
    assert assert_shorter_is_exact(model, ExampleInputs((), given)) == form
