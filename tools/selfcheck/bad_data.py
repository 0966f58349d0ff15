"""Inputs and data that cannot be read or don't fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tools.selfcheck.refusal import INPUT, OVER, USAGE, BadInput
from tools.tiny import CHANNELS, SIDE, write_samples


def _arrays(
    shape: tuple[int, ...], labels: Any = None, dtype: Any = np.uint8
) -> Callable[..., Any]:
    def make(folder: Path) -> None:
        given = np.zeros(shape[0], np.int64) if labels is None else labels
        np.savez(folder / "data.npz", images=np.zeros(shape, dtype), labels=given)

    return make


def _other_names(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.zeros(3), y=np.zeros(3))


def _empty_folders(folder: Path) -> None:
    (folder / "photos" / "cat").mkdir(parents=True)


def _no_picture(folder: Path) -> None:
    _empty_folders(folder)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (folder / "photos" / "cat" / name).write_bytes(b"no picture")


_OWN = """
def metric(outputs, target):
    return 1 / 0

def loss(outputs, target):
    raise ValueError("no loss today")

def samples():
    return 3
"""


def _own(folder: Path) -> None:
    (folder / "own.py").write_text(_OWN, encoding="utf-8")


_DATA = ("--data", "data.npz")
_IMAGES = (SIDE, SIDE, CHANNELS)

BAD_INPUTS = [
    BadInput("input of another shape", ("net.pt", "--input", "1x5x8x8", *OVER),
             ("1x5x8x8", "layer 0")),
    BadInput("input too small", ("net.pt", "--input", "1x3x1x1", *OVER), ("1x3x1x1",)),
    BadInput("input that is no shape", ("net.pt", "--input", "a picture", *OVER),
             ("a picture", "--input"), code=USAGE),
    BadInput("input of size 0", ("net.pt", "--input", "1x3x0x8", *OVER), ("1x3x0x8",),
             code=USAGE),
]  # fmt: skip
BAD_DATA = [
    *BAD_INPUTS,
    BadInput("labels out of range", ("net.pt", *_DATA, *OVER), ("label", "4 classes"),
             lambda f: write_samples(f / "data.npz", classes=9)),
    BadInput("labels below 0", ("net.pt", *_DATA, *OVER), ("label",),
             _arrays((9, *_IMAGES), np.full(9, -1))),
    BadInput("labels that are fewer", ("net.pt", *_DATA, *OVER), ("data.npz", "labels"),
             _arrays((9, *_IMAGES), np.zeros(5, np.int64))),
    BadInput("samples that do not fit", ("net.pt", *INPUT, *_DATA, *OVER),
             ("do not fit", "data.npz"), _arrays((9, 8, 8, 1))),
    BadInput("samples without a channel", ("net.pt", *INPUT, *_DATA, *OVER), ("data.npz",),
             _arrays((9, 8, 8))),
    BadInput("samples of another type", ("net.pt", *INPUT, *_DATA, *OVER), ("data.npz",),
             _arrays((9, *_IMAGES), dtype=np.complex64)),
    BadInput("no samples", ("net.pt", *INPUT, *_DATA, *OVER), ("data.npz",),
             _arrays((0, *_IMAGES))),
    BadInput("arrays of other names", ("net.pt", *INPUT, *_DATA, *OVER), ("data.npz",),
             _other_names),
    BadInput("pickled arrays", ("net.pt", *INPUT, *_DATA, *OVER), ("data.npz",),
             _arrays((9, *_IMAGES), dtype=object)),
    *(
        BadInput(f"{option} that is not there", ("net.pt", *INPUT, option, "no.npz", *OVER),
                 ("no.npz",), code=USAGE)
        for option in ("--data", "--test")
    ),
    BadInput("data that cannot be read", ("net.pt", *INPUT, *_DATA, *OVER), ("data.npz",),
             lambda f: (f / "data.npz").write_bytes(b"PK\x03\x04 no archive")),
    BadInput("half of the data", ("net.pt", *INPUT, *_DATA, *OVER), ("data.npz",),
             lambda f: (f / "data.npz").write_bytes((f / "data.npz").read_bytes()[:9000])),
    BadInput("folder of data without pictures", ("net.pt", *INPUT, "--data", "photos", *OVER),
             ("photos", "sub-folder"), _empty_folders),
    BadInput("picture that is none", ("net.pt", *INPUT, "--data", "photos", *OVER),
             (".jpg", "not a readable image"), _no_picture),
    BadInput("callable that gives no data", ("net.pt", *INPUT, "--data", "own.py:samples", *OVER),
             ("own.py:samples",), _own, code=USAGE),
    BadInput("training without data", ("net.pt", *INPUT, "--epochs", "1", *OVER), ("--data",),
             code=USAGE),
    BadInput("metric that fails", ("net.pt", *_DATA, "--metric", "own.py:metric", *OVER),
             ("ZeroDivisionError",), _own),
    BadInput("loss that fails",
             ("net.pt", *_DATA, "--criterion", "taylor", "--loss", "own.py:loss", *OVER),
             ("no loss today",), _own),
    BadInput("loss that is not there", ("net.pt", *_DATA, "--loss", "own.py:no", *OVER),
             ("no",), _own, USAGE),
]  # fmt: skip
