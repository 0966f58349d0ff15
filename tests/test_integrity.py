"""What a report tells of must be what lies beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from compressor.cli import main
from compressor.errors import CompressorError
from compressor.files.integrity import check_files, hashed_names, hashes_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in hashed_names():
        (tmp_path / name).write_text(name)
    (tmp_path / "report.json").write_text(json.dumps({"files": hashes_of(tmp_path)}))
    return tmp_path


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-1])


def changed(path: Path) -> None:
    path.write_text(path.read_text().swapcase())


def test_an_untouched_folder_passes(folder: Path) -> None:
    check_files(folder, hashed_names())


@pytest.mark.parametrize("name", hashed_names())
@pytest.mark.parametrize("damage", [cut, changed, Path.unlink])
def test_what_is_not_the_reports_is_named(
    folder: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(folder / name)
    with pytest.raises(CompressorError, match=name):
        check_files(folder, hashed_names())
    check_files(folder, set(hashed_names()) - {name})


@pytest.mark.parametrize("report", ["", "{}", '{"files": 3}', '{"files": ["a"]}'])
def test_a_report_without_hashes_checks_nothing(folder: Path, report: str) -> None:
    (folder / "report.json").write_text(report)
    check_files(folder, hashed_names())


@pytest.mark.parametrize("command", ["bench", "compare"])
def test_commands_refuse_an_onnx_file_that_was_changed(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(folder / "model.onnx")
    assert main([command, str(folder)]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "model.onnx is not the file that compress wrote" in error
    assert "SHA-256" in error


AGAIN = {"sha256": {"model.onnx": sha256(b"again").hexdigest()}}


@pytest.mark.parametrize("entry", [AGAIN, {}, 3])
def test_what_was_exported_again_is_known_by_its_own_hash(folder: Path, entry: object) -> None:
    (folder / "model.onnx").write_text("again")
    (folder / "exports.json").write_text(json.dumps({"files": {"model.onnx": entry}}))
    if entry == AGAIN:
        check_files(folder, hashed_names())
    else:
        with pytest.raises(CompressorError, match=r"model\.onnx"):
            check_files(folder, hashed_names())
