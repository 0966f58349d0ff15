"""The command line as a user meets it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import RESULT_FILES, names_in, write_model, write_samples

from compressor.cli import app, demo, main
from compressor.cli.help_examples import EXAMPLES
from compressor.options import Options, flag
from compressor.score import needs_data, needs_loss
from compressor.score.criteria import CRITERIA


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def test_compress_writes_the_folder_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "net.pt")
    write_samples(tmp_path / "train.npz")
    arguments = ["net.pt", "--ratio", "0.4", "--data", "train.npz", "--batch-size", "16"]
    assert main([*arguments, "--mean", "0.5,0.5,0.5", "--std", "0.5", "0.5", "0.5"]) == 0
    shown = capsys.readouterr()
    folder = tmp_path / "exported" / "net"
    assert names_in(folder) == RESULT_FILES
    assert names_in(folder.parent) == ["net"]
    for text in ("MACs", "parameters", "ONNX file", "top1", "written to exported/net"):
        assert text in shown.out
    for stage in ("load", "trace", "slice", "re-fit consumers", "write and verify onnx"):
        assert stage in shown.err
    report = json.loads((folder / "report.json").read_text())
    assert report["command"].startswith("compress net.pt --ratio 0.4 --data train.npz")
    assert report["options"]["mean"] == [0.5, 0.5, 0.5]
    assert report["before"]["metrics"].keys() == {"top1"}


def test_dry_run_shows_the_plan_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "net.pt")
    assert main(["net.pt", "--dry-run"]) == 0
    shown = capsys.readouterr()
    for text in ("plan", "kept", "predicted", "macs", "nothing was written"):
        assert text in shown.out
    assert "a guess" in shown.err
    assert names_in(tmp_path) == ["net.pt"]


def test_criteria_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-criteria"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in CRITERIA:
        (line,) = [line for line in lines if line.startswith(f"│ {name} ")]
        _, _, measures, needs, paper, _ = (cell.strip() for cell in line.split("│"))
        assert measures and paper
        assert ("data" in needs) == needs_data(name)
        assert ("labels" in needs) == needs_loss(name)
    assert any("Theis et al. 2018" in line for line in lines)


def test_weights_of_a_factory_are_not_called_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factory = f"{Path(__file__).parent / 'tiny.py'}:TinyNet"
    assert main([factory, "--input", "1x3x8x8", "--out", "out", "--of", "params"]) == 0
    assert "weights as the factory made them" in capsys.readouterr().err
    page = (tmp_path / "out" / "report.md").read_text()
    assert "as the factory made them" in page
    assert "**Random weights.**" not in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["budget"]["of"] == "params"


def test_protected_layers_stay(tmp_path: Path) -> None:
    write_model(tmp_path / "net.pt")
    command = ["net.pt", "--ratio", "0.1", "--protect", "0", "--input", "1x3x8x8", "--out", "out"]
    assert main(command) == 0
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert "0.weight" not in plan["tensors"]


@pytest.mark.slow
def test_force_replaces_an_earlier_result(tmp_path: Path) -> None:
    write_model(tmp_path / "net.pt")
    command = ["net.pt", "--input", "1x3x8x8", "--out", "out"]
    assert main(command) == 0
    first = (tmp_path / "out" / "plan.json").read_text()
    assert main([*command, "--ratio", "0.7", "--force"]) == 0
    assert (tmp_path / "out" / "plan.json").read_text() != first
    assert names_in(tmp_path) == ["net.pt", "out"]


@pytest.mark.slow
def test_demo_goes_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "EPOCHS", 1)
    Path("demo").write_text("a file of the same name")
    assert main(["demo", "--out", "out"]) == 0
    assert names_in(tmp_path / "out") == sorted([*RESULT_FILES, "training.svg"])
    assert "train a network" in capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["after"]["macs"] <= 0.5 * report["before"]["macs"]


@pytest.mark.slow
def test_demo_keeps_its_accuracy(tmp_path: Path) -> None:
    begin = time.perf_counter()
    assert main(["demo", "--out", "out"]) == 0
    assert time.perf_counter() - begin < 90
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["before"]["metrics"]["top1"] >= 0.97
    assert report["after"]["metrics"]["top1"] >= report["before"]["metrics"]["top1"] - 0.02


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_comes_without_torch() -> None:
    code = (
        "import sys; from compressor.cli import main; code = main(['--help']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    begin = time.perf_counter()
    shown = python("-c", code)
    assert shown.returncode == 0, shown.stderr
    assert time.perf_counter() - begin < 3  # a second on a machine that does nothing else
    for option in ("--ratio", "--factory-arg", "--trust-pickle", "--no-repair", "--dry-run"):
        assert option in shown.stdout


def test_package_imports_without_torch() -> None:
    code = "import compressor, sys; assert 'torch' not in sys.modules; dir(compressor)"
    assert python("-c", code).returncode == 0


def test_public_names_are_what_they_are_called() -> None:
    code = (
        "import compressor, compressor.run.compress, inspect;"
        "assert all(callable(getattr(compressor, n)) for n in compressor.__all__ if n[0] != '_');"
        "assert not inspect.ismodule(compressor.load)"
    )
    shown = python("-c", code)
    assert shown.returncode == 0, shown.stderr


def test_module_is_the_command() -> None:
    shown = python("-m", "compressor", "demo", "--help")
    assert shown.returncode == 0
    assert "handwritten digits" in shown.stdout


def test_every_option_has_a_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = [line.strip("│ ").split() for line in capsys.readouterr().out.splitlines()]
    for field in dataclasses.fields(Options):
        words = next(words for words in lines if flag(field.name) in words)
        assert len(words) > 3, words


COMMANDS = [name for name in app if not name.startswith("-")]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_help_of_every_command_ends_with_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*([name] if name else []), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith(EXAMPLES[name][-1])
    assert shown.count("Examples:") == 1


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_the_examples_are_commands_that_there_are(line: str) -> None:
    command, *_ = app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)
    assert callable(command)


def test_the_examples_are_of_every_command_and_no_other() -> None:
    assert EXAMPLES.keys() == {"", *COMMANDS}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands_and_options(shell: str) -> None:
    script = app.generate_completion(shell=shell)
    for word in (*COMMANDS, "ratio", "max-latency-ms", "quantize"):
        assert word in script


def test_completion_is_installed_into_the_home_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    command = [sys.executable, "-m", "compressor", "--install-completion", "--shell", "bash"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert any("compress" in path.name for path in tmp_path.rglob("*") if path.is_file())
