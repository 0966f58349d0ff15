"""MODELs that are none, that are damaged, or that would run code."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import compressor
from tools import tiny
from tools.selfcheck.damage import flip, truncate
from tools.selfcheck.refusal import INPUT, OVER, USAGE, BadInput
from tools.tiny import TinyNet, inputs, sequential, write_model

TINY = f"{tiny.__file__}:TinyNet"
MARK = "mark"

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


class Marks:
    """Pickled as a call that leaves a mark in the current folder."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return os.mkdir, (MARK,)


def _bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _saved(name: str, content: Callable[[], Any], **options: Any) -> Callable[[Path], object]:
    return lambda folder: torch.save(content(), folder / name, **options)


def _then(*makes: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        for each in makes:
            each(folder)

    return make


def _damaged(name: str, how: Callable[..., object], *given: Any) -> Callable[[Path], object]:
    return lambda folder: how(folder / name, *given)


def _weights(folder: Path, width: int = 8) -> None:
    save_file(TinyNet(width).state_dict(), folder / "net.safetensors")


def _integers(folder: Path) -> None:
    state = TinyNet().state_dict()
    state["head.weight"] = state["head.weight"].view(torch.int32)
    save_file(state, folder / "net.safetensors")


def _program(folder: Path) -> None:
    compressor.save(TinyNet(), inputs(), folder / "net.pt2")


def _hostile_program(folder: Path) -> None:
    _program(folder)
    evil = io.BytesIO()
    torch.save(Marks(), evil)
    with zipfile.ZipFile(folder / "net.pt2") as good:
        entries = {name: good.read(name) for name in good.namelist()}
    with zipfile.ZipFile(folder / "net.pt2", "w") as crafted:
        for name, content in entries.items():
            hit = "sample_inputs" in name and name.endswith(".pt")
            crafted.writestr(name, evil.getvalue() if hit else content)


def _marked() -> nn.Module:
    network = sequential()
    network.extra = Marks()
    return network


def _script(folder: Path) -> None:
    torch.jit.trace(sequential().eval(), inputs()).save(str(folder / "net.ts"))


def _not_finite(value: float) -> nn.Module:
    network = sequential()
    with torch.no_grad():
        network[3].weight[0, 0, 0, 0] = value
    return network


_FACTORY = ("--factory", TINY)
_HALF = {"a fifth": 0.2, "half": 0.5, "all but the end": 0.97}

FILES = [
    BadInput("wrong path", ("nett.pt", *OVER), ("nett.pt", "Did you mean net.pt"), code=USAGE),
    BadInput("no such folder", ("nets/a.pt", *OVER), ("no folder nets",), code=USAGE),
    BadInput("empty file", ("net.pt", *OVER), ("net.pt", "empty"), _bytes("net.pt", b"")),
    BadInput(
        "text", ("net.pt", *OVER), ("net.pt", "text"), _bytes("net.pt", b"this is a text\n" * 9)
    ),
    BadInput(
        "picture",
        ("net.pt", *OVER),
        ("net.pt", "unknown format"),
        _bytes("net.pt", b"\x89PNG\r\n\x1a\n" + bytes(99)),
    ),
    BadInput("HDF5", ("net.h5", *OVER), ("HDF5",), _bytes("net.h5", b"\x89HDF\r\n\x1a\n0")),
    BadInput("GGUF", ("net.gguf", *OVER), ("GGUF",), _bytes("net.gguf", b"GGUF" + bytes(9))),
    BadInput("list", ("net.pt", *OVER), ("no model",), _saved("net.pt", lambda: [1, 2, 3])),
    BadInput("empty state dict", ("net.pt", *OVER), ("no model",), _saved("net.pt", dict)),
    BadInput("folder", ("nets", *OVER), ("folder",), lambda f: (f / "nets").mkdir(), USAGE),
    BadInput("TorchScript", ("net.ts", *OVER), ("TorchScript", "compressor.save"), _script),
    BadInput("data as a model", ("data.npz", *OVER), ("NumPy",)),
]
DAMAGED = [
    *(
        BadInput(
            f"{name}, {part} of it", (name, *more, *OVER), (name,),
            _then(make, _damaged(name, truncate, share)),
        )
        for name, make, more in (
            ("net.pt", lambda folder: None, INPUT),
            ("net.safetensors", _weights, (*_FACTORY, *INPUT)),
            ("net.pt2", _program, ()),
        )
        for part, share in _HALF.items()
    ),
    BadInput("net.pt, a flipped weight", ("net.pt", *INPUT, *OVER), ("damaged", "data/"),
             lambda f: _flip_in(f / "net.pt", "data/0")),
    BadInput("net.pt, a flipped pickle", ("net.pt", *INPUT, *OVER), ("net.pt",),
             lambda f: _flip_in(f / "net.pt", "data.pkl")),
    BadInput("net.pt2, a flipped weight", ("net.pt2", *OVER), ("damaged", "weight"),
             _then(_program, lambda f: _flip_in(f / "net.pt2", "weight_0"))),
    BadInput("net.pt2, a flipped program", ("net.pt2", *OVER), ("damaged", "model.json"),
             _then(_program, lambda f: _flip_in(f / "net.pt2", "models/model.json"))),
    BadInput("safetensors, a flipped header", ("net.safetensors", *_FACTORY, *INPUT, *OVER),
             ("net.safetensors",), _then(_weights, _damaged("net.safetensors", flip, 0.02))),
]  # fmt: skip
WEIGHTS = [
    BadInput(
        "weights without a network", ("net.pt", *OVER), ("state dict", "--factory"),
        _saved("net.pt", lambda: TinyNet().state_dict()), USAGE,
    ),
    BadInput(
        "safetensors without a network", ("net.safetensors", *OVER), ("state dict", "--factory"),
        _weights, USAGE,
    ),
    BadInput(
        "weights of another network", ("net.pt", *_FACTORY, *OVER), ("stem.weight",),
        _saved("net.pt", lambda: TinyNet(width=6).state_dict()),
    ),
    BadInput(
        "safetensors of another network", ("net.safetensors", *_FACTORY, *OVER), ("stem.weight",),
        partial(_weights, width=6),
    ),
    BadInput(
        "--weights of another network", (TINY, "--weights", "net.safetensors", *INPUT, *OVER),
        ("stem.weight",), partial(_weights, width=6),
    ),
    BadInput(
        "weights of another type", ("net.safetensors", *_FACTORY, *INPUT, *OVER),
        ("head.weight", "int32"), _integers,
    ),
    BadInput(
        "--weights that are not there", (TINY, "--weights", "no.pt", *INPUT, *OVER), ("no.pt",),
        code=USAGE,
    ),
    BadInput(
        "--weights with a file", ("net.pt", "--weights", "net.pt", *OVER), ("--weights",),
        code=USAGE,
    ),
    BadInput(
        "--factory with a whole model", ("net.pt", *_FACTORY, *OVER), ("--factory", "no use"),
        code=USAGE,
    ),
    BadInput(
        "--factory with a factory", (TINY, *_FACTORY, *OVER), ("--factory", "too many"), code=USAGE
    ),
    BadInput("NaN", ("net.pt", *INPUT, *OVER), ("NaN", "3.weight"),
             _saved("net.pt", lambda: _not_finite(float("nan")))),
    BadInput("infinity", ("net.pt", *INPUT, *OVER), ("infinity", "3.weight"),
             _saved("net.pt", lambda: _not_finite(float("inf")))),
]  # fmt: skip
FACTORY = [
    *(
        BadInput(f"factory that {name}", (f"nets.py:{name}", *OVER), says,
                 lambda f: (f / "nets.py").write_text(FACTORIES), code)
        for name, says, code in (
            ("fails", ("the disk is on fire",), 1),
            ("wants", ("width", "--factory-arg"), USAGE),
            ("gives", ("str",), 1),
            ("leaves", ("SystemExit",), 1),
            ("lacks", ("lacks",), USAGE),
        )
    ),
    BadInput("factory file that is not there", ("no.py:build", *OVER), ("no.py",), code=USAGE),
    BadInput("factory file with an error", ("bad.py:build", *OVER), ("bad.py",),
             lambda f: (f / "bad.py").write_text("def build(:\n")),
    BadInput("unknown torchvision network", ("torchvision:resnet19", *OVER),
             ("resnet19", "resnet18"), code=USAGE),
    BadInput("unknown timm network", ("timm:resnet19x", *OVER), ("resnet19x",), code=USAGE),
    BadInput("module that is not there", ("no.such.module:build", *OVER), ("no",), code=USAGE),
    BadInput("unknown argument", (TINY, "--factory-arg", "depth=3", *OVER), ("depth",),
             code=USAGE),
    BadInput("argument that is no literal", (TINY, "--factory-arg", "width=", *OVER), ("width",),
             code=USAGE),
    BadInput("transformers folder that is not there", ("hf:nowhere", *OVER), ("nowhere",),
             code=USAGE),
    BadInput("transformers folder without a model", ("hf:out", *OVER), ("out",), code=USAGE),
]  # fmt: skip
HOSTILE = [
    BadInput("pickle that runs code", ("net.pt", *INPUT, *OVER), ("mkdir", "--trust-pickle"),
             _saved("net.pt", _marked)),
    BadInput("state dict that runs code", ("net.pt", *_FACTORY, *INPUT, *OVER),
             ("mkdir", "--trust-pickle"),
             _saved("net.pt", lambda: {"w": torch.ones(1), "x": Marks()})),
    BadInput("legacy file that runs code", ("net.pt", *INPUT, *OVER), ("mkdir", "--trust-pickle"),
             _saved("net.pt", _marked, _use_new_zipfile_serialization=False)),
    BadInput("plain pickle that runs code", ("net.pkl", *INPUT, *OVER), ("mkdir",),
             lambda f: (f / "net.pkl").write_bytes(pickle.dumps(Marks()))),
    BadInput("program that runs code", ("net.pt2", *OVER),
             ("would run code", "mkdir", "--trust-pickle"), _hostile_program),
    BadInput("--weights that run code", (TINY, "--weights", "w.pt", *INPUT, *OVER),
             ("mkdir", "--trust-pickle"), _saved("w.pt", lambda: {"x": Marks()})),
    BadInput("class of one's own", ("net.pt", *INPUT, *OVER), ("TinyNet", "--trust-pickle"),
             lambda f: write_model(f / "net.pt", TinyNet())),
]  # fmt: skip


def _flip_in(path: Path, entry: str) -> None:
    """A bit in the middle of an archive's entry, where it lies."""
    with zipfile.ZipFile(path) as archive:
        found = next(info for info in archive.infolist() if info.filename.endswith(entry))
    content = bytearray(path.read_bytes())
    name = len(found.filename)
    extra = int.from_bytes(content[found.header_offset + 28 : found.header_offset + 30], "little")
    content[found.header_offset + 30 + name + extra + found.file_size // 2] ^= 0x10
    path.write_bytes(bytes(content))


BAD_MODELS = [*FILES, *DAMAGED, *WEIGHTS, *FACTORY, *HOSTILE]
