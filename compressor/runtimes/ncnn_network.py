"""Run networks on ncnn: the one place that loads them and says how they are run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from compressor import extras
from compressor.machine import cores
from compressor.runtimes.inputs import draw_array
from compressor.runtimes.ncnn_params import SIZES, Layer, Sizes, read_layers

Array = np.ndarray[Any, Any]


def load_ncnn() -> ModuleType:
    """Import ncnn.

    Raises:
        UsageError: It is not installed; the next step names the extra.
    """
    return extras.load("ncnn", "ncnn models (--format, --backend)")


@dataclass(frozen=True)
class Input:
    """An input of a network: its name, its sizes without a batch, and NumPy's type."""

    name: str
    sizes: Sizes
    kind: Any


class NcnnNetwork:
    """A network that ncnn has loaded: one sample goes in, one sample comes out.

    It computes on the CPU, in float32.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load a network.

        Args:
            path: The .param file, beside which lies the .bin file.
            threads: Threads within one operator; default as many as there are processors.

        Raises:
            UsageError: ncnn is not installed.
            ValueError, OSError: It is no such file, or ncnn does not load it.
        """
        layers, weights = read_layers(path), path.with_suffix(".bin")
        if not weights.exists():
            raise ValueError(f"{weights.name} is not there")
        self.layers = layers
        self.inputs = [_input_of(each, layers) for each in layers if each.kind == "Input"]
        names = [name for each in layers for name in each.outputs if re.fullmatch(r"out\d+", name)]
        self.outputs = sorted(names, key=lambda name: int(name.removeprefix("out")))
        self._ncnn = load_ncnn()
        self._net = self._ncnn.Net()
        _set_options(self._net.opt, threads or cores())
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise ValueError("ncnn does not load it")

    def draw(self, seed: int = 0) -> list[Array]:
        """Draw random inputs."""
        rng = np.random.default_rng(seed)
        return [draw_array(each.sizes, each.kind, rng) for each in self.inputs]

    def prepare(self, given: Sequence[Array]) -> list[Any]:
        """Return inputs as ncnn holds them, in memory of their own."""
        arrays = [
            np.ascontiguousarray(array, each.kind).reshape(each.sizes)
            for each, array in zip(self.inputs, given, strict=True)
        ]
        return [self._ncnn.Mat(array).clone() for array in arrays]

    def run(self, given: Sequence[Any], names: Sequence[str] | None = None) -> list[Any]:
        """Compute from prepared inputs, and return results as ncnn holds them.

        Args:
            given: As `prepare` returns them.
            names: Results that are asked for, inner ones too; default the outputs.

        Raises:
            ValueError: ncnn cannot compute one.
        """
        extractor, found = self._net.create_extractor(), []
        extractor.set_light_mode(names is None)  # else it forgets what it needs no more
        for each, mat in zip(self.inputs, given, strict=True):
            extractor.input(each.name, mat)
        for name in self.outputs if names is None else names:
            failed, mat = extractor.extract(name)
            if failed or mat.empty():
                raise ValueError(f"ncnn cannot compute {name!r}")
            found.append(mat)
        return found

    def __call__(self, given: Sequence[Array]) -> list[Array]:
        """Compute the outputs of one sample, as arrays without the batch's dimension."""
        return [np.array(mat) for mat in self.run(self.prepare(given))]

    def sizes(self) -> dict[str, Sizes]:
        """Return the sizes of all that a call computes, by name."""
        names = [name for each in self.layers for name in each.outputs]
        inner = [name for name in names if name not in {each.name for each in self.inputs}]
        found = self.run(self.prepare(self.draw()), inner)
        own = {each.name: each.sizes for each in self.inputs}
        return own | {n: np.array(mat).shape for n, mat in zip(inner, found, strict=True)}


def _set_options(options: Any, threads: int) -> None:
    """Let a network be computed on the CPU, in float32, in place."""
    options.num_threads = threads
    options.use_vulkan_compute = False
    for numbers in ("fp16", "bf16"):
        for what in ("packed", "storage", "arithmetic"):
            if hasattr(options, f"use_{numbers}_{what}"):
                setattr(options, f"use_{numbers}_{what}", False)


def _input_of(layer: Layer, layers: Sequence[Layer]) -> Input:
    """Return what a file says of an input.

    Numbers are indices, which ncnn has in 32 bits, where they are looked up.
    """
    (name,) = layer.outputs
    sizes = tuple(size for key in SIZES if (size := layer.number(key)))
    if not sizes:
        raise ValueError(f"it does not say the sizes of {name}; compress and compress export do")
    return Input(name, sizes, np.int32 if _is_looked_up(name, layers) else np.float32)


def _is_looked_up(name: str, layers: Sequence[Layer]) -> bool:
    """Return whether a network reads rows of an embedding at the numbers of this name."""
    takers = [each for each in layers if name in each.inputs]
    return any(
        each.kind == "Embed"
        or (each.kind == "Split" and any(_is_looked_up(inner, layers) for inner in each.outputs))
        for each in takers
    )
