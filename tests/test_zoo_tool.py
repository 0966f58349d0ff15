"""The zoo's runner end to end on one small network, its twin, its files and its page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.programs.redraw import drawable, redraw_
from compressor.graph.trace import trace
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module, variants
from compressor.slicing.program import slice_program
from tools.jsonl import append_line
from tools.stories import Shape, Stories, rotate, rotation
from tools.zoo.__main__ import run, table
from tools.zoo.float64 import InFloat64
from tools.zoo.members import Judge, Quality, Settings, Subject
from tools.zoo.passing import DRAWS, Pass, calm_, halve, settle_
from tools.zoo.runner import Job, Limits, read, run_apart
from tools.zoo.table import to_markdown
from tools.zoo.trained import mobilenet_v1
from tools.zoo.twin import is_faint, rounding_error, twin_difference

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "results" / "zoo.jsonl"


class Residual(nn.Module):
    """A stream that crosses LayerNorm and a mean, with a norm computed in float32 by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 5)
        self.norm = nn.LayerNorm(12)
        self.inner, self.outer = nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.outer(self.inner(self.norm(x)).relu())
        scale = x.float().pow(2).mean(-1, keepdim=True).rsqrt()
        return self.last(x * scale.to(x.dtype))


def residual() -> tuple[Trace, Network]:
    model = Residual().eval()
    redraw_(drawable(model))
    traced = trace(model, ExampleInputs((torch.randn(2, 6),)))
    return traced, analyse(traced)


def masks_of(network: Network, role: str, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    keep = {
        g.name: rng.permutation(g.size)[: g.size // 2] for g in network.groups if g.role == role
    }
    assert keep
    return network.masks(keep)


@pytest.mark.parametrize("role", ["channels", "stream"])
def test_a_sliced_network_equals_its_twin_in_float64(role: str) -> None:
    traced, network = residual()
    masks = masks_of(network, role, 0)
    program = slice_program(traced, network, masks)
    assert twin_difference(traced, network, masks, program) < 1e-12


@pytest.mark.parametrize("role", ["channels", "stream"])
def test_the_twin_sees_when_other_channels_were_dropped(role: str) -> None:
    traced, network = residual()
    program = slice_program(traced, network, masks_of(network, role, 0))
    assert twin_difference(traced, network, masks_of(network, role, 1), program) > 1e-3


def test_a_sum_beside_the_dropped_axis_needs_no_compact_statistic() -> None:
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).exp()
            return self.last(x / x.sum(-1, keepdim=True))

    traced = trace(Shares(), ExampleInputs((torch.randn(2, 3, 5),)))
    network = analyse(traced)
    masks = masks_of(network, "channels", 0)
    assert twin_difference(traced, network, masks, slice_program(traced, network, masks)) < 1e-12


def test_float32_by_name_becomes_float64() -> None:
    with InFloat64():
        x = torch.arange(3, dtype=torch.float32) + torch.ones(3, dtype=torch.float64).float()
        filled = torch.zeros(2)
        filled[0] = 1
    assert x.dtype is filled.dtype is torch.float64
    assert filled.tolist() == [1, 0]


def test_grouped_products_are_computed_in_float64() -> None:
    a, b = torch.randn(5, 16, dtype=torch.float64), torch.randn(2, 16, 8, dtype=torch.float64)
    with InFloat64():
        found = torch._grouped_mm(a, b, torch.tensor([2, 5], dtype=torch.int32))
    assert torch.equal(found, torch.cat([a[:2] @ b[0], a[2:] @ b[1]]))


# -- one member, end to end ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_member_passes_is_not_run_twice_and_stands_on_the_page(tmp_path: Path) -> None:
    records, page = tmp_path / "zoo.jsonl", tmp_path / "zoo.md"
    assert run(only=("torchvision",), name="squeezenet1_1", out=records) == 0
    (record,) = read(records).values()
    assert record["status"] == "passed"
    assert 0.5 <= record["removed"] < 0.51
    assert record["twin"] < 1e-8
    assert record["onnx"] < 1e-4
    assert record["params_after"] < record["params"]
    assert record["form"] == "class"
    assert run(only=("torchvision",), name="squeezenet1_1", out=records) == 0
    assert len(records.read_text().splitlines()) == 1
    table(records, out=page)
    assert "| torchvision | 1 of 1 (100%) | 1 of 1 | 1 of 1 | 0 |" in page.read_text()


def test_a_member_that_takes_too_long_is_a_failure() -> None:
    record = run_apart(Job("torchvision", "squeezenet1_1"), Limits(seconds=1))
    assert record["status"] == "failed"
    assert record["error"]["first_line"] == "took longer than 1 s"


def test_a_quantised_network_is_left_out_with_the_reason(tmp_path: Path) -> None:
    records = tmp_path / "zoo.jsonl"
    assert run(only=("torchvision",), name="quantized_resnet18", out=records) == 0
    (record,) = read(records).values()
    assert (record["status"], record["reason"]) == (
        "skipped",
        "quantised: prune before quantising",
    )


# -- a pass in this process ----------------------------------------------------------------------


def passed(module: nn.Module, *inputs: Tensor, judge: Judge | None = None) -> dict:
    subject = Subject(module.eval(), ExampleInputs(inputs), judge)
    return Pass({}, onnx_seconds=60).run(lambda: subject)


def test_a_failure_says_stage_kind_and_place() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(f"no {x.dim()} dimensions")

    record = passed(Branching(), torch.randn(1, 3))
    assert (record["status"], record["stage"]) == ("failed", "trace")
    assert "no 2 dimensions" in record["error"]["where"]


def test_a_dead_network_is_no_pass() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x) * 0)

    record = passed(Constant(), torch.randn(1, 4))
    assert "do not depend on the inputs" in record["error"]["first_line"]


def test_a_trained_network_that_loses_much_is_no_pass() -> None:
    qualities = iter([Quality("accuracy", 0.9), Quality("accuracy", 0.5)])
    loss = nn.functional.mse_loss
    judge = Judge(lambda _: next(qualities), [(torch.randn(4, 4), torch.randn(4, 4))], loss)
    network = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 4))
    record = passed(network, torch.randn(1, 4), judge=judge)
    assert record["error"]["first_line"] == "5% fewer MACs: accuracy 90.0% → 50.0%"


def test_streams_are_cut_only_where_channels_do_not_suffice() -> None:
    traced, network = residual()
    assert halve(network, traced)[1] == ["channels"]
    only_stream = nn.Sequential(nn.Linear(4, 20), nn.LayerNorm(20), nn.Linear(20, 4))
    traced = trace(only_stream, ExampleInputs((torch.randn(2, 4),)))
    assert halve(analyse(traced), traced)[1] == ["stream"]


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (Quality("accuracy", 0.9), Quality("accuracy", 0.8), 0.1),
        (Quality("loss", 2.0), Quality("loss", 2.5), 0.25),
    ],
)
def test_worse_is_points_of_accuracy_or_a_share_of_the_loss(
    before: Quality, after: Quality, worse: float
) -> None:
    assert before.worse_by(after) == pytest.approx(worse)


# -- files ---------------------------------------------------------------------------------------


def test_the_latest_record_counts_and_a_cut_off_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "zoo.jsonl"
    append_line(path, {"zoo": "a", "name": "b", "status": "failed"})
    append_line(path, {"zoo": "a", "name": "b", "status": "passed"})
    with path.open("a") as file:
        file.write(json.dumps({"zoo": "a", "name": "c"})[:-4])
    assert read(path) == {("a", "b"): {"zoo": "a", "name": "b", "status": "passed"}}


def test_the_page_names_failures_and_what_was_left_out() -> None:
    common = {
        "date": "2030-01-02",
        "machine": "2 cores",
        "threads": "1",
        "versions": {"torch": "9"},
    }
    error = {"kind": "CompressorError", "first_line": "a | b", "where": "conv1 (net.py:3)"}
    page = to_markdown(
        [
            {"zoo": "z", "name": "bad", "status": "failed", "stage": "trace", "error": error}
            | common,
            {"zoo": "z", "name": "big", "status": "skipped", "reason": "too large"} | common,
        ]
    )
    assert "| z | 0 of 1 (0%) | 0 of 0 | 0 of 0 | 1 |" in page
    assert r"| z: bad | trace | CompressorError: a \| b | conv1 (net.py:3) |" in page
    assert "- **Left out**: too large (1)." in page
    assert "2030-01-02; 2 cores; threads of torch: 1; torch 9" in page


def test_the_page_stays_short_and_says_what_it_leaves_to_the_records() -> None:
    kept = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    error = {"kind": "WrongError", "first_line": "differs", "where": "here"}
    failures = [r | {"status": "failed", "stage": "twin", "error": error} for r in kept[:40]]
    page = to_markdown([*failures, *kept[40:]])
    assert len(page.splitlines()) <= 80
    assert "and 32 more." in page


def test_the_page_is_the_one_that_the_records_make() -> None:
    page = to_markdown([json.loads(line) for line in RECORDS.read_text().splitlines()])
    assert (ROOT / "docs" / "zoo.md").read_text() == page, "python -m tools.zoo table writes it"


# -- the trained networks' classes -----------------------------------------------------------------


def test_rotation_turns_interleaved_pairs_as_complex_numbers() -> None:
    x = torch.randn(1, 5, 3, 8, dtype=torch.float64)
    cos, sin = rotation(8, 16)[:, :5].double()
    expected = torch.view_as_complex(x.view(1, 5, 3, 4, 2)) * torch.complex(cos, sin)[:, None]
    assert torch.allclose(rotate(x, cos, sin), torch.view_as_real(expected).flatten(-2))


def test_stories_has_grouped_queries_and_interleaved_pairs() -> None:
    shape = Shape(width=16, hidden=12, layers=1, heads=4, kv_heads=2, vocabulary=20, context=16)
    ids = torch.randint(20, (1, 7), generator=torch.Generator().manual_seed(0))
    model = Stories(shape).eval()
    network = analyse(trace(model, ExampleInputs((ids,))))
    sizes = {(g.role, g.size) for g in network.groups}
    assert {("stream", 16), ("heads", 2), ("channels", 12), ("head_width", 2)} <= sizes
    later = ids.clone()
    later[0, -1] = (later[0, -1] + 1) % 20
    assert torch.equal(model(ids)[:, :-1], model(later)[:, :-1]), "it looks into the future"


def test_mobilenet_v1_has_the_checkpoints_names() -> None:
    names = mobilenet_v1().state_dict()
    assert {"stage1.0.0.weight", "stage1.1.3.weight", "stage2.5.4.running_var"} <= set(names)
    assert names["fc.weight"].shape == (1000, 256)


def test_members_without_their_weights_are_left_out(tmp_path: Path) -> None:
    from tools.zoo import trained

    assert trained.names(Settings(tmp_path, None)) == []
    assert "stories260k.safetensors" in trained.skipped(Settings(tmp_path))["stories260k"]


def fading() -> nn.Module:
    """Forty layers, each with a bias that stays and a signal that shrinks to an eighth."""
    layers = []
    for _ in range(40):
        conv = nn.Conv2d(4, 4, 1)
        nn.init.normal_(conv.weight, std=0.06)
        layers += [conv, nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3)).eval()


def test_a_signal_that_fades_is_restored_by_its_batch_norms() -> None:
    torch.manual_seed(0)
    model, images = fading(), torch.randn(2, 4, 8, 8)
    model(images)
    traced = trace(model, ExampleInputs((images,)))
    assert is_faint(traced)
    assert settle_(traced) < 1e-3
    assert not is_faint(traced)


class Chaotic(nn.Module):
    """Where the weights are large, the sine of a large number: rounding turns it around."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 8, bias=False), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).sin())


def test_weights_that_hide_everything_in_rounding_are_drawn_anew() -> None:
    torch.manual_seed(0)
    traced = trace(Chaotic().eval(), ExampleInputs((torch.randn(2, 5, 6),)))
    module = as_module(traced.program)
    assert calm_(module, traced) == 0
    with torch.no_grad():
        module.inner.weight.mul_(1e6)
    assert max(rounding_error(module, x) for x in variants(traced)) > 1e-3
    assert 0 < calm_(module, traced) < DRAWS
    assert max(rounding_error(module, x) for x in variants(traced)) < 1e-4
