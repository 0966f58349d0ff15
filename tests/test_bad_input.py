"""Whatever goes wrong: a clear message, the right exit code, no traceback, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SIDE, TinyNet, inputs, names_in, sequential, write_model, write_samples
from torch import nn

import compressor
from compressor import delivery, pipeline, preparing, result
from compressor.cli import main

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
INPUT = ("--input", f"1x3x{SIDE}x{SIDE}")
TINY = f"{Path(__file__).parent / 'tiny.py'}"


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
    monkeypatch.setattr(delivery, "LATENCY_SECONDS", 0.05)
    return Attempt(tmp_path, capsys)


# -- the model -----------------------------------------------------------------------------------


def test_wrong_path(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails("nett.pt", code=USAGE, says=["nett.pt", "Did you mean net.pt"])


def test_empty_file(attempt: Attempt) -> None:
    Path("net.pt").touch()
    attempt.assert_fails("net.pt", code=FAILURE, says=["net.pt", "empty"])


def test_truncated_file(attempt: Attempt) -> None:
    whole = write_model(attempt.folder / "net.pt").read_bytes()
    Path("net.pt").write_bytes(whole[: len(whole) // 2])
    attempt.assert_fails("net.pt", code=FAILURE, says=["net.pt"])


@pytest.mark.parametrize(
    "content", [b"hello, this is text\n" * 9, b"\x89PNG\r\n\x1a\n" + b"\0" * 99]
)
def test_file_that_is_no_model(attempt: Attempt, content: bytes) -> None:
    Path("net.pt").write_bytes(content)
    attempt.assert_fails("net.pt", code=FAILURE, says=["net.pt"])


def test_tensors_are_no_model(attempt: Attempt) -> None:
    torch.save([1, 2, 3], "net.pt")
    attempt.assert_fails("net.pt", code=FAILURE, says=["no model"])


def test_folder_is_no_model(attempt: Attempt) -> None:
    Path("nets").mkdir()
    attempt.assert_fails("nets", code=USAGE, says=["folder"])


def test_state_dict_without_factory(attempt: Attempt) -> None:
    torch.save(TinyNet().state_dict(), "net.pt")
    attempt.assert_fails("net.pt", code=USAGE, says=["state dict", "--factory"])


def test_state_dict_of_another_network(attempt: Attempt) -> None:
    torch.save(TinyNet(width=6).state_dict(), "net.pt")
    attempt.assert_fails(
        "net.pt", "--factory", f"{TINY}:TinyNet", code=FAILURE, says=["stem.weight"]
    )


FACTORIES = """
def fails():
    raise OSError("the disk is on fire")

def wants(width, depth):
    raise AssertionError

def gives():
    return "a network"

def leaves():
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fails", ["the disk is on fire"]),
        ("wants", ["width", "--factory-arg"]),
        ("gives", ["str"]),
        ("leaves", ["SystemExit"]),
        ("lacks", ["lacks"]),
    ],
)
def test_factory_that_makes_no_network(attempt: Attempt, name: str, says: list[str]) -> None:
    Path("nets.py").write_text(FACTORIES)
    attempt.assert_fails(
        f"nets.py:{name}", code=USAGE if name in ("wants", "lacks") else FAILURE, says=says
    )


class Marks:
    """Pickled as a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return os.mkdir, (str(self.mark),)


def test_pickle_that_would_run_code(attempt: Attempt) -> None:
    network = sequential()
    network.extra = Marks(attempt.folder / "mark")
    torch.save(network, "net.pt")
    attempt.assert_fails("net.pt", *INPUT, code=FAILURE, says=["mkdir", "--trust-pickle"])
    assert not Path("mark").exists()


def test_program_that_would_run_code(attempt: Attempt) -> None:
    compressor.save(TinyNet(), inputs(), "good.pt2")
    evil = io.BytesIO()
    torch.save(Marks(attempt.folder / "mark"), evil)
    with zipfile.ZipFile("good.pt2") as good, zipfile.ZipFile("net.pt2", "w") as crafted:
        for entry in good.namelist():
            hit = "sample_inputs" in entry and entry.endswith(".pt")
            crafted.writestr(entry, evil.getvalue() if hit else good.read(entry))
    attempt.assert_fails(
        "net.pt2", code=FAILURE, says=["would run code", "mkdir", "--trust-pickle"]
    )
    assert not Path("mark").exists()


def test_weights_that_are_not_finite(attempt: Attempt) -> None:
    network = sequential()
    with torch.no_grad():
        network[3].weight[0, 0, 0, 0] = float("nan")
    write_model(attempt.folder / "net.pt", network)
    attempt.assert_fails("net.pt", *INPUT, code=FAILURE, says=["NaN", "3.weight"])


# -- inputs and data -----------------------------------------------------------------------------


def test_wrong_input_shape(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails("net.pt", "--input", "1x5x8x8", code=FAILURE, says=["1x5x8x8", "layer 0"])


def test_input_that_cannot_be_read(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails(
        "net.pt", "--input", "a picture", code=USAGE, says=["a picture", "--input"]
    )


def test_labels_out_of_range(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    write_samples(attempt.folder / "data.npz", classes=9)
    attempt.assert_fails("net.pt", "--data", "data.npz", code=FAILURE, says=["label", "4 classes"])


def test_samples_that_do_not_fit(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    np.savez("data.npz", images=np.zeros((9, 8, 8, 1), np.uint8), labels=np.zeros(9, np.int64))
    attempt.assert_fails(
        "net.pt", *INPUT, "--data", "data.npz", code=FAILURE, says=["do not fit", "data.npz"]
    )


@pytest.mark.parametrize("option", ["--data", "--test"])
def test_data_that_is_not_there(attempt: Attempt, option: str) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails("net.pt", option, "nowhere.npz", code=USAGE, says=["nowhere.npz"])


def test_data_that_cannot_be_read(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    Path("data.npz").write_bytes(b"PK\x03\x04 no archive")
    attempt.assert_fails("net.pt", "--data", "data.npz", code=FAILURE, says=["data.npz"])


def test_fine_tuning_without_data(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails("net.pt", *INPUT, "--epochs", "1", code=USAGE, says=["--data"])


def test_metric_that_fails(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    write_samples(attempt.folder / "data.npz")
    Path("own.py").write_text("def metric(outputs, target):\n    return 1 / 0\n")
    metric = ("--metric", "own.py:metric")
    attempt.assert_fails(
        "net.pt", "--data", "data.npz", *metric, code=FAILURE, says=["ZeroDivisionError"]
    )


# -- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", ["0", "1", "-0.5", "1.5", "nan", "half"])
def test_ratio_that_is_no_share(attempt: Attempt, ratio: str) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails("net.pt", f"--ratio={ratio}", code=USAGE, says=["ratio"])


def test_ratio_out_of_reach(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    says = ["out of reach", "at most", "--best-effort"]
    attempt.assert_fails("net.pt", *INPUT, "--ratio", "0.999", code=FAILURE, says=says)


def test_nothing_to_prune(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt", nn.Sequential(nn.Linear(6, 3)))
    attempt.assert_fails("net.pt", code=FAILURE, says=["no group"])


def test_everything_protected(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails("net.pt", *INPUT, "--protect", "*", code=FAILURE, says=["no group"])


def test_glob_that_matches_nothing(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    says = ["'3.wait' matches no", "3.weight"]
    attempt.assert_fails("net.pt", *INPUT, "--protect", "3.wait", code=USAGE, says=says)


@pytest.mark.parametrize("given", ["3", "=0.3", "3=", "3=half", "3=1", "3=0.95", "3=-0.1", "3=nan"])
def test_layer_ratio_that_cannot_be_read(attempt: Attempt, given: str) -> None:
    write_model(attempt.folder / "net.pt")
    says = [repr(given), "--layer-ratio 'blocks.*=0.3'"]
    attempt.assert_fails("net.pt", *INPUT, "--layer-ratio", given, code=USAGE, says=says)


def test_layer_ratio_that_matches_nothing(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    says = ["--layer-ratio '3.wait' matches no", "3.weight"]
    attempt.assert_fails("net.pt", *INPUT, "--layer-ratio", "3.wait=0.5", code=USAGE, says=says)


def test_layer_ratio_beyond_the_ratio(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    both = ("--layer-ratio", "*=0.8", "--ratio", "0.2")
    attempt.assert_fails(
        "net.pt", *INPUT, *both, code=FAILURE, says=["alone removes", "more than --ratio 0.2"]
    )


# -- sensitivities -------------------------------------------------------------------------------


def write_sensitivity(attempt: Attempt, **changes: Any) -> Path:
    """What was measured on the tiny network, with these fields changed."""
    write_model(Path("net.pt"))
    assert main(["sensitivity", "net.pt", *INPUT, "--ratios", "0.5", "--out", "measured"]) == 0
    attempt.capsys.readouterr()
    path = Path("measured", "sensitivity.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
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


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--ratios", "0.5,1"), USAGE, ["--ratios", "between 0 and 1"]),
        (("--ratios", "half"), USAGE, ["half"]),
        (("--samples", "0"), USAGE, ["--samples"]),
        (("--epochs", "1"), USAGE, ["--epochs"]),
        (("--criterion", "taylor"), USAGE, ["needs training data"]),
        (("--protect", "*"), FAILURE, ["no group"]),
        (("--out", "out", "--force"), USAGE, ["plan.json", "untouched"]),
        (("--data", "none.npz"), USAGE, ["none.npz"]),
    ],
)
def test_sensitivity_that_cannot_be_measured(
    attempt: Attempt, arguments: tuple[str, ...], code: int, says: list[str]
) -> None:
    write_model(attempt.folder / "net.pt")
    out = () if "--out" in arguments else ("--out", "measured")
    attempt.assert_fails("sensitivity", "net.pt", *INPUT, *arguments, *out, code=code, says=says)


def test_outputs_that_are_zero_have_no_sensitivity(attempt: Attempt) -> None:
    network = sequential()
    nn.init.zeros_(network[-1].weight)
    nn.init.zeros_(network[-1].bias)
    write_model(attempt.folder / "net.pt", network)
    attempt.assert_fails(
        "sensitivity", "net.pt", *INPUT, "--out", "new", code=FAILURE, says=["outputs are zero"]
    )


# -- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), ["MODEL"]),
        (("--rato", "0.5"), ["--rato", "--ratio"]),
        (("--criterion", "l3"), ["l3", "l2"]),
        (("--round-to", "0"), ["--round-to"]),
        (("--norm-p", "0"), ["--norm-p", "positive"]),
        (("--norm-p", "inf"), ["--norm-p", "positive"]),
        (("--reduction", "median"), ["median", "first"]),
        (("--normalise", "median"), ["median", "lamp"]),
        (("--scope", "everywhere"), ["everywhere", "isomorphic"]),
        (("--criterion", "fisher"), ["fisher", "--data"]),
        (("--epochs", "-1"), ["--epochs"]),
        (("--device", "abacus"), ["abacus", "--device cpu"]),
        (("--prune", "everything"), ["everything", "stream"]),
        (("--std", "0"), ["--std"]),
        (("--use", "found.json", "--scope", "layer"), ["--use", "--scope has no say"]),
    ],
)
def test_command_that_cannot_be_meant(
    attempt: Attempt, arguments: tuple[str, ...], says: list[str]
) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails(*(("net.pt", *arguments) if arguments else ()), code=USAGE, says=says)


# -- the output ----------------------------------------------------------------------------------


def test_existing_output_folder(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    attempt.assert_fails("net.pt", *INPUT, "--out", "out", code=USAGE, says=["exists", "--force"])


def test_output_folder_with_other_files(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    Path("thesis").mkdir()
    Path("thesis", "chapter1.tex").write_text("years of work")
    arguments = ("net.pt", *INPUT, "--out", "thesis", "--force")
    attempt.assert_fails(*arguments, code=USAGE, says=["chapter1.tex", "untouched"])
    assert Path("thesis", "chapter1.tex").exists()


def test_unwritable_output_folder(attempt: Attempt) -> None:
    write_model(attempt.folder / "net.pt")
    Path("file").touch()
    attempt.assert_fails(
        "net.pt", *INPUT, "--out", "file/net", code=FAILURE, says=["cannot be written"]
    )


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
    monkeypatch.setattr(pipeline, "plan", lambda *_: pytest.fail("worked first"))
    attempt.assert_fails("net.pt", "--out", "out", code=USAGE, says=["exists"])


# -- in the middle -------------------------------------------------------------------------------

STAGES = [
    (preparing, "analyse"),
    (pipeline, "deliver"),
    (delivery, "save_weights"),
    (delivery, "measure_latency"),
    (result, "copy_into"),
]


@pytest.mark.parametrize(("home", "stage"), STAGES, ids=[stage for _, stage in STAGES])
@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), INTERRUPTED, ["interrupted", "nothing was written"]),
        (MemoryError("no space"), FAILURE, ["MemoryError: no space", "COMPRESSOR_DEBUG=1"]),
    ],
    ids=["Ctrl-C", "surprise"],
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
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    write_model(attempt.folder / "net.pt")
    monkeypatch.setattr(preparing, "trace", fail)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
