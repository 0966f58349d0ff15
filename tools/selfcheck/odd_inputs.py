"""Networks, checkpoints, data and options as the field has them: each is done, or refused clearly.

What is refused today may be done tomorrow, so no more is asked for than one of the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools import tiny
from tools.selfcheck.refusal import INPUT, OVER, BadInput
from tools.tiny import CHANNELS, CLASSES, SIDE, TinyNet, inputs, sequential

TINY = f"{tiny.__file__}:TinyNet"
NETWORKS = (Path(__file__).parent / "odd_networks.py").read_text(encoding="utf-8")
"""Classes with one odd thing each, which a user's file holds."""

Make = Callable[[Path], object]


def _networks(folder: Path) -> None:
    (folder / "nets.py").write_text(NETWORKS, encoding="utf-8")


def _odd(name: str, *arguments: str, make: Make = _networks, model: str = "net.pt") -> BadInput:
    """No widths are measured for it."""
    return BadInput(name, (model, *arguments, "--round-to", "1", *OVER), (), make, is_odd=True)


def _network(name: str, title: str, *arguments: str) -> BadInput:
    return _odd(title, *(arguments or INPUT), model=f"nets.py:{name}")


_CLASSES = {
    "Logarithm": "network that begins with a logarithm",
    "NotANumber": "outputs that are no number",
    "Infinite": "outputs that are infinite",
    "Tiny": "outputs of 1e-12",
    "Constant": "outputs that are constant",
    "Complex": "complex outputs",
    "Whole": "whole numbers as output",
    "Named": "a NamedTuple as output",
    "Maximum": "torch.max's result as output",
    "Data": "a dataclass as output",
    "Nothing": "no output",
    "Words": "a text as output",
    "Lazily": "a generator as output",
    "Slashes": "modules with / in their names",
    "Empty": "empty and expanded buffers",
    "WeightNorm": "weight norm",
    "SpectralNorm": "spectral norm",
    "Orthogonal": "an orthogonal parametrisation",
    "Masked": "masks of torch.nn.utils.prune",
    "Half": "half precision",
    "BFloat": "bfloat16",
    "Double": "double precision",
    "Mixed": "two types of numbers",
    "Frozen": "frozen parameters",
    "Hooked": "a hook that keeps activations",
    "Locked": "an attribute that cannot be copied",
    "Itself": "a forward that calls itself",
    "Raises": "a forward that raises",
    "Exits": "a forward that leaves the program",
    "Hungry": "a forward that asks for more memory than there is",
    "Overwrites": "a forward that changes its input",
    "Item": "a number taken out of a tensor",
    "Branch": "a branch on values",
    "Loop": "a loop as long as data decide",
    "Drops": "dropout in evaluation",
    "Lazy": "layers that have no shapes yet",
    "Meta": "weights on the meta device",
    "Parameterless": "no parameters",
    "Compiled": "a compiled wrapper",
    "Parallel": "DataParallel",
    "Scripted": "a scripted part",
    "Sparse": "sparse weights",
    "Missing": "a __getattr__ without end",
}
NETS = [
    *(_network(name, title) for name, title in _CLASSES.items()),
    _network("Scaled", "a number as input", "--input", f"1x3x{SIDE}x{SIDE}", "--input", "1"),
    _network("Packed", "packed sequences", "--input", "2x5x3", "--input", "2:int64"),
    _network("Flat", "regression with one number per sample"),
]


# -- checkpoints -----------------------------------------------------------------------------------


def _checkpoint(content: Callable[[dict[str, Any]], Any]) -> Make:
    """What a training script leaves of the tiny network."""
    return lambda folder: torch.save(content(TinyNet().state_dict()), folder / "net.pt")


def _optimizer(state: dict[str, Any]) -> dict[str, Any]:
    network = TinyNet()
    optimizer = torch.optim.Adam(network.parameters())
    sum(p.sum() for p in network.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return optimizer.state_dict()


def _prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state.items()}


_CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "optimizer first": lambda s: {"optimizer": _optimizer(s), "model": s},
    "optimizer alone": _optimizer,
    "a pair of networks": lambda s: {
        "generator": s,
        "discriminator": TinyNet(12).state_dict(),
    },
    "averaged weights beside plain": lambda s: {"model": s, "model_ema": s, "epoch": 3},
    "Lightning": lambda s: {
        "state_dict": _prefixed("model.", s) | {"loss.weight": torch.ones(4)},
        "optimizer_states": [_optimizer(s)],
        "hyper_parameters": {"lr": 0.1},
    },
    "SWA": lambda s: _prefixed("module.", s) | {"n_averaged": torch.tensor(3)},
    "one tensor too many": lambda s: {**s, "extra": torch.ones(2)},
    "one tensor missing": lambda s: {k: v for k, v in s.items() if k != "head.bias"},
    "numbers as names": lambda s: dict(enumerate(s.values())),
    "half types": lambda s: {n: t.half() if t.is_floating_point() else t for n, t in s.items()},
    "weights that are complex": lambda s: {
        n: t.to(torch.complex64) if t.is_floating_point() else t for n, t in s.items()
    },
    "a list of state dicts": lambda s: [s, s],
    "None": lambda s: None,
    "nested very deep": lambda s: {"a": {"b": {"c": {"d": {"model": s}}}}},
}  # fmt: skip
CHECKPOINTS = [
    *(
        _odd(f"checkpoint: {name}", "--factory", TINY, *INPUT, make=_checkpoint(content))
        for name, content in _CHECKPOINTS.items()
    ),
    *(
        _odd(
            f"a checkpoint's --weights-key {key}", "--factory", TINY, "--weights-key", key, *INPUT,
            make=_checkpoint(_CHECKPOINTS["optimizer first"]),
        )
        for key in ("ema", "model", "optimizer", "model.stem", "")
    ),
    *(
        _odd(
            f"--ignore-unexpected {glob}", "--factory", TINY, "--ignore-unexpected", glob, *INPUT,
            make=_checkpoint(_CHECKPOINTS["one tensor too many"]),
        )
        for glob in ("ext*", "nothing", "[")
    ),
    _odd("TorchScript, trusted", "--trust-pickle", *INPUT, model="net.ts",
         make=lambda f: torch.jit.trace(sequential().eval(), inputs()).save(str(f / "net.ts"))),
]  # fmt: skip


# -- data ------------------------------------------------------------------------------------------


def _arrays(folder: Path, labels: Any = None, count: int = 24, dtype: Any = np.uint8) -> None:
    shape = (count, SIDE, SIDE, CHANNELS)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    arrays = {"images": images} | ({} if labels is None else {"labels": labels})
    np.savez(folder / "data.npz", **arrays)


def _file(name: str, content: bytes) -> Make:
    return lambda folder: (folder / name).write_bytes(content)


_ARRAYS: dict[str, Make] = {
    "no labels": _arrays,
    "labels that are numbers": partial(_arrays, labels=np.linspace(0, 1, 24, dtype=np.float32)),
    "labels that are words": partial(_arrays, labels=np.array(["cat", "dog"] * 12)),
    "labels in rows": partial(_arrays, labels=np.eye(CLASSES, dtype=np.float32)[np.arange(24) % 4]),
    "one sample": partial(_arrays, labels=np.zeros(1, np.int64), count=1),
    "images that are no bytes": partial(_arrays, labels=np.arange(24) % 4, dtype=np.float32),
}
_FILES = {
    "text": ("notes.txt", b"this is a text\n" * 9),
    "a table of text": ("data.csv", b"a,b\n1,2\n"),
    "an empty file": ("data.npy", b""),
    "a model": ("net.pt", None),
}
_DATASETS = ("Unequal", "Dictionaries", "NoTargets", "Nones", "NoLength", "Endless", "Failing",
             "NotNumbers", "Infinities")  # fmt: skip
DATA = [
    *(_odd(f"data: {name}", "--data", "data.npz", make=make) for name, make in _ARRAYS.items()),
    *(
        _odd(f"data: {name}", *INPUT, "--data", file,
             make=_file(file, content) if content is not None else _networks)
        for name, (file, content) in _FILES.items()
    ),
    *(
        _odd(f"dataset: {name}", *INPUT, "--data", f"nets.py:{name}")
        for name in _DATASETS
    ),
    _odd("data: one number per sample, the usual metric", "--data", "data.npz",
         model="nets.py:Flat",
         make=lambda f: (_networks(f), _arrays(f, labels=np.arange(24) % CLASSES))),
    _odd("data: targets between 0 and 1, the usual metric", "--data", "nets.py:Numbers",
         model="nets.py:Flat"),
]  # fmt: skip


# -- options and commands --------------------------------------------------------------------------


def _transformers_folder(folder: Path) -> None:
    (folder / "bert").mkdir()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9,
             "intermediate_size": 8}  # fmt: skip
    config = json.dumps({"model_type": "bert", **sizes})
    (folder / "bert" / "config.json").write_text(config, encoding="utf-8")


def _written(*arguments: str) -> BadInput:
    return BadInput(" ".join(arguments), arguments, (), _networks, is_odd=True)


def _kept(name: str) -> BadInput:
    arguments = (*INPUT, "--keep-parametrisations")
    return _odd(f"--keep-parametrisations of {name}", *arguments, model=f"nets.py:{name}")


OPTIONS = [
    _odd("a transformers folder without hf:", make=_transformers_folder, model="bert"),
    _odd("an empty transformers folder with hf:", make=_transformers_folder, model="hf:bert"),
    *(_odd(" ".join(a), *INPUT, *a) for a in (
        ("--latency-table", "out"), ("--use", "out"),
        ("--of", "latency", "--latency-table", "data.npz"), ("--metric", "no"),
        ("--loss", "no.py:f"),
        ("--steps", "3", "--ratio", "0.01"), ("--max-drop", "1"), ("--layer-ratio", "[=0.5"),
        ("--format", "tflite"), ("--format", "onnx,,pt2"), ("--format", ""),
        ("--memory", "1k"), ("--memory", "much"), ("--memory", "-2G"), ("--memory", "nan"),
        ("--weights-key", "model"), ("--ignore-unexpected", "*"),
    )),
    *(_kept(model) for model in ("SpectralNorm", "WeightNorm", "Masked", "Logarithm")),
    _odd("--format onnx for what ONNX has no words for", *INPUT, "--format", "onnx",
         model="nets.py:NoOnnx"),
    _odd("--memory that is too small for the data", "--data", "nets.py:NoTargets", "--memory", "1M",
         *INPUT),
    _odd("--weights-key of a factory without weights", *INPUT, "--weights-key", "model",
         model=TINY),
    _odd("--ignore-unexpected of a factory without weights", *INPUT, "--ignore-unexpected", "*",
         model=TINY),
    *(_written("export", *a) for a in (
        ("out", "--half"), ("nowhere", "--half"),
    )),
    *(_written("net.pt", *INPUT, "--plan", plan, *OVER) for plan in ("out", "net.pt")),
    _written("bench", "net.pt", "data.npz"),
    _written("bench", "out"),
    _written("compare", "out", "nowhere"),
    _written("sensitivity", "nets.py:NotANumber", *INPUT, "--out", "new"),
    _written("inspect", "nets.py:Complex", *INPUT),
]  # fmt: skip

ODD_INPUTS = [*NETS, *CHECKPOINTS, *DATA, *OPTIONS]
