"""What a command is given is told by its content, and refused with the command that takes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor
from compressor.cli import main
from compressor.errors import UsageError
from compressor.loading.given import (
    Given,
    ModelSpec,
    OnnxFile,
    ResultFolder,
    RuntimeFile,
    open_result,
    recognise,
    require_model,
)
from compressor.options import ModelOptions
from compressor.run import footprints
from compressor.studies.bench.entrants import open_entrant


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result's folder."""
    folder = tmp_path_factory.mktemp("made") / "result"
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(footprints, "LATENCY_SECONDS", 0.05)
        compressor.compress(network, torch.randn(2, 6), 0.5, round_to=1).save(folder)
    return folder


def _onnx_by_another_name(made: Path, home: Path) -> Path:
    return Path(shutil.copyfile(made / "model.onnx", home / "net.bin"))


def _text_called_onnx(made: Path, home: Path) -> Path:
    (home / "net.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    return home / "net.onnx"


def _program_called_onnx(made: Path, home: Path) -> Path:
    return Path(shutil.copyfile(made / "model.pt2", home / "net.onnx"))


def _text(home: Path, text: str) -> Path:
    (home / "file").write_text(text)
    return home / "file"


KINDS: list[tuple[Callable[[Path, Path], Path], type[Given]]] = [
    (lambda made, home: made, ResultFolder),
    (lambda made, home: home, ModelSpec),
    (_onnx_by_another_name, OnnxFile),
    (_text_called_onnx, ModelSpec),
    (_program_called_onnx, ModelSpec),
    (lambda made, home: home / "nothing.onnx", ModelSpec),
    (
        lambda made, home: _text(home, '<?xml version="1.0"?>\n<net name="a" version="11">'),
        RuntimeFile,
    ),
    (lambda made, home: _text(home, '<?xml version="1.0"?>\n<svg>'), ModelSpec),
    (lambda made, home: _text(home, "7767517\n2 1\n"), RuntimeFile),
    (lambda made, home: _text(home, "8\n\0\0ET12\0"), RuntimeFile),
]


@pytest.mark.parametrize(("give", "kind"), KINDS)
def test_content_tells_what_is_given(
    give: Callable[[Path, Path], Path], kind: type[Given], made: Path, tmp_path: Path
) -> None:
    assert type(recognise(str(give(made, tmp_path)))) is kind


def test_a_folder_of_transformers_is_a_model_even_with_an_onnx_file(
    made: Path, tmp_path: Path
) -> None:
    shutil.copyfile(made / "model.onnx", tmp_path / "model.onnx")
    assert isinstance(recognise(str(tmp_path)), ResultFolder)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert isinstance(recognise(str(tmp_path)), ModelSpec)


def test_bench_goes_by_content(made: Path, tmp_path: Path) -> None:
    named_bin = _onnx_by_another_name(made, tmp_path)
    found = open_entrant(str(named_bin), tmp_path / "a", ModelOptions())
    assert found.files == {"onnx": named_bin}
    program = _program_called_onnx(made, tmp_path)
    found = open_entrant(str(program), tmp_path / "b", ModelOptions(), ("torch",))
    assert set(found.files) == {"onnx", "pt2"}


COMMANDS = [
    (["sensitivity", "result"], ("result is a folder that compress has written", "model.pt2")),
    (["result"], ("result is a folder that compress has written", "bench, compare and export")),
    (["export", "net.bin"], ("this is an ONNX file", "compress bench times ONNX files")),
    (["export", "model.xml"], ("this is an OpenVINO model", "times OpenVINO models")),
    (["compare", "net.onnx"], ("this is a text file", "give the folder of a result")),
    (["bench", "net.onnx"], ("net.onnx is a text file", "no network can be read from it")),
]


@pytest.mark.parametrize(("words", "says"), COMMANDS)
def test_a_command_says_what_it_was_given_and_what_takes_it(
    words: list[str],
    says: tuple[str, str],
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "result")
    _onnx_by_another_name(made, tmp_path)
    _text_called_onnx(made, tmp_path)
    Path("model.xml").write_text('<net name="a" version="11">')
    before = sorted(tmp_path.rglob("*"))
    assert main(words) in (1, 2)
    error = " ".join(capsys.readouterr().err.split())
    assert all(part in error for part in says)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_passes_and_a_factory_is_called_one() -> None:
    require_model("torchvision:resnet18")
    with pytest.raises(UsageError, match="this is a factory"):
        open_result("torchvision:resnet18", "export")
