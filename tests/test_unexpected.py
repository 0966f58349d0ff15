"""What nobody foresaw: as an error with its place, on the command line and in Python."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, inputs, write_model

import compressor
from compressor.errors import CompressorError, UsageError
from compressor.records import Group, Member
from compressor.run import compress, rating, result
from compressor.unexpected import Explaining, explain_unexpected
from compressor.watch import Silent, Stopwatch


def caught(error: BaseException) -> CompressorError:
    with pytest.raises(CompressorError) as found, Explaining():
        raise error
    assert found.value.__cause__ is error
    return found.value


@pytest.mark.parametrize(
    ("error", "what", "next_step"),
    [
        (MemoryError(), "memory ran out", "--batch-size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "memory ran out", "--device cpu"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "memory ran", "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full", "TMPDIR"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk is full", "room"),
        (RecursionError("maximum recursion depth exceeded"), "nested deeper", "itself without end"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files", "ulimit"),
        (IsADirectoryError(21, "Is a directory", "a.json"), "a.json: Is a directory", "read"),
        (KeyError("blocks.3"), "KeyError: 'blocks.3'", "please report"),
        (AssertionError(), "AssertionError", "please report"),
    ],
)
def test_an_exception_has_its_words(error: BaseException, what: str, next_step: str) -> None:
    found = caught(error)
    assert what in found.what
    assert next_step in found.next_step
    assert found.where and found.consequence


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), UsageError("no")])
def test_what_is_meant_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as found, Explaining():
        raise error
    assert found.value is error


def work_at(group: Group) -> None:
    raise KeyError(group.name)


def test_the_place_is_stage_layer_and_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer is that of a group, or of a program's node, that one of our functions works at."""
    group = Group(
        "blocks.3.conv.weight:0", 4, "channels", (Member("blocks.3.conv.weight", 0, False),)
    )
    monkeypatch.setattr(sys.modules["compressor.unexpected"], "_PACKAGE", Path(__file__).parent)
    with pytest.raises(KeyError) as found, Stopwatch(Silent()).stage("select"):
        work_at(group)
    where = explain_unexpected(found.value).where
    assert where.startswith("stage 'select', layer blocks.3.conv, tests/test_unexpected.py:")
    assert where.endswith("in work_at")


def test_python_meets_no_raw_exception_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(rating, "analyse", fail)
    with pytest.raises(CompressorError, match="did not expect this: ZeroDivisionError") as found:
        compressor.compress(TinyNet(), inputs())
    assert isinstance(found.value.__cause__, ZeroDivisionError)
    assert "stage 'analyse'" in found.value.where
    monkeypatch.undo()
    monkeypatch.setattr(result, "check_files", fail)
    for load in (compressor.load_program, lambda folder: compressor.load(folder, TinyNet)):
        with pytest.raises(CompressorError, match="please report"):
            load(tmp_path)


def test_a_panic_of_a_library_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rust's panics are no `Exception`."""

    class Panic(BaseException):
        pass

    def fail(*_: Any, **__: Any) -> None:
        raise Panic("called unwrap on none")

    monkeypatch.setattr(compress, "plan", fail)
    from compressor.cli import main

    assert main([str(write_model(tmp_path / "net.pt")), "--out", str(tmp_path / "out")]) == 1
    assert "Panic: called unwrap on none" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`compress … | true`: quiet, also when Python empties its buffers at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "compressor", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait() != 0
    assert said == ""
