"""A format in one file: weights of a small network as .npz, run by NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.clock import Call, Clock, by_wall
from compressor.errors import CompressorError
from compressor.files.format_table import Format
from compressor.formats.job import Counted, Job, Methods, Outcome
from compressor.records import Trace
from compressor.runtimes.ways import Way
from compressor.slicing import as_module
from compressor.slicing.compare import Reference, require_agreement

FILE = "model.npz"
ROW = Format((FILE,), "toy file", "toy_format", "toy_format", {"toy": "NumPy, a toy"})
SCALE = 1.0
"""What weights are multiplied by when they are written; all but 1 is wrong."""


class ByNumPy(nn.Module):
    """Runs linear layers with a ReLU between them, as the file holds them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        with np.load(path) as stored:
            self.arrays = list(stored.values())

    def forward(self, x: Tensor) -> Tensor:
        values = x.numpy()
        for number in range(0, len(self.arrays), 2):
            values = np.maximum(values, 0) if number else values
            values = values @ self.arrays[number].T + self.arrays[number + 1]
        return torch.from_numpy(values)


def save(program: Any, path: Path) -> None:
    arrays = [tensor.detach().numpy() * np.float32(SCALE) for tensor in program.state_dict.values()]
    if any(array.ndim > 2 for array in arrays):
        raise CompressorError("a toy file holds linear layers alone")
    np.savez(path, *arrays)


def attempt(traced: Trace, folder: Path) -> None:
    save(traced.program, folder / FILE)


def write(job: Job) -> Outcome:
    save(job.program, job.folder / FILE)
    reference = Reference(as_module(job.program), job.traced)
    worst = reference.worst_difference(ByNumPy(job.folder / FILE))
    require_agreement(reference, worst, "the program and its toy file")
    return Outcome(worst.size)


def start(path: Path, way: Way, seed: int) -> tuple[Call, Clock]:
    module = ByNumPy(path)
    x = torch.randn(way.batch, module.arrays[0].shape[1])
    return lambda: module(x), by_wall


def count(path: Path) -> Counted:
    sizes = [array.size for array in ByNumPy(path).arrays]
    return Counted(sum(sizes[::2]), sum(sizes))


METHODS = Methods(attempt, write, count)
