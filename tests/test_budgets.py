"""Budgets that are met by trying: by the clock, or on validation data; and widths that run well."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import STEP
from tiny import TinyNet, compress, inputs, write_model, write_samples
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils.data import TensorDataset

import compressor
from compressor.choose import FAR
from compressor.choose.budget import weighed_unit
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.graph.trace import trace
from compressor.latency import Case, filling, read_table, write_table
from compressor.latency.machine import machine_of, path_in_cache
from compressor.latency.networks import Timed
from compressor.options import Options
from compressor.records import ExampleInputs, Latency
from compressor.report import to_markdown
from compressor.run import timing, until_accurate, until_fast
from compressor.run.compress import plan
from compressor.run.decide import Decision, describe_budget, predict, say_how_met
from compressor.run.opened import Run
from compressor.run.subject import Subject
from compressor.run.torch_timing import measure_programs
from compressor.watch import Silent, Stopwatch

WIDTH = 48


class Chain(nn.Sequential):
    """Four groups of channels of their own."""

    def __init__(self) -> None:
        widths = (3, WIDTH, WIDTH, WIDTH, WIDTH)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 4))


@pytest.fixture
def network() -> Chain:
    torch.manual_seed(0)
    return Chain()


class ProductBench:
    """A layer's time is the product of its sizes."""

    def __init__(self, threads: int, device: str) -> None: ...

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        return [1e-6 * float(torch.tensor(list(case.sizes.values())).prod()) for case in cases]


class FileClock:
    """A network takes `fixed` ms, and as long as its ONNX file is large: steeper or flatter than
    the layers' times say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fixed: float = 0.0) -> None:
        self.fixed, self.asked = fixed, 0
        monkeypatch.setattr(filling, "OnnxBench", ProductBench)
        for module in (timing, until_fast):
            monkeypatch.setattr(module, "time_networks", self.timed)

    def timed(
        self, files: Mapping[str, Path], options: Options, seconds: float
    ) -> dict[str, Latency]:
        self.asked += 1
        found = {}
        for name, path in files.items():
            ms = self.fixed + path.stat().st_size / 10_000
            found[name] = Latency("clock", "cpu", options.threads, options.batch, ms, ms, ms)
        return found


def planned(model: nn.Module, **options: Any) -> tuple[Run, Decision]:
    return plan(Subject(model, inputs()), Options(**{"format": (), **options}), Silent())


# -- widths that run well ------------------------------------------------------------------------


def test_widths_are_multiples_of_what_this_machine_runs_well(network: Chain) -> None:
    _, found = planned(network, ratio=0.5)
    assert found.keep
    assert all(count % STEP == 0 for count in found.kept.values())
    _, exact = planned(network, ratio=0.5, round_to=1)
    assert any(count % STEP for count in exact.kept.values())


def test_steps_are_halved_where_they_do_not_reach_the_budget() -> None:
    torch.manual_seed(0)
    model = TinyNet(8)
    _, found = planned(model, ratio=0.3, round_to=STEP)
    assert all(count % STEP == 0 for count in found.kept.values())
    run, found = planned(model, ratio=0.85)
    assert run.total("macs", found.kept) <= 0.15 * run.total("macs")
    assert any(count % STEP for count in found.kept.values())
    with pytest.raises(CompressorError, match="out of reach"):
        planned(model, ratio=0.85, round_to=STEP)


class Pair(nn.Sequential):
    """Two groups of 32; half of the first, which goes first, is 0.01 % less than half of all."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4000, 32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 1))
        with torch.no_grad():
            self[0].weight *= 1e-3


def of_pair(**options: Any) -> tuple[Run, Decision]:
    torch.manual_seed(0)
    options = {"criterion": "l2", **options}
    return plan(Subject(Pair(), torch.randn(2, 4000)), Options(**options), Silent())


def test_a_step_that_falls_just_short_is_enough_for_a_ratio() -> None:
    run, found = of_pair(ratio=0.5, round_to=16)
    assert found.kept == {"0.weight:0": 16}
    assert describe_budget(run, found)["ratio"] == 0.5
    assert 0.4998 < describe_budget(run, found)["removed"] < 0.5


@pytest.mark.parametrize("options", [{"round_to": 16}, {"round_to": 1}, {}])
def test_a_limit_is_never_exceeded(options: dict[str, Any]) -> None:
    most = 129_056 // 2
    assert predict(*of_pair(max_macs=str(most), **options))["macs"][1] <= most


def test_steps_that_remove_far_too_much_are_left_by_one_group() -> None:
    """With steps of the user's own none is, which is said."""
    fine, coarse = of_pair(ratio=0.4), of_pair(ratio=0.4, round_to=32 // 2)
    assert 0.4 <= describe_budget(*fine)["removed"] <= 0.4 + FAR
    assert describe_budget(*coarse)["removed"] > 0.49
    for run, found in (fine, coarse):
        say_how_met(run, found)
    assert not any("asked for" in note for note in fine[0].stopwatch.notes)
    note = coarse[0].stopwatch.notes[-1]
    assert note.startswith("50.0% of the macs are removed, 40.0% were asked for")
    assert "--round-to 1" in note


def test_less_than_was_asked_for_is_said() -> None:
    run, found = of_pair(ratio=0.99, best_effort=True, round_to=1)
    say_how_met(run, found)
    assert "99.0% were asked for: no more can go" in run.stopwatch.notes[-1]


def test_where_the_cache_cannot_be_written_times_are_not_kept(
    network: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(filling, "OnnxBench", ProductBench)
    run, found = planned(network, ratio=0.5)
    assert any("measured times are not kept" in note for note in run.stopwatch.notes)
    assert found.keep


# -- by the clock --------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [0.0, 12.0])
def test_the_measured_share_is_met_whatever_was_predicted(
    network: Chain, monkeypatch: pytest.MonkeyPatch, fixed: float
) -> None:
    FileClock(monkeypatch, fixed)
    found = compressor.compress(network, inputs(), 0.4, of="latency", round_to=1)
    measured = found.report["budget"]["measured"]
    assert 0.6 * 0.9 <= measured["share"] <= 0.6 * until_fast.ABOVE
    assert measured["share"] == pytest.approx(measured["after_ms"] / measured["before_ms"])
    assert measured["asked"] == pytest.approx(0.6)
    is_off = abs(measured["predicted"] - measured["share"]) > 0.03
    assert is_off == (measured["tries"] > 1) == bool(fixed)
    assert found.report["budget"]["of"] == "latency"
    assert "latency measured while choosing" in to_markdown(found.report)
    sizes = {name: len(group["keep"]) for name, group in found.plan.groups.items()}
    assert sizes == {g["name"]: g["kept"] for g in found.report["groups"] if g["name"] in sizes}


@pytest.mark.slow
def test_coarse_steps_end_below_the_share(network: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FileClock(monkeypatch)
    found = compressor.compress(network, inputs(), 0.4, of="latency", round_to=16)
    assert found.report["budget"]["measured"]["share"] <= 0.6
    assert clock.asked < 2 + until_fast.TRIES, "the same choice was tried again"


def test_milliseconds_are_a_limit(network: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FileClock(monkeypatch)
    run, _ = planned(network, ratio=0.5, of="latency")
    whole = run.total("latency")
    most = 0.7 * whole
    found = compressor.compress(network, inputs(), max_latency_ms=most, round_to=1)
    assert until_fast.BELOW * most <= found.report["budget"]["measured"]["after_ms"] <= most
    assert clock.asked
    with pytest.raises(UsageError, match="is within"):
        planned(network, max_latency_ms=1.1 * whole)


def test_a_network_that_gets_no_faster_is_said(
    network: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileClock(monkeypatch, fixed=1000.0)
    with pytest.raises(CompressorError, match="no choice was quick enough") as caught:
        compressor.compress(network, inputs(), 0.5, of="latency")
    assert "ask for less" in str(caught.value)


def test_by_a_table_of_another_machine_nothing_is_measured(
    network: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = FileClock(monkeypatch)
    planned(network, ratio=0.5, of="latency")
    here = read_table(path_in_cache(machine_of(1, 1, "cpu")))
    elsewhere = json.loads(here.to_json())
    elsewhere["machine"]["processor"] = "another one"
    (tmp_path / "table.json").write_text(json.dumps(elsewhere))
    asked = clock.asked
    table = str(tmp_path / "table.json")
    found = compressor.compress(network, inputs(), 0.5, of="latency", latency_table=table)
    assert clock.asked == asked
    assert "measured" not in found.report["budget"]
    assert found.report["budget"]["predicted"]["latency"] > 0
    assert 0.5 <= found.report["budget"]["removed"] < 0.7


def test_a_table_that_lacks_layers_is_refused(network: Chain, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    machine = machine_of(1, 1, "cpu")
    write_table(read_table(path_in_cache(machine)), path)
    with pytest.raises(CompressorError, match="has no times of"):
        planned(TinyNet(), ratio=0.5, of="latency", latency_table=str(path))
    with pytest.raises(UsageError, match="threads 1, not 2"):
        planned(network, ratio=0.5, latency_table=str(path), threads=2)


def test_scopes_hold_by_the_clock_too(network: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    FileClock(monkeypatch)
    _, found = planned(network, ratio=0.5, of="latency", scope="layer", round_to=1)
    counts = list(found.kept.values())
    assert len(counts) == 4
    assert max(counts) - min(counts) <= STEP  # what the table says that saves nothing is given back


# -- on validation data --------------------------------------------------------------------------


def closeness(outputs: Tensor, target: Tensor) -> float:
    """1 where the outputs are the targets, less the further they are away."""
    return float(1 / (1 + (outputs - target).square().mean() / target.var(0).mean()))


def taught(network: nn.Module, samples: int, seed: int) -> TensorDataset:
    with torch.no_grad():
        return TensorDataset(inputs(samples, seed), network.eval()(inputs(samples, seed)))


def loss(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs - target).square().mean()


def floored(network: Chain, max_drop: float, **options: Any) -> compressor.Result:
    return compress(
        network,
        inputs(),
        data=taught(network, 128, 1),
        test=taught(network, 32, 2),
        loss=loss,
        metric=closeness,
        max_drop=max_drop,
        round_to=1,
        **options,
    )


def test_the_smallest_network_that_falls_no_further(network: Chain) -> None:
    found = floored(network, 0.2)
    record = found.report["budget"]["accuracy_floor"]
    within = [trial for trial in record["trials"] if trial["is_within"]]
    beyond = [trial for trial in record["trials"] if not trial["is_within"]]
    assert within
    assert beyond
    assert all(trial["drop"] <= 0.2 for trial in within)
    assert all(trial["drop"] > 0.2 for trial in beyond)
    chosen = max(trial["removed"] for trial in within)
    assert found.report["budget"]["removed"] == pytest.approx(chosen)
    nearest = min(trial["removed"] for trial in beyond if trial["removed"] > chosen)
    assert nearest - chosen <= 2 * until_accurate.CLOSE
    assert record["whole"] == pytest.approx(1.0)
    assert "How small it may be" in to_markdown(found.report)


@pytest.mark.slow
def test_more_may_go_where_more_may_be_lost(network: Chain) -> None:
    little, much = (
        floored(network, drop, of="params").report["after"]["params"] for drop in (0.05, 2.0)
    )
    assert much < little


def test_where_every_cut_costs_too_much_it_is_said(network: Chain) -> None:
    with pytest.raises(CompressorError, match="is worse by more than 1e-09 points"):
        floored(network, 1e-9, repair=False)


def test_validation_is_neither_trained_nor_tested_on(tmp_path: Path) -> None:
    specs = {name: str(write_samples(tmp_path / f"{name}.npz", 40)) for name in ("a", "b", "c")}
    given = Options(max_drop=1.0, data=(specs["a"],), validation=(specs["b"],), test=(specs["c"],))
    run, found = plan(Subject(TinyNet().eval()), given, Silent())
    samples = run.samples
    assert samples.train is not None
    assert samples.validation is not None
    assert (len(samples.train), len(samples.validation)) == (40, 40)
    assert not found.keep
    run, _ = plan(Subject(TinyNet().eval()), Options(max_drop=1.0, data=(specs["a"],)), Silent())
    held = run.samples
    assert held.train is not None
    assert held.test is not None
    assert held.validation is not None
    parts = [set(part.dataset.indices) for part in (held.validation, held.test)]
    assert len(held.train) + len(held.test) + len(held.validation) == 40
    assert len(parts[0]) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_drop": 1.0, "ratio": 0.5}, "one of --ratio and --max-drop"),
        ({"max_drop": 1.0, "max_macs": "1M"}, "one of --max-macs and --max-drop"),
        ({"max_drop": 0.0}, "between 0 and 100"),
        ({"max_drop": 1.0, "steps": 2}, "--max-drop is for the whole network"),
        ({"validation": ("a.npz",)}, "decides with --max-drop"),
        ({"max_latency_ms": 0.0}, "no time in milliseconds"),
        ({"max_latency_ms": 1.0, "ratio": 0.5}, "not both"),
        ({"round_to": "much"}, "is not of the kind"),
        ({"threads": 0}, "below the least"),
        ({"batch": 0}, "below the least"),
    ],
)
def test_budgets_that_cannot_be_meant(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Options(**options)


def test_a_drop_needs_data_to_be_seen(network: Chain) -> None:
    with pytest.raises(UsageError, match="--max-drop needs data"):
        planned(network, max_drop=1.0)


# -- by PyTorch's clock ----------------------------------------------------------------------------


class TorchProductBench(ProductBench):
    def __init__(self, device: str, precision: str, threads: int) -> None:
        assert (device, precision, threads) == ("torch-cpu", "fp32", 1)


def by_weights(programs: Mapping[str, ExportedProgram], **how: Any) -> dict[str, Timed]:
    """In the clock's place: a program takes as long as its weights are many."""
    assert (how["device"], how["precision"], how["threads"]) == ("torch-cpu", "fp32", 1)
    found = {}
    for name, program in programs.items():
        ms = 1e-3 * sum(weight.numel() for weight in program.state_dict.values())
        latency = Latency("torch", how["device"], 1, how["batch"], ms, ms)
        found[name] = Timed(latency, ((ms, ms),) * 5)
    return found


def test_a_share_of_pytorchs_time(network: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "TorchBench", TorchProductBench)
    monkeypatch.setattr(timing, "measure_programs", by_weights)
    asked = {"of": "latency", "latency_on": "torch-cpu", "round_to": 1}
    found = compressor.compress(network, inputs(), 0.4, format=("pt2",), **asked).report
    assert 0.95 * 0.6 <= found["budget"]["measured"]["share"] <= 0.6
    latency = found["after"]["latency"][-1]
    assert (latency["runtime"], latency["device"]) == ("torch", "torch-cpu")


def test_programs_are_timed_as_they_are(network: Chain) -> None:
    how = {"threads": 1, "batch": 3, "device": "torch-cpu", "seconds": 0.05}
    program = trace(network.eval(), ExampleInputs((inputs(2),))).program
    before = {name: weight.clone() for name, weight in program.state_dict.items()}
    found = measure_programs({"a": program, "b": program}, precision="bf16", **how)
    assert all(timed.latency.p50_ms > 0 for timed in found.values())
    for name, weight in program.state_dict.items():
        assert torch.equal(weight, before[name])
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device"):
            measure_programs({"a": program}, precision="fp32", **{**how, "device": "torch-cuda"})


@pytest.mark.parametrize(
    ("has_cuda", "providers", "precision", "target"),
    [
        (True, ["CPUExecutionProvider"], "fp32", "torch-cuda"),
        (True, ["CUDAExecutionProvider"], "fp32", "cuda"),
        (True, ["CUDAExecutionProvider"], "bf16", "torch-cuda"),
        (False, ["CPUExecutionProvider"], "fp32", "cuda"),
    ],
)
def test_what_cuda_stands_for_here(
    has_cuda: bool,
    providers: list[str],
    precision: str,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnxruntime

    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    stopwatch = Stopwatch(Silent())
    options = Options(latency_on="cuda", latency_precision=precision)
    assert timing.aim(options, stopwatch).latency_on == target
    assert bool(stopwatch.notes) == (target == "torch-cuda")


# -- explained -----------------------------------------------------------------------------------


def test_a_dry_run_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filling, "OnnxBench", ProductBench)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_model(tmp_path / "net.pt")
    assert (
        main(["net.pt", "--input", "1x3x8x8", "--dry-run", "--protect", "0", "--ratio", "0.2"]) == 0
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert "protected, or linked" in shown
    assert "scores up to" in shown
    assert "shadow price: the last 1 % of the MACs cost" in shown
    assert "latency" in shown
    assert "ms" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"net.pt"}


def test_a_dry_run_cannot_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "net.pt")
    assert main([str(tmp_path / "net.pt"), "--dry-run", "--max-drop", "1"]) == 2
    assert "a dry run tries nothing" in capsys.readouterr().err


def test_every_group_has_a_reason_and_what_it_saves(network: Chain) -> None:
    found = compress(network, inputs(), round_to=1).report
    assert all(group["reason"] for group in found["groups"])
    pruned = [group for group in found["groups"] if group["kept"] < group["size"]]
    assert pruned
    assert all(0 < group["saves"] < 1 for group in pruned)
    assert found["budget"]["price"] > 0


def test_the_price_is_what_the_last_channel_cost(network: Chain) -> None:
    run, found = planned(network, ratio=0.5, round_to=1)
    assert found.choice is not None
    last = found.choice.last
    assert last is not None
    one_more = {**found.kept, last.unit: found.kept[last.unit] + 1}
    saved = (run.total("macs", one_more) - run.total("macs", found.kept)) / run.total("macs")
    dearest = sorted(run.scores[last.unit])[WIDTH - found.kept[last.unit] - 1]
    assert last.price == pytest.approx(float(dearest) / (100 * saved))


def test_latency_scores_are_not_per_cost() -> None:
    assert weighed_unit(Options(of="latency")) is None
    assert weighed_unit(Options(of="params")) == "params"
