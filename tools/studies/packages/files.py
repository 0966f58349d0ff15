"""The networks that packages carry: what they are calibrated on, and how a file is judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import Tensor

from tools.studies.packages import file_types, rendering
from tools.studies.packages.boxes import Matches, find_boxes, match
from tools.studies.packages.carried import Carried
from tools.studies.packages.reading import characters_right, decode
from tools.studies.packages.rendering import Source

PICTURES, JUDGED = 248, 186
"""How many pictures a detector is calibrated on, and judged on."""
LINE_HEIGHT, READ_WIDTH, TURNED_WIDTH = 48, 320, 192
"""Of a line in pixels; narrower ones are filled up, wider ones are squeezed."""

Quality = dict[str, float]
"""Shares by the name of the measure, the telling one first."""


@dataclass(frozen=True)
class FileNetwork:
    """A network in an ONNX file of an installed package.

    Attributes:
        carried: The package and the file.
        make_samples: Makes what it is calibrated on, without labels, from the folder with the data.
        judge: Returns what a file is worth in ONNX Runtime on other samples, given that folder, the
            file and the original.
        root: The folder with the data.
    """

    carried: Carried
    make_samples: Callable[[Path], Sequence[Tensor]]
    judge: Callable[[Path, Path, Path], Quality]
    root: Path

    @property
    def path(self) -> Path:
        """Return where the file lies; the package must be there."""
        return self.carried.required()

    @property
    def samples(self) -> Sequence[Tensor]:
        """Make the samples to calibrate on."""
        return self.make_samples(self.root)

    def quality_of(self, file: Path) -> Quality:
        """Return what a file is worth in the original's place."""
        return self.judge(self.root, file, self.path)


def answers_of(file: Path, samples: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
    """Return the first output of a file's network for each sample, without the batch dimension."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [np.asarray(session.run(None, {name: x[None].numpy()})[0])[0] for x in samples]


def pixels_of(picture: Image.Image) -> Tensor:
    """Return a picture as these networks see it: blue, green, red in -1 to 1 [3, height, width]."""
    shades = np.asarray(picture, dtype=np.float32)[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(shades.transpose(2, 0, 1))) / 127.5 - 1


def line_of(picture: Image.Image, width: int) -> Tensor:
    """Return a line at its height, zeros to its right [3, LINE_HEIGHT, width]."""
    wanted = math.ceil(LINE_HEIGHT * picture.width / picture.height)
    size = min(wanted, width), LINE_HEIGHT
    filled = torch.zeros(3, LINE_HEIGHT, width)
    filled[:, :, : size[0]] = pixels_of(picture.resize(size, Image.Resampling.BILINEAR))
    return filled


def _pictures(source: Source, count: int = PICTURES) -> list[tuple[Tensor, Any]]:
    numbers = source.numbers[:count]
    drawn = [rendering.draw_picture(source, number) for number in numbers]
    return [(pixels_of(picture), boxes) for picture, boxes in drawn]


def _lines(source: Source) -> list[tuple[Tensor, str]]:
    drawn = [rendering.draw_line(source, number) for number in source.numbers]
    return [(line_of(picture, READ_WIDTH), word) for picture, word in drawn]


def _lines_either_way(source: Source) -> list[tuple[Tensor, int]]:
    """Return lines, every other one turned by 180 degrees, and whether it is."""
    drawn = [(rendering.draw_line(source, number)[0], number % 2) for number in source.numbers]
    turned = [(line.rotate(180 * is_turned), is_turned) for line, is_turned in drawn]
    return [(line_of(line, TURNED_WIDTH), is_turned) for line, is_turned in turned]


def _calibration(
    make: Callable[[Source], Sequence[tuple[Tensor, Any]]], root: Path
) -> list[Tensor]:
    return [sample for sample, _ in make(rendering.calibration(root))]


def judge_boxes(root: Path, file: Path, _: Path) -> Quality:
    """Return F1, precision and recall over the boxes of all pictures."""
    pictures, there = zip(*_pictures(rendering.judging(root), JUDGED), strict=True)
    found = [find_boxes(maps[0]) for maps in answers_of(file, pictures)]
    matches = sum(map(match, found, there), Matches())
    return {"F1": matches.f1, "precision": matches.precision, "recall": matches.recall}


def judge_reading(root: Path, file: Path, original: Path) -> Quality:
    """Return the share of symbols that is right, and of whole words."""
    lines, words = zip(*_lines(rendering.judging(root)), strict=True)
    symbols = symbols_of(original)
    read = [decode(scores, symbols) for scores in answers_of(file, lines)]
    whole = sum(map(str.__eq__, read, words)) / len(words)
    return {"characters": characters_right(read, words), "whole words": whole}


def symbols_of(file: Path) -> list[str]:
    """Return what the classes of a recogniser stand for, but for the first, which is nothing."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    said: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    return [*said["character"].splitlines(), " "]


def judge_directions(root: Path, file: Path, _: Path) -> Quality:
    """Return the share of lines whose direction is told."""
    lines, turned = zip(*_lines_either_way(rendering.judging(root)), strict=True)
    right = [
        scores.argmax() == t for scores, t in zip(answers_of(file, lines), turned, strict=True)
    ]
    return {"accuracy": float(np.mean(right))}


def _files(_: Path) -> list[Tensor]:
    return [file_types.bytes_of(file) for file in file_types.draw_files(0)]


def judge_types(_: Path, file: Path, original: Path) -> Quality:
    """Return the share of files with the original's answer, and of those whose suffix is right."""
    names = json.loads((original.parent / "config.min.json").read_text())["target_labels_space"]
    drawn = file_types.draw_files(1)
    samples = [file_types.bytes_of(each) for each in drawn]
    said, first = ([a.argmax() for a in answers_of(f, samples)] for f in (file, original))
    certain = [
        names[answer] == file_types.TRUTH[each.suffix]
        for each, answer in zip(drawn, said, strict=True)
        if each.suffix in file_types.TRUTH
    ]
    return {"same answer": float(np.equal(said, first).mean()), "suffix": float(np.mean(certain))}


_rapidocr = partial(Carried, "rapidocr-onnxruntime", "rapidocr_onnxruntime", writer="paddle2onnx")

FILES: Mapping[str, Callable[[Path], FileNetwork]] = {
    "PP-OCRv4 detector": partial(
        FileNetwork,
        _rapidocr("models/ch_PP-OCRv4_det_infer.onnx"),
        partial(_calibration, _pictures),
        judge_boxes,
    ),
    "PP-OCRv4 recogniser": partial(
        FileNetwork,
        _rapidocr("models/ch_PP-OCRv4_rec_infer.onnx"),
        partial(_calibration, _lines),
        judge_reading,
    ),
    "PP-OCR directions": partial(
        FileNetwork,
        _rapidocr("models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
        partial(_calibration, _lines_either_way),
        judge_directions,
    ),
    "magika file types": partial(
        FileNetwork,
        Carried("magika", "magika", "models/standard_v3_3/model.onnx", writer="tf2onnx"),
        _files,
        judge_types,
    ),
}
"""Each by the name that tables give it, made from the folder with the data."""
