"""The tool of the GPU rows: what is packed, what a stop leaves, what is merged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tools.gpu_rows import networks, pack, places, present, run
from tools.gpu_rows.merge import merge
from tools.gpu_rows.networks import Timed, found_or_made
from tools.gpu_rows.parts import PARTS, Part, language, latency, training
from tools.gpu_rows.records import known, name_of
from tools.gpu_rows.scale import Scale
from tools.gpu_rows.table import to_markdown
from tools.jsonl import append_line


def record(part: str, key: dict[str, Any], **found: Any) -> dict[str, Any]:
    return {"part": part, "key": key, "is_dry": False, **found}


# -- the pack ------------------------------------------------------------------------------------


def test_what_a_machine_lacks_is_followed_from_the_projects_needs() -> None:
    found = present.lacking()
    assert {"torch-pruning", "fvcore", "cyclopts", "jsonschema"} <= set(found)
    assert not set(found) & present.PRESENT
    assert "iopath" in found  # behind fvcore
    assert "nvidia-cublas" not in found  # behind torch, which is there


def test_the_pieces_hold_all_data_once_and_are_not_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [name for names in places.PIECES.values() for name in names]
    assert len(names) == len(set(names)) == 7
    monkeypatch.setattr(places, "PACK", tmp_path / ".gpu")
    monkeypatch.setattr(places, "WHEELS", tmp_path / ".gpu" / "1" / "wheels")
    monkeypatch.setattr(pack, "lacking", dict)
    for name in names[:-1]:
        (tmp_path / name).write_bytes(b"1234")
    with pytest.raises(SystemExit, match=names[-1]):
        pack.pack(tmp_path, with_networks=False)
    assert places.missing_data() == names[-1:]
    (tmp_path / names[-1]).write_bytes(b"1234")
    assert pack.pack(tmp_path, with_networks=False) == {"1": 12, "2": 8, "3": 8}
    assert not places.missing_data()
    assert (places.data_root() / names[0]).read_bytes() == b"1234"
    monkeypatch.setattr(places, "MOST_BYTES", 10)
    with pytest.raises(SystemExit, match="larger than"):
        pack.pack(tmp_path, with_networks=False)


def test_a_network_is_kept_as_structure_alone(tmp_path: Path) -> None:
    scale = Scale(tmp_path, is_dry=True)
    wide = Timed(lambda: nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64)), 8)
    made: list[int] = []

    def make(network: Timed, scale: Scale) -> nn.Module:
        made.append(1)
        return nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "TINY", {"wide": wide})
        for _ in range(2):
            found = found_or_made("wide", "half, of=it", {"half, of=it": make}, scale)
    assert made == [1]
    assert found.macs_left == pytest.approx(0.5, abs=0.01)
    assert found.module(torch.ones(1, 3, 8, 8)).isfinite().all()
    (file,) = (tmp_path / "made").iterdir()
    assert file.stat().st_size < 8000


# -- records -------------------------------------------------------------------------------------


def test_a_record_outlives_a_stop_and_a_failure_gives_way(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    append_line(file, record("latency", {"a": 1}, failure="no"))
    append_line(file, record("latency", {"a": 1}, ms=2.0))
    append_line(file, record("latency", {"a": 1}, failure="again"))
    with file.open("a") as stream:
        stream.write('{"part": "latency", "key": {"a": 2}, "ms')
    (only,) = known([file]).values()
    assert only["ms"] == 2.0


HANGS = """
import sys, time, subprocess
from pathlib import Path
from tools.gpu_rows.records import Row
def rows(scale):
    yield Row("x", {"n": 1}, lambda: {"found": 1})
    yield Row("x", {"n": 2}, lambda: 1 / 0)
    yield Row("x", {"n": 3}, hang)
def hang():
    subprocess.Popen(["sleep", "60"])
    time.sleep(60)
"""


def test_a_part_that_hangs_is_stopped_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows so far are there; a further call asks for those alone that are not."""
    begun: list[list[str]] = []

    class Process:
        """In a part's place: the first one hangs."""

        pid = 2**22 + 1  # of no process

        def __init__(self, command: list[str], **_: Any) -> None:
            begun.append(command)

        def wait(self, timeout: float | None = None) -> int:
            if timeout is not None and len(begun) == 1:
                raise subprocess.TimeoutExpired("part", timeout)
            return 0

    monkeypatch.setattr(run.subprocess, "Popen", Process)
    monkeypatch.setattr(places, "EARLIER", tmp_path / "earlier")
    monkeypatch.setattr(places, "PACK", tmp_path / "pack")
    (tmp_path / "earlier" / places.TABLES).mkdir(parents=True)
    (tmp_path / "earlier" / places.TABLES / "table.json").write_text("{}")
    (tmp_path / "earlier" / "abc.unfinished").mkdir()
    (tmp_path / "earlier" / "abc.unfinished" / "training.pt").write_text("weights")
    assert run.run(tmp_path / "out", is_dry=False, only=("tests", "latency")) == 0
    assert [command[3] for command in begun] == ["tests", "latency"]
    assert float(begun[0][5]) == 60
    assert (tmp_path / "out" / "abc.unfinished" / "training.pt").read_text() == "weights"
    assert (tmp_path / "out" / places.TABLES / "table.json").exists()
    assert (tmp_path / "pack" / "cache" / "compressor" / "latency" / "table.json").exists()


@pytest.mark.slow
def test_a_part_records_each_row_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGS)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import hanging\n"
        "from tools.gpu_rows import part, parts\n"
        "class Own:\n    rows = staticmethod(hanging.rows)\n"
        "part.PARTS = {'x': Own}\n"
        "part.main('x', sys.argv[1], '100', '--dry-run')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=places.ROOT)
    try:
        file, end = tmp_path / places.RECORDS, time.monotonic() + 120
        while len(known([file])) < 2 and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    found = known([file])
    assert [r.get("found") for r in found.values()] == [1, None]
    assert "ZeroDivisionError" in list(found.values())[1]["failure"]


def test_every_part_has_rows_of_its_own() -> None:
    assert list(PARTS) == ["tests", "latency", "training", "language"]
    assert [part.seconds for part in PARTS.values()] == [60, 90, None, None]
    whole = list(latency.rows(Scale(Path())))
    assert len({row.name for row in whole}) == len(whole) == 4 * 2 * 27
    first = whole[0].key
    assert (first["backend"], first["precision"], first["batch"]) == ("torch-graphs", "bf16", 256)
    order = [(k["method"], k["times"], k["seed"]) for k in training.keys(Scale(Path()))]
    assert order[0] == ("ours", 2.1, 0)
    assert order[1:4] == [("Torch-Pruning", 2.1, 0), ("uniform L1", 2.1, 0), ("ours", 2.1, 1)]
    assert isinstance(PARTS["language"], Part)


def test_training_waits_for_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(places, "PACK", tmp_path)
    assert list(training.rows(Scale(tmp_path))) == []
    assert "training waits for cifar10_resnet56" in capsys.readouterr().out


def test_a_training_of_ours_is_resumed_or_else_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[list[str]] = []
    state = {"macs": 2, "params": 2}
    row = {"step": "original", "metrics": {"top1": 0.5}, "training": {"epochs": [{"seconds": 1.0}]}}
    report = {"before": state, "after": state, "recovery": [row], "seconds": {}}

    def command(words: list[str]) -> int:
        typed.append(words)
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "report.json").write_text(json.dumps(report))
        return int(words[0] == "resume" and "damaged" in unfinished.read_text())

    monkeypatch.setattr(training, "main", command)
    unfinished = tmp_path / "out.unfinished" / "run.json"
    for content in (None, "{}", "damaged"):
        if content is not None:
            unfinished.parent.mkdir(exist_ok=True)
            unfinished.write_text(content)
        found = training._ours(tmp_path / "out", tmp_path, 8, {"ratio": 0.5, "epochs": 1})
        assert found["epochs"] == [{"seconds": 1.0}]
        assert not (tmp_path / "out").exists()
    began, resumed, tried, anew = typed
    assert began == anew and "--epochs" in began
    assert resumed == tried == ["resume", str(tmp_path / "out")]


# -- the page ------------------------------------------------------------------------------------


def latency_record(name: str, group: str) -> dict[str, Any]:
    way = latency.ways(Scale(Path()))[0]
    methods = list(networks.GROUPS[group])
    return record(
        "latency",
        latency.key_of(name, group, way),
        times={
            "original": {"ms": 4.0, "faster": {"value": 1.01}},
            methods[0]: {"ms": 2.0, "faster": {"value": 2.0}},
        },
        macs_left={methods[0]: 0.5},
        failures=dict.fromkeys(methods[1:], "why"),
    )


def test_the_page_has_figures_where_there_are_records_and_says_what_is_open() -> None:
    page = to_markdown([])
    assert "Tests marked `gpu`: open." in page
    assert page.count("| open |") > 30
    key = training.keys(Scale(Path()))[0]
    moments = [["original", 0.934], ["sliced", 0.5], ["repaired", 0.9], ["trained", 0.941]]
    numbers = {"moments": moments, "macs": [210, 100]}
    language_key = language.keys(Scale(Path()))[0]
    page = to_markdown(
        [
            latency_record("resnet50", "ahead"),
            record("training", key, **numbers, epoch_s=1.5),
            record(
                "language",
                language_key,
                tokens_per_s={"after": 150.0, "before": 100.0},  # as the file sorts them
                params={"after": 4e8, "before": 6e8},
            ),
        ]
    )
    lines = page.splitlines()
    assert "| resnet50 | graphs, bf16 | 256 | 4 | 1.0% | 2.00x (50%) | failed | failed |" in page
    assert any("| 2.10x | ours | 1 | 93.40 | 50.00 | 94.10 | 1.50 |" in line for line in lines)
    assert "| 8 | 100 | 150 | 1.50x | 600 M → 400 M |" in page


def test_merging_adds_to_what_there_is_and_keeps_what_goes_on(tmp_path: Path) -> None:
    results, earlier, out = (tmp_path / name for name in ("results", "earlier", "out"))
    for folder in (results, earlier, out):
        folder.mkdir()
    old = latency_record("resnet50", "ahead")
    append_line(results / "gpu.jsonl", old)
    (earlier / "done.pt").write_text("of a training that has ended")
    append_line(out / places.RECORDS, latency_record("vit_b_16", "ahead"))
    append_line(out / places.RECORDS, record("language", {}, failure="no memory"))
    (out / "open.pt").write_text("of one that has not")
    merge(out, results=results, earlier=earlier)
    lines = [json.loads(line) for line in (results / "gpu.jsonl").read_text().splitlines()]
    assert [line["key"]["network"] for line in lines] == ["resnet50", "vit_b_16"]
    assert name_of(lines[0]) == name_of(old)
    assert sorted(file.name for file in earlier.iterdir()) == ["open.pt", places.RECORDS]


def test_a_dry_run_is_no_result(tmp_path: Path) -> None:
    append_line(tmp_path / places.RECORDS, {**latency_record("resnet50", "ahead"), "is_dry": True})
    with pytest.raises(SystemExit, match="no results"):
        merge(tmp_path, results=tmp_path, earlier=tmp_path / "earlier")
    with pytest.raises(SystemExit, match="there is no"):
        merge(tmp_path / "nowhere", results=tmp_path, earlier=tmp_path / "earlier")
