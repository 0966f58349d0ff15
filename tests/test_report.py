"""The report's numbers, page and table, and the folder that holds them."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compressor import report as reports
from compressor.errors import CompressorError, UsageError
from compressor.files.folder import all_or_nothing, check_target
from compressor.latency.statistics import speedup_of
from compressor.records import Group, Latency, Protection


def latency(p50_ms: float, threads: int = 1) -> Latency:
    return Latency("onnxruntime", "cpu", threads, 1, p50_ms, p50_ms * 1.5)


def make_report(**changes: Any) -> dict[str, Any]:
    before = reports.State(100_000, 8_000_000, 400_000, (latency(2.0),), {"top1": 0.9})
    sliced = reports.State(60_000, 4_000_000, 240_000, (latency(1.0),), {"top1": 0.4})
    after = reports.State(60_000, 4_000_000, 240_000, (latency(1.0),), {"top1": 0.885})
    conv = Group("conv1", 16, "channels", ())
    return {
        "schema": reports.SCHEMA,
        "command": "compress net.pt --ratio 0.5",
        "seed": 0,
        "versions": reports.versions(),
        "model": {
            "name": "net",
            "recognised": "a pickled module",
            "weights": "loaded",
            "sha256": "ab" * 32,
        },
        "examples": {
            "origin": "--input",
            "inputs": [{"name": "x", "shape": [1, 3, 8, 8], "dtype": "float32"}],
        },
        "options": {"ratio": 0.5, "criterion": "l2"},
        "before": before.to_dict(),
        "sliced": sliced.to_dict(),
        "after": after.to_dict(),
        "recovery": [{"step": "sliced", "metrics": {"top1": 0.4}}],
        "evaluated_on": "test data",
        "budget": {
            "ratio": 0.5,
            "of": "macs",
            "removed": 0.5,
            "predicted": {"macs": 4_000_000, "params": 60_000},
            "price": 0.25,
        },
        "groups": reports.group_entries([conv], {"conv1": range(8)}),
        "protected": [],
        "form": {"form": "class", "obstacle": ""},
        "differences": {"program and module": 1e-7},
        "seconds": {"load": 0.5},
        "notes": [],
        **changes,
    }


def test_flops_are_twice_the_macs_and_keys_are_those_of_schema_1() -> None:
    state = make_report()["after"]
    assert state["flops"] == 2 * state["macs"] == 8_000_000
    assert state.keys() == {"params", "macs", "flops", "size_bytes", "latency", "metrics"}
    keys = {"runtime", "device", "threads", "batch", "p50_ms", "p90_ms", "cpu_ms", "quantiles_ms"}
    keys |= {"host"}
    assert state["latency"][0].keys() == keys


@dataclass(frozen=True)
class Timed:
    layer: str
    ms: float


def test_times_go_to_the_innermost_layer_that_is_known() -> None:
    entries = reports.layer_entries({"a": 8, "b.c": 4, "": 1}, {"a": 2, "b.c": 1, "": 1})
    before = [Timed("a", 2.0), Timed("a.norm", 0.5), Timed("b", 0.25), Timed("node_7", 0.125)]
    layers, other = reports.time_layers(entries, before, [Timed("a", 1.0), Timed("b.c", 0.5)])
    assert layers == [
        {"name": "a", "before": 8, "after": 2, "before_ms": 2.5, "after_ms": 1.0},
        {"name": "b.c", "before": 4, "after": 1, "before_ms": 0.0, "after_ms": 0.5},
        {"name": "", "before": 1, "after": 1},
    ]
    assert other == {"before": 0.375, "after": 0.0}


def test_a_page_for_pull_requests_says_when_a_metric_is_no_number() -> None:
    report = make_report(recovery=[{"step": "sliced", "metrics": {"top1": float("nan")}}])
    assert "nan" not in reports.to_markdown(report)
    assert "| sliced | – |" in reports.to_markdown(report)


def test_json_is_read_back_as_it_was() -> None:
    report = make_report()
    assert json.loads(reports.to_json(report))["after"]["latency"][0]["p50_ms"] == 1.0


def test_json_says_null_for_a_metric_that_is_no_number() -> None:
    report = make_report()
    report["after"]["metrics"] = {"top1": float("nan")}
    assert json.loads(reports.to_json(report))["after"]["metrics"]["top1"] is None


def test_the_change_of_a_time_has_its_interval() -> None:
    report = make_report(speedups=[speedup_of([[2.0]] * 5, [[1.0]] * 5, [[2.0]] * 5).__dict__])
    row = next(row for row in reports.rows(report) if "thread" in row.label)
    assert (row.label, row.change) == ("onnxruntime, 1 thread", "-50.0%")
    for latency in (report[name]["latency"][0] for name in ("before", "sliced", "after")):
        latency["cpu_ms"] = 0.9 * latency["p50_ms"]
    report["speedups"] = [{"value": 2.0, "low": 1.6, "high": 2.5, "is_noisy": True}]
    row = next(row for row in reports.rows(report) if "thread" in row.label)
    assert (row.before, row.after) == ("1.8 ms", "0.9 ms")
    assert row.label == "onnxruntime, 1 thread, CPU time"
    assert row.change == "-50.0% (-60% to -38%), noisy"
    console = Console(width=80, file=io.StringIO())
    console.print(reports.table(report))
    assert "noisy" in console.file.getvalue()


def test_rows_compare_before_with_after() -> None:
    by_label = {row.label: row for row in reports.rows(make_report())}
    assert by_label["MACs"].change == "-50.0%"
    assert by_label["parameters"].after == "60.0 k"
    assert by_label["onnxruntime, 1 thread"].before == "2 ms"
    assert by_label["top1"].sliced == "40.00%"
    assert by_label["top1"].change == "-1.50 points"


def test_page_holds_the_numbers_and_the_groups() -> None:
    page = reports.to_markdown(make_report())
    assert "| MACs | 8.00 M | 4.00 M | 4.00 M | -50.0% |" in page
    assert "| `conv1` | channels | 16 | 8 |" in page
    assert "Random weights" not in page


def test_page_says_random_weights_loudly() -> None:
    model = {**make_report()["model"], "weights": "random weights"}
    assert "**Random weights.**" in reports.to_markdown(make_report(model=model))


def test_page_cuts_protections_and_the_dictionary_keeps_them_all() -> None:
    many = [
        Protection((f"layer{i}.weight:0",), 8, f"reason {i % 30}", f"layer{i}, net.py:{i}")
        for i in range(300)
    ]
    entries = reports.protection_entries(many)
    assert len(entries) == 30
    assert sum(len(entry["places"]) for entry in entries) == 300
    page = reports.to_markdown(make_report(protected=entries))
    assert "and 7 more" in page
    assert "10 more reasons are in report.json" in page


def test_names_cannot_break_the_page() -> None:
    hostile = [Group("a|b\n\n# boo", 4, "channels", ())]
    page = reports.to_markdown(make_report(groups=reports.group_entries(hostile, {"a|b": [0]})))
    assert "\n# boo" not in page


def test_table_shows_every_row() -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(reports.table(make_report()))
    shown = console.export_text()
    for row in reports.rows(make_report()):
        assert row.label in shown
        assert row.after in shown


def test_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "made" / "out"
    with all_or_nothing(target) as staged:
        (staged / "plan.json").write_text("{}")
        assert not target.exists()
    assert [entry.name for entry in target.iterdir()] == ["plan.json"]
    assert [entry.name for entry in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with (
        pytest.raises(error),
        all_or_nothing(tmp_path / "made" / "deep" / "out") as staged,
    ):
        (staged / "plan.json").write_text("{}")
        raise error
    assert list(tmp_path.iterdir()) == []


def earlier_result(tmp_path: Path) -> Path:
    target = tmp_path / "out"
    with all_or_nothing(target) as staged:
        (staged / "plan.json").write_text("earlier")
    return target


def test_failure_leaves_an_earlier_result(tmp_path: Path) -> None:
    target = earlier_result(tmp_path)
    with pytest.raises(ValueError), all_or_nothing(target, force=True) as staged:
        (staged / "plan.json").write_text("new")
        raise ValueError
    assert (target / "plan.json").read_text() == "earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_failing_rename_puts_the_earlier_result_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = earlier_result(tmp_path)
    rename = Path.rename

    def fail_for_new(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise OSError("disk full")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(OSError), all_or_nothing(target, force=True):
        pass
    assert (target / "plan.json").read_text() == "earlier"


def test_force_replaces_an_earlier_result(tmp_path: Path) -> None:
    target = earlier_result(tmp_path)
    with all_or_nothing(target, force=True) as staged:
        (staged / "report.md").write_text("new")
    assert [entry.name for entry in target.iterdir()] == ["report.md"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_existing_result_needs_force(tmp_path: Path) -> None:
    target = earlier_result(tmp_path)
    with pytest.raises(UsageError, match="--force"):
        check_target(target, force=False)


def test_force_replaces_nothing_but_results(tmp_path: Path) -> None:
    target = earlier_result(tmp_path)
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        check_target(target, force=True)
    assert (target / "thesis.tex").exists()


def test_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompressorError, match="cannot be written"):
        check_target(tmp_path / "file" / "out", force=False)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="no folder"):
        check_target(tmp_path / "out", force=True)
    assert (tmp_path / "out").read_text() == "mine"
