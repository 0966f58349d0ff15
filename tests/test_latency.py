"""Latency from measured layers: with a bench whose times are a formula, and a little real time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.latency import (
    Case,
    LatencyModel,
    LatencyTable,
    Layer,
    OnnxBench,
    Setting,
    layers_of,
    measure_table,
    read_given_table,
    read_table,
    width_steps,
    write_table,
)
from compressor.latency.clocks import Waited
from compressor.latency.filling import LOOKS
from compressor.latency.kernels import KERNELS, network_of
from compressor.latency.machine import machine_of, path_in_cache
from compressor.latency.measured_steps import WIDTHS, Step, measure_step, step_in
from compressor.latency.torch_bench import TorchBench
from compressor.latency.torch_layers import LAYERS, Makers
from compressor.latency.torch_layers import call_of as torch_layer
from compressor.records import ExampleInputs
from compressor.runtimes.providers import check_provider
from tests import tiny


class Wide(nn.Module):
    """Wide enough for steps: a residual, a depthwise convolution, attention-free head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.inner = nn.Conv2d(64, 48, 1)
        self.deep = nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.back = nn.Conv2d(48, 64, 1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.back(torch.relu(self.deep(self.inner(x)))))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class FormulaBench:
    """Times by a formula: convolutions rise in steps of 16, and where the input's width is no
    multiple of 4 evenly, by half as much again; all else is in proportion to its sizes."""

    def __init__(self, stop_after: float = math.inf) -> None:
        self.calls, self.stop_after = 0, stop_after

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        if self.calls >= self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return [formula(case.kind, case.sizes) for case in cases]


def formula(kind: str, sizes: Mapping[str, int]) -> float:
    if kind == "convolution":
        given, made = sizes["in"] / 16, sizes["out"] / 16
        if sizes["in"] % 4:
            return 1.5 * (given * made + 0.5 * made)
        return math.ceil(given) * math.ceil(made) + 0.5 * math.ceil(made)
    return 0.001 * math.prod(sizes.values()) + 0.25


def analysed(module: nn.Module) -> tuple[tuple[Layer, ...], Network]:
    traced = trace(module.eval(), ExampleInputs((torch.randn(2, 3, 8, 8),)))
    network = analyse(traced)
    return layers_of(traced, network), network


@pytest.fixture(scope="module")
def wide() -> tuple[tuple[Layer, ...], Network]:
    return analysed(Wide())


@pytest.fixture
def table(wide: tuple[tuple[Layer, ...], Network], tmp_path: Path) -> LatencyTable:
    return measure_table(wide[0], bench=FormulaBench(), path=tmp_path / "table.json")


# -- layers ------------------------------------------------------------------------------------


def test_nodes_are_layers_with_what_the_runtime_does_within_them(
    wide: tuple[tuple[Layer, ...], Network],
) -> None:
    layers, _ = wide
    assert [layer.kind for layer in layers] == [
        "convolution",
        "convolution",
        "depthwise_convolution",
        "convolution",
        "reduction",
        "linear",
    ]
    assert [layer.literals.get("then") for layer in layers] == [
        ("Relu",),
        (),
        ("Relu",),
        ("Add", "Relu"),
        None,
        (),
    ]


def test_sizes_follow_the_axes(wide: tuple[tuple[Layer, ...], Network]) -> None:
    layers, network = wide
    sizes = network.sizes({"stem.weight:0": 30, "inner.weight:0": 20})
    stem, inner, deep, back, mean, head = (layer.sizes(sizes) for layer in layers)
    assert (stem["in"], stem["out"]) == (3, 30)
    assert (inner["in"], inner["out"], inner["batch"]) == (30, 20, 1)
    assert (deep["groups"], deep["in"], deep["out"]) == (20, 1, 1)
    assert (back["in"], back["out"]) == (20, 30)
    assert mean == {"rows": 30, "width": 64}
    assert head == {"rows": 1, "in": 30, "out": 10}
    assert [layer.free for layer in layers[:3]] == [("out",), ("in", "out"), ("groups",)]


def test_the_batch_takes_the_place_of_the_symbolic_one() -> None:
    traced = trace(tiny.TinyNet().eval(), ExampleInputs((tiny.inputs(),)))
    layers = layers_of(traced, analyse(traced), batch=5)
    assert {layer.full["batch"] for layer in layers if layer.kind == "convolution"} == {5}
    assert layers[-1].full["rows"] == 5


def test_a_static_batch_is_for_no_other() -> None:
    class Static(tiny.TinyNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.view(1, 3, 8, 8))

    traced = trace(Static().eval(), ExampleInputs((tiny.inputs(),)))
    assert layers_of(traced, analyse(traced), batch=1)
    with pytest.raises(UsageError, match="batch of 1 and no other, not 4"):
        layers_of(traced, analyse(traced), batch=4)


def test_equal_layers_share_a_signature() -> None:
    twice = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
    more = nn.Sequential(*twice, nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1))
    layers, _ = analysed(more)
    assert layers[2].signature == layers[3].signature
    assert len({layer.signature for layer in layers}) == 5


def test_heads_of_attention_are_sizes_of_their_own() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            n, t, _ = x.shape
            q, k, v = self.qkv(x).view(n, t, 3, 4, 3).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            made: Tensor = self.out(y.transpose(1, 2).reshape(n, t, 12))
            return made

    traced = trace(Attentive().eval(), ExampleInputs((torch.randn(2, 5, 12),)))
    network = analyse(traced)
    layers = {layer.kind: layer for layer in layers_of(traced, network)}
    heads = next(group.name for group in network.groups if group.role == "heads")
    sizes = layers["attention"].sizes(network.sizes({heads: 2}))
    assert sizes == {"lead": 2, "t": 5, "s": 5, "e": 3, "f": 3}
    assert layers["attention"].free == ("lead", "e", "f")


# -- steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "found"),
    [
        (lambda w: math.ceil(w / 16), Step(16, 1)),
        (lambda w: math.ceil(w / 16) * (1.5 if w % 4 else 1), Step(16, 4)),
        (lambda w: math.ceil(w / 16) * (1.5 if w % 16 else 1), Step(16, 16)),
        (lambda w: 3 + math.ceil(w / 8), Step(8, 1)),
        (lambda w: math.ceil(w / 32), Step(32, 1)),
        (lambda w: w, Step(1, 1)),
        (lambda w: 5 + w, Step(1, 1)),
        (lambda w: 7, Step(1, 1)),
    ],
)
def test_steps_are_seen_in_times(time: Callable[[int], float], found: Step) -> None:
    assert step_in({width: time(width) for width in WIDTHS}) == found
    noise = np.random.default_rng(0).uniform(1, 1.02, len(WIDTHS))
    noisy = {width: time(width) * n for width, n in zip(WIDTHS, noise, strict=True)}
    assert step_in(noisy) == found


def test_a_table_knows_the_steps_of_its_machine(table: LatencyTable) -> None:
    assert table.step("convolution", "in") == Step(16, 4)
    assert table.step("convolution", "out") == Step(16, 1)
    assert table.step("linear", "in") == Step(1, 1)


# -- times between the measured ones -----------------------------------------------------------


@pytest.mark.parametrize("given", [16, 20, 28, 31, 32, 45, 47, 48, 63, 64])
@pytest.mark.parametrize("made", [16, 17, 31, 33, 48])
def test_times_follow_steps_on_the_grain_and_a_slope_off_it(
    wide: tuple[tuple[Layer, ...], Network], table: LatencyTable, given: int, made: int
) -> None:
    inner = wide[0][1]
    predicted = table.surface(inner).at([given, made])
    assert predicted == pytest.approx(formula("convolution", {"in": given, "out": made}))


def test_other_layers_are_linear(
    wide: tuple[tuple[Layer, ...], Network], table: LatencyTable
) -> None:
    head = wide[0][-1]
    for width in (7, 20, 33, 63):
        right = formula("linear", {"rows": 1, "in": width, "out": 10})
        assert table.surface(head).at([width]) == pytest.approx(right)


def test_of_two_looks_the_shorter_counts() -> None:
    table = LatencyTable({}).with_times("a", {(1,): 3.0, (2,): 5.0}).with_times("a", {(1,): 4.0})
    assert table.with_times("a", {(2,): 1.0}).times == {"a": {(1,): 3.0, (2,): 1.0}}


# -- the model ---------------------------------------------------------------------------------


def test_a_network_takes_what_its_layers_take(
    wide: tuple[tuple[Layer, ...], Network], table: LatencyTable
) -> None:
    layers, network = wide
    sizes = network.sizes({"stem.weight:0": 32, "inner.weight:0": 16})
    model = LatencyModel(layers, table)
    right = sum(formula(layer.kind, layer.sizes(sizes)) for layer in layers)
    assert model.latency_ms(sizes) == pytest.approx(right)
    fitted = model.fit(2 * model.latency_ms({}))
    assert fitted.latency_ms(sizes) == pytest.approx(2 * right)
    assert fitted.fit(1.0).latency_ms({}) == pytest.approx(1.0)


def test_an_axis_changes_its_layers_alone(
    wide: tuple[tuple[Layer, ...], Network], table: LatencyTable
) -> None:
    layers, network = wide
    model, axis = LatencyModel(layers, table), network.axes["inner.weight:0"]
    assert [layer.kind for layer in model.layers_of(axis)] == [
        "convolution",
        "depthwise_convolution",
        "convolution",
    ]
    rest = [layer for layer in layers if layer not in model.layers_of(axis)]
    assert model.layers_ms(rest, {axis: 16}) == model.layers_ms(rest, {})
    saved = model.latency_ms({}) - model.latency_ms({axis: 16})
    own = model.layers_of(axis)
    assert saved == pytest.approx(model.layers_ms(own, {}) - model.layers_ms(own, {axis: 16}))


def test_the_step_of_an_axis_is_its_layers_largest(
    wide: tuple[tuple[Layer, ...], Network], table: LatencyTable
) -> None:
    layers, network = wide
    inner, stem = network.axes["inner.weight:0"], network.axes["stem.weight:0"]
    assert width_steps(layers, table, [inner]) == {inner: 16}
    assert width_steps(layers[-1:], table, [stem]) == {stem: 1}


@pytest.mark.parametrize(("size", "step"), [(64, 16), (32, 16), (31, 8), (16, 8), (9, 4), (3, 1)])
def test_two_steps_fit_into_the_narrowest_axis(size: int, step: int) -> None:
    layers, network = analysed(nn.Sequential(nn.Conv2d(3, size, 1), nn.Conv2d(size, 4, 1)))
    axis = network.axes["0.weight:0"]
    table = LatencyTable({}, steps={"convolution": {"in": Step(16, 4), "out": Step(16)}})
    assert width_steps(layers, table, [axis]) == {axis: step}


def test_flattened_positions_loosen_the_step() -> None:
    layers, network = analysed(nn.Sequential(nn.Conv2d(3, 64, 1), nn.Flatten(), nn.Linear(4096, 4)))
    axis = network.axes["0.weight:0"]
    table = LatencyTable({}, steps={"convolution": {"out": Step(16)}, "linear": {"in": Step(32)}})
    assert width_steps(layers, table, [axis]) == {axis: 16}
    assert width_steps(layers[1:], table, [axis]) == {axis: 1}  # 64 positions a channel


# -- the file ----------------------------------------------------------------------------------


def test_a_table_comes_back_from_its_file(table: LatencyTable, tmp_path: Path) -> None:
    write_table(table, tmp_path / "new" / "copy.json")
    back = read_table(tmp_path / "new" / "copy.json")
    assert back == table
    assert back.to_json() == table.to_json()


def test_measuring_goes_on_where_it_was_interrupted(
    wide: tuple[tuple[Layer, ...], Network], tmp_path: Path
) -> None:
    layers, path = wide[0], tmp_path / "table.json"
    whole = FormulaBench()
    complete = measure_table(layers, bench=whole, path=tmp_path / "whole.json")
    with pytest.raises(KeyboardInterrupt):
        measure_table(layers, bench=FormulaBench(stop_after=whole.calls // 2), path=path)
    kept = read_table(path)
    assert kept.steps or kept.times
    rest = FormulaBench()
    resumed = measure_table(layers, bench=rest, path=path)
    assert 0 < rest.calls < whole.calls
    assert resumed == complete
    nothing = FormulaBench(stop_after=0)
    assert measure_table(layers, bench=nothing, path=path) == complete


def test_steps_alone_are_quick_to_measure_and_kept(
    wide: tuple[tuple[Layer, ...], Network], tmp_path: Path
) -> None:
    layers, path = wide[0], tmp_path / "table.json"
    found = measure_table(layers, steps_alone=True, bench=FormulaBench(), path=path)
    assert found.step("convolution", "in") == Step(16, 4)
    assert not found.times
    nothing = FormulaBench(stop_after=0)
    assert measure_table(layers, steps_alone=True, bench=nothing, path=path) == found
    complete = measure_table(layers, bench=FormulaBench(), path=tmp_path / "whole.json")
    assert measure_table(layers, bench=FormulaBench(), path=path) == complete


def steps_of(kind: str) -> tuple[str, ...]:
    return KERNELS[kind].stepped


class BusyBench(FormulaBench):
    """A machine on which another program's work stretches each look by another factor."""

    def __init__(self, seed: int, *, quiet_after: float = math.inf) -> None:
        super().__init__()
        self.draw, self.quiet_after = np.random.default_rng(seed), quiet_after

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        times = super().times_ms(cases)
        if self.calls > self.quiet_after:
            return times
        return [ms * factor for ms, factor in zip(times, self._factors(len(times)), strict=True)]

    def _factors(self, count: int) -> Any:
        return 2.0**self.calls * self.draw.uniform(0.5, 1, count)


def test_what_a_busy_machine_blurs_serves_one_run_and_is_not_kept(
    wide: tuple[tuple[Layer, ...], Network], tmp_path: Path
) -> None:
    layers, path = wide[0], tmp_path / "table.json"
    table = measure_table(layers, bench=BusyBench(0), path=path)
    table.check_covers(layers)
    assert set(table.noisy) == {layer.signature for layer in layers}
    kept = read_table(path)
    assert table.unsettled == {f"{kind}: {name}" for kind in table.steps for name in steps_of(kind)}
    assert kept == table.steady() == LatencyTable(table.machine)
    quiet = measure_table(layers, bench=FormulaBench(), path=path)
    assert quiet == read_table(path) == quiet.steady() and not quiet.noisy
    clean = measure_table(layers, bench=FormulaBench(), path=tmp_path / "clean.json")
    assert quiet.times == clean.times


def test_looks_that_differ_are_taken_again_until_two_agree(
    wide: tuple[tuple[Layer, ...], Network], tmp_path: Path
) -> None:
    how: Any = {"bench": FormulaBench(), "path": tmp_path / "steps.json"}
    first, steps = wide[0][:1], measure_table(wide[0], steps_alone=True, **how)
    calls = list[int]()
    for quiet_after in (0, 4):
        path = tmp_path / f"{quiet_after}.json"
        write_table(steps, path)
        bench = BusyBench(1, quiet_after=quiet_after)
        table = measure_table(first, bench=bench, path=path)
        assert table.noise == {first[0].signature: 0.0} and table.times == read_table(path).times
        calls.append(bench.calls)
    assert calls[0] < calls[1]


def test_a_step_is_measured_until_one_look_more_changes_nothing() -> None:
    quiet, busy = FormulaBench(), BusyBench(2, quiet_after=3)
    assert measure_step("convolution", "in", quiet) == (Step(16, 4), True)
    assert measure_step("convolution", "in", busy) == (Step(16, 4), True)
    assert quiet.calls == LOOKS < busy.calls


def test_kept_times_are_forgotten(
    wide: tuple[tuple[Layer, ...], Network],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measure_table(wide[0], bench=FormulaBench())
    for count in ("1 table", "0 tables"):
        assert main(["bench", "--forget"]) == 0
        assert f"{count} of layers' times forgotten" in capsys.readouterr().out


def test_progress_is_told(wide: tuple[tuple[Layer, ...], Network], tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    measure_table(
        wide[0],
        bench=FormulaBench(),
        path=tmp_path / "table.json",
        progress=lambda *args: told.append(args),
    )
    total = told[-1][1]
    assert [done for done, _, _ in told] == list(range(total + 1))
    assert sum("reduction" in text for _, _, text in told) == LOOKS


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: [],
        lambda raw: {**raw, "schema": 0},
        lambda raw: {key: raw[key] for key in ("schema", "steps", "times")},
        lambda raw: {**raw, "steps": {"convolution": {"in": [0, 1]}}},
        lambda raw: {**raw, "steps": {"convolution": {"in": [1]}, "linear": 3}},
        lambda raw: {**raw, "times": {"a": {"1 x": 1.0}}},
        lambda raw: {**raw, "times": {"a": {"1": "fast"}}},
        lambda raw: {**raw, "times": {"a": {"1": -1.0}}},
        lambda raw: {**raw, "times": {"a": {"1": math.nan}}},
    ],
)
def test_other_files_are_refused(
    table: LatencyTable, tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps(change(json.loads(table.to_json()))))
    with pytest.raises(CompressorError, match="latency table cannot be read") as caught:
        read_table(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(CompressorError, match="latency table cannot be read"):
        read_table(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CompressorError, match="No such file"):
        read_table(tmp_path / "none.json")


def test_a_table_measured_elsewhere_is_used_as_it_is(
    wide: tuple[tuple[Layer, ...], Network], table: LatencyTable, tmp_path: Path
) -> None:
    path = tmp_path / "elsewhere.json"
    elsewhere = LatencyTable({**table.machine, "processor": "other"}, table.steps, table.times)
    write_table(elsewhere, path)
    assert read_given_table(path, wide[0]) == elsewhere
    with pytest.raises(UsageError, match="threads 1, not 2; batch 1, not 8"):
        read_given_table(path, wide[0], Setting(threads=2, batch=8))


def test_times_of_two_machines_are_not_mixed(
    wide: tuple[tuple[Layer, ...], Network], table: LatencyTable, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    before = path.read_bytes()
    with pytest.raises(UsageError, match="of another threads"):
        measure_table(wide[0], Setting(threads=2), bench=FormulaBench(), path=path)
    assert path.read_bytes() == before


def test_a_table_that_cannot_be_kept_is_said(table: LatencyTable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompressorError, match="folder cannot be made"):
        write_table(table, tmp_path / "file" / "table.json")


def test_layers_that_a_table_lacks_are_named(
    wide: tuple[tuple[Layer, ...], Network], table: LatencyTable, tmp_path: Path
) -> None:
    layers, _ = analysed(nn.Sequential(nn.Conv2d(3, 5, 7, padding=3), nn.Conv2d(5, 7, 1)))
    path = tmp_path / "elsewhere.json"
    write_table(table, path)
    with pytest.raises(CompressorError, match=r"no times of conv2d: convolution .* in=3 out=\*5"):
        read_given_table(path, layers)
    with pytest.raises(CompressorError, match="conv2d_1"):
        LatencyModel(layers, table)


def test_tables_lie_in_the_users_cache_by_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, two = (path_in_cache(machine_of(threads, 1, "cpu")) for threads in (1, 2))
    assert one != two
    assert one == path_in_cache(machine_of(1, 1, "cpu"))
    assert one.is_relative_to(tmp_path)
    layers, _ = analysed(nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 2, 1)))
    table = measure_table(layers, bench=FormulaBench())
    assert read_table(one) == table


# -- real time ---------------------------------------------------------------------------------

IMAGE = {
    **dict.fromkeys(("stride", "dilation"), (1, 1)),
    "padding": (1, 1),
    "kernel": (3, 3),
    "positions": (8, 8),
    "results": (8, 8),
    "transposed": False,
    "then": (),
}
CONVOLUTION = {"batch": 1, "groups": 1, "in": 16, "out": 16}
CASES = [
    Case("convolution", CONVOLUTION, IMAGE),
    Case("convolution", CONVOLUTION, {**IMAGE, "then": ("Add", "Clip")}),
    Case("convolution", CONVOLUTION, {**IMAGE, "transposed": True, "then": ("Relu",)}),
    Case("convolution", CONVOLUTION, {**IMAGE, "padding": "same"}),
    Case("depthwise_convolution", {**CONVOLUTION, "groups": 16, "in": 1, "out": 1}, IMAGE),
    Case("grouped_convolution", {**CONVOLUTION, "groups": 2}, IMAGE),
    *(
        Case("linear", {"rows": 4, "in": 8, "out": 6}, {"matrix": m, "bias": b, "then": ()})
        for m in (True, False)
        for b in (True, False)
    ),
    Case("product", {"lead": 2, "m": 3, "k": 4, "n": 5}, {}),
    Case("attention", {"lead": 2, "t": 3, "s": 4, "e": 5, "f": 6}, {}),
    *(
        Case("elementwise", {"elements": 100}, {"op": op, "tensors": 1})
        for op in ("Abs", "Relu", "Clip", "Swish", "HardSwish", "Gelu", "Mish")
    ),
    Case("elementwise", {"elements": 100}, {"op": "Add", "tensors": 2}),
    Case("softmax", {"rows": 3, "width": 4}, {}),
    Case("layer_norm", {"rows": 3, "width": 4}, {}),
    Case("reduction", {"rows": 3, "width": 4}, {}),
    *(
        Case(
            "pooling",
            {"batch": 1, "channels": 6},
            {
                "op": op,
                "positions": (8, 8),
                "kernel": (kernel, kernel),
                "stride": (2, 2),
                "padding": (0, 0),
                "ceil_mode": False,
            },
        )
        for op in ("MaxPool", "AveragePool")
        for kernel in (2, 8)
    ),
    Case("batch_norm", {"batch": 1, "channels": 6}, {"positions": (8, 8), "then": ("Relu",)}),
    Case("batch_norm", {"batch": 4, "channels": 6}, {"positions": (), "then": ()}),
    Case("instance_norm", {"batch": 1, "channels": 6}, {"positions": (8, 8), "then": ()}),
    Case("group_norm", {"batch": 1, "channels": 6}, {"positions": (8, 8), "num_groups": 2}),
    Case("transpose", {"size0": 2, "size1": 3, "size2": 4}, {"order": (0, 2, 1)}),
    Case("concat", {"outer": 2, "inner": 30}, {"tensors": 3}),
    Case("gather", {"rows": 3, "width": 4}, {}),
    *(
        Case(
            "recurrent",
            {"batch": 2, "steps": 3, "in": 4, "hidden": 5},
            {"op": op, "gates": gates, "layers": layers, "directions": layers},
        )
        for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
        for layers in (1, 2)
    ),
]


def test_every_kind_of_layer_runs_on_its_own() -> None:
    times = OnnxBench(seconds=0.001, least=2).times_ms(CASES)
    assert {case.kind for case in CASES} == set(KERNELS)
    assert all(math.isfinite(ms) and 0 <= ms < 1000 for ms in times)


def test_every_kind_of_layer_runs_in_pytorch_on_its_own() -> None:
    times = TorchBench("torch-cpu", seconds=0.001, least=2).times_ms(CASES)
    assert set(LAYERS) == set(KERNELS)
    assert all(0 < ms < 1000 for ms in times)


def test_pytorch_takes_longer_for_more_and_does_what_follows() -> None:
    matrix = {"matrix": True, "bias": True, "then": ()}
    wide, narrow = (
        Case("linear", {"rows": 64, "in": width, "out": width}, matrix) for width in (1024, 64)
    )
    times = TorchBench("torch-cpu").times_ms([wide, narrow])
    assert times[0] > 4 * times[1]
    make = Makers("cpu", torch.float32, channels_last=False)
    then = {**IMAGE, "then": ("Add", "Relu"), "results": IMAGE["positions"]}
    made = torch_layer("convolution", CONVOLUTION, then, make)()
    alone = torch_layer("convolution", CONVOLUTION, IMAGE, make)()
    assert made.shape == alone.shape and bool((made >= 0).all())


def test_steps_are_looked_for_with_as_many_samples_as_are_called_with() -> None:
    asked: list[Mapping[str, int]] = []

    class Asked(FormulaBench):
        def times_ms(self, cases: Sequence[Case]) -> list[float]:
            asked.extend(case.sizes for case in cases)
            return super().times_ms(cases)

    measure_step("convolution", "in", Asked(), samples=8)
    measure_step("linear", "out", Asked(), samples=8)
    assert {sizes["batch"] for sizes in asked if "batch" in sizes} == {8}
    assert {sizes["rows"] for sizes in asked if "rows" in sizes} == {8 * 1024}


def test_what_pytorch_cannot_run_is_named_and_no_gpu_is_said() -> None:
    broken = Case("convolution", CONVOLUTION, {**IMAGE, "kernel": (20, 20)})
    with pytest.raises(CompressorError, match="PyTorch could not run a layer on its own"):
        TorchBench("torch-cpu").times_ms([broken])
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device"):
            TorchBench("torch-cuda")


def operators_that_run(network: bytes, folder: Path) -> list[str]:
    """The kinds of operators that the runtime calls, in order."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    session.run(None, {s.name: np.ones(s.shape, kinds[s.type]) for s in session.get_inputs()})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [e["args"]["op_name"] for e in events if e["name"].endswith("_kernel_time")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_a_layer_is_the_same_network_without_its_weights(case: Case, tmp_path: Path) -> None:
    """The runtime fills them in when it opens the file; what runs afterwards is the same."""
    given = (case.kind, case.sizes, case.literals)
    light = network_of(*given, with_weights=False)
    assert operators_that_run(light, tmp_path) == operators_that_run(network_of(*given), tmp_path)
    assert len(light) < 2500


def test_more_work_takes_longer() -> None:
    """256 times the work, whatever the machine."""
    wide = {**IMAGE, "positions": (16, 16)}
    matrix = {"matrix": True, "bias": True, "then": ()}
    times = OnnxBench().times_ms(
        [
            Case("convolution", {**CONVOLUTION, "in": 256, "out": 256}, wide),
            Case("convolution", CONVOLUTION, wide),
            Case("linear", {"rows": 64, "in": 1024, "out": 1024}, matrix),
            Case("linear", {"rows": 64, "in": 64, "out": 64}, matrix),
        ]
    )
    assert times[0] > 4 * times[1]
    assert times[2] > 4 * times[3]


def test_a_layer_that_does_not_run_is_named() -> None:
    broken = Case("convolution", CONVOLUTION, {**IMAGE, "kernel": (20, 20)})
    with pytest.raises(CompressorError, match="could not run a layer on its own"):
        OnnxBench().times_ms([broken])


@pytest.mark.parametrize("device", ["cuda", "tpu"])
def test_a_device_that_the_runtime_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match=f"does not run on '{device}'"):
        OnnxBench(device=device)
    check_provider("cpu")


def test_a_real_table_of_a_tiny_network(tmp_path: Path) -> None:
    layers, network = analysed(tiny.TinyNet())
    model = LatencyModel(layers, measure_table(layers, path=tmp_path / "table.json"))
    full = model.latency_ms({})
    assert 0 < full < 1000
    narrower = model.latency_ms({axis: max(1, axis.size // 2) for axis in network.axes.values()})
    assert 0 < narrower < 3 * full


def test_the_clock_waits_for_results() -> None:
    """The way of accelerators, on the device that every machine has."""
    matrix = {"matrix": True, "bias": True, "then": ()}
    times = []
    for width in (64, 1024):
        network = network_of("linear", {"rows": 64, "in": width, "out": width}, matrix)
        clock = Waited(network, 1, "cpu")
        for _ in range(5):
            clock.call()
        times.append(clock.ms())
    assert 4 * times[0] < times[1] < 1000
