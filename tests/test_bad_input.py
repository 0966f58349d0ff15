"""Whatever goes wrong: a clear message, the right exit code, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny import SIDE, names_in, sequential, write_model
from torch import nn

from compressor.cli import main
from compressor.run import compress, deliver, footprints, opening, rating, result
from tools.selfcheck.bad_inputs import CASES, GROUPS
from tools.selfcheck.refusal import problems_of, typed

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
INPUT = ("--input", f"1x3x{SIDE}x{SIDE}")


class Attempt:
    """The command in an empty folder that holds an earlier result, `out`."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        (folder / "out").mkdir()
        (folder / "out" / "plan.json").write_text("earlier")

    def assert_fails(self, *arguments: str, code: int, says: Sequence[str]) -> None:
        """Run with --force over the earlier result; it must fail and leave all as it was."""
        before = names_in(self.folder)
        found = main([*arguments, *(() if "--out" in arguments else ("--out", "out", "--force"))])
        shown = self.capsys.readouterr()
        assert found == code, shown.err
        assert_clear(shown.err, says)
        assert "written to" not in shown.out
        assert names_in(self.folder) == before
        self.assert_earlier_result()

    def assert_earlier_result(self) -> None:
        assert names_in(self.folder / "out") == ["plan.json"]
        assert (self.folder / "out" / "plan.json").read_text() == "earlier"


def assert_clear(message: str, says: Sequence[str]) -> None:
    error = message[message.index("error: ") :]
    assert "Traceback" not in error
    assert error.count("error: ") == 1
    assert "consequence: " in error
    for text in says:
        assert text in error


@pytest.fixture
def attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Attempt:
    monkeypatch.chdir(tmp_path)
    return Attempt(tmp_path, capsys)


# -- the table -----------------------------------------------------------------------------------


ODD = [name for name, case in CASES.items() if case.is_odd]
USUAL = [name for name in CASES if name not in ODD] + ODD[::12]


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_what_the_field_has_is_done_or_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mostly whole runs; a dozen of them are among the next test's."""
    monkeypatch.chdir(tmp_path)
    assert problems_of(CASES[name], tmp_path, typed) == []


@pytest.mark.parametrize("name", USUAL)
def test_a_bad_input_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems_of(CASES[name], tmp_path, typed) == []


def test_the_names_of_bad_inputs_are_their_own() -> None:
    assert len(CASES) == sum(len(cases) for cases in GROUPS.values()) > 150


# -- sensitivities -------------------------------------------------------------------------------


@cache
def measured() -> str:
    """What is measured on the tiny network, for all tests; the folder is the current test's."""
    assert main(["sensitivity", "net.pt", *INPUT, "--ratios", "0.5", "--out", "measured"]) == 0
    return Path("measured", "sensitivity.json").read_text()


def write_sensitivity(attempt: Attempt, **changes: Any) -> Path:
    """What was measured on the tiny network, with these fields changed."""
    write_model(Path("net.pt"))
    path = Path("found.json")
    path.write_text(json.dumps(json.loads(measured()) | changes))
    attempt.capsys.readouterr()
    return path


CURVE = {
    "name": "0.weight:0",
    "layer": "0",
    "size": 8,
    "role": "channels",
    "exact": True,
    "macs_share": 0.5,
    "points": [{"ratio": 0.5, "kept": 4, "value": 0.5}],
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 2}, ["another version", "schema 1"]),
        ({"schema": None}, ["another version"]),
        ({"better": "bigger"}, ["makes no sense"]),
        ({"baseline": None}, ["no sensitivity.json"]),
        ({"surprise": 1}, ["surprise"]),
        ({"groups": 3}, ["no sensitivity.json"]),
        ({"groups": [{}]}, ["lacks 'points'"]),
        ({"groups": [CURVE | {"points": [{"ratio": 0.5, "kept": 9, "value": 1}]}]}, ["makes no"]),
        (
            {"groups": [CURVE | {"size": 16}]},
            ["another network", "16 channels", "8 (channels) here"],
        ),
        ({"groups": [CURVE | {"name": "up:0"}]}, ["another network", "up:0", "no such group"]),
        ({"groups": [CURVE]}, ["1 groups was not measured", "3.weight:0"]),
    ],
)
def test_sensitivities_that_do_not_fit(
    attempt: Attempt, changes: dict[str, Any], says: list[str]
) -> None:
    path = write_sensitivity(attempt, **changes)
    attempt.assert_fails("net.pt", *INPUT, "--use", str(path), code=FAILURE, says=[*says, "--use"])


def test_truncated_sensitivities(attempt: Attempt) -> None:
    path = write_sensitivity(attempt)
    path.write_text(path.read_text()[:-200])
    attempt.assert_fails(
        "net.pt", *INPUT, "--use", str(path), code=FAILURE, says=["cut off", str(path)]
    )


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'"schema"', b"\x89PNG\xff\xfe", b"{}"])
def test_a_file_that_holds_no_sensitivities(attempt: Attempt, content: bytes) -> None:
    write_model(attempt.folder / "net.pt")
    Path("found.json").write_bytes(content)
    attempt.assert_fails("net.pt", *INPUT, "--use", "found.json", code=FAILURE, says=["found.json"])


def test_sensitivities_that_are_not_there(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails(
        "net.pt", *INPUT, "--use", "no.json", code=FAILURE, says=["no.json", "No such file"]
    )


def test_ratio_beyond_what_was_measured(attempt: Attempt) -> None:
    path = write_sensitivity(attempt)
    says = ["out of reach", "no layer is cut further than it was measured"]
    attempt.assert_fails(
        "net.pt", *INPUT, "--use", str(path), "--ratio", "0.9", code=FAILURE, says=says
    )


def test_a_measurement_over_a_result_is_refused(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    says = ["plan.json", "untouched"]
    attempt.assert_fails("sensitivity", "net.pt", "--out", "out", "--force", code=USAGE, says=says)


def test_outputs_that_are_zero_have_no_sensitivity(attempt: Attempt) -> None:
    network = sequential()
    nn.init.zeros_(network[-1].weight)
    nn.init.zeros_(network[-1].bias)
    write_model(attempt.folder / "net.pt", network)
    attempt.assert_fails(
        "sensitivity", "net.pt", *INPUT, "--out", "new", code=FAILURE, says=["outputs are zero"]
    )


# -- the output ----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_output_folder_without_permission(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    Path("locked").mkdir(mode=0o500)
    attempt.assert_fails(
        "net.pt", *INPUT, "--out", "locked/net", code=FAILURE, says=["cannot be written"]
    )


def test_output_is_checked_before_the_work(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compress, "plan", lambda *_: pytest.fail("worked first"))
    attempt.assert_fails("net.pt", "--out", "out", code=USAGE, says=["exists"])


# -- in the middle -------------------------------------------------------------------------------

STAGES = [
    (rating, "analyse"),
    (compress, "deliver"),
    (deliver, "save_weights"),
    (footprints, "measure_turns"),
    (result, "copy_into"),
]
ERRORS: dict[str, tuple[BaseException, int, list[str]]] = {
    "Ctrl-C": (KeyboardInterrupt(), INTERRUPTED, ["interrupted", "nothing was written"]),
    "memory": (MemoryError("no space"), FAILURE, ["memory ran out: no space", "--batch-size"]),
    "surprise": (
        ZeroDivisionError(),
        FAILURE,
        ["ZeroDivisionError", "please report", "COMPRESSOR_DEBUG=1"],
    ),
}


def when(home: Any, stage: str, error: str) -> Any:
    """Fast are each error in one stage, and each stage with one error."""
    is_fast = stage == "deliver" or error == "Ctrl-C"
    marks = () if is_fast else pytest.mark.slow
    return pytest.param(home, stage, *ERRORS[error], id=f"{stage}-{error}", marks=marks)


@pytest.mark.parametrize(
    ("home", "stage", "error", "code", "says"),
    [when(home, stage, error) for home, stage in STAGES for error in ERRORS],
)
def test_stage_that_does_not_end_well(
    attempt: Attempt,
    monkeypatch: pytest.MonkeyPatch,
    home: Any,
    stage: str,
    error: BaseException,
    code: int,
    says: list[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    write_model(attempt.folder / "net.pt")
    monkeypatch.setattr(home, stage, fail)
    monkeypatch.delenv("COMPRESSOR_DEBUG", raising=False)
    attempt.assert_fails("net.pt", *INPUT, code=code, says=says)


def test_debugging_shows_the_traceback(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    write_model(attempt.folder / "net.pt")
    monkeypatch.setattr(opening, "trace", fail)
    monkeypatch.setenv("COMPRESSOR_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["net.pt", *INPUT, "--out", "new"])


SLOW_FACTORY = """
import pathlib, time
from tiny import TinyNet

def build():
    pathlib.Path("ready").touch()
    time.sleep(60)
    return TinyNet()
"""


def command(*arguments: str) -> subprocess.Popen[str]:
    """The command as a terminal starts it; what runs in a shell's background ignores Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", "compressor", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_signal_in_the_middle(attempt: Attempt, number: signal.Signals) -> None:
    Path("slow.py").write_text(SLOW_FACTORY)
    process = command("slow.py:build", *INPUT, "--out", "out", "--force")
    deadline = time.monotonic() + 60
    while not Path("ready").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == INTERRUPTED, shown
    assert_clear(shown, ["interrupted"])
    assert {"out", "ready", "slow.py"} >= set(names_in(attempt.folder)) - {"__pycache__"}
    attempt.assert_earlier_result()


def test_real_command_fails_without_traceback(attempt: Attempt) -> None:
    process = command("nowhere.pt")
    out, shown = process.communicate(timeout=60)
    assert process.returncode == USAGE
    assert_clear(shown, ["nowhere.pt"])
    assert out == ""
    assert names_in(attempt.folder) == ["out"]
