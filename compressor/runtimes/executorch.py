"""Open and start ExecuTorch programs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor import extras
from compressor.clock import Call, Clock, by_wall
from compressor.errors import UsageError
from compressor.files.format_table import EXECUTORCH, FORMATS
from compressor.machine import cores
from compressor.quiet import silence
from compressor.runtimes.failures import does_not_run, require_cpu
from compressor.runtimes.inputs import draw_array
from compressor.runtimes.ways import Way

RUNTIME, LABEL = "ExecuTorch", FORMATS[EXECUTORCH].label

ENTRY = "forward"
"""The method of a file that runs the network."""

SAYS_MOST = "compress_batch"
"""The method by which a file says how many samples a call takes at most."""


def load_part(part: str) -> Any:
    """Import a part of ExecuTorch.

    Raises:
        UsageError: ExecuTorch is not installed; the next step names the extra.
    """
    extras.load("executorch", "ExecuTorch programs (--format, --backend)")
    with silence():
        return importlib.import_module(f"executorch.{part}")


def open_program(path: Path) -> Any:
    """Load a file, whose network `load_network` makes ready.

    Raises:
        CompressorError: ExecuTorch cannot read it.
    """
    runtime = load_part("runtime").Runtime.get()
    try:
        return runtime.load_program(path)
    except Exception as error:  # its exceptions share no base but this one
        raise does_not_run(RUNTIME, error, path) from error


def load_network(program: Any, path: Path) -> Any:
    """Make a file's network ready to be run, in memory of its own.

    Raises:
        CompressorError: ExecuTorch lacks an operator of it.
    """
    try:
        return program.load_method(ENTRY)
    except Exception as error:  # its exceptions share no base but this one
        raise does_not_run(RUNTIME, error, path) from error


def constant(program: Any, name: str) -> Any:
    """Return what a file says by one of its methods; None where it has no such method."""
    with suppress(Exception):
        return program.load_method(name).execute(())[0]
    return None


def start(path: Path, way: Way, seed: int) -> tuple[Call, Clock]:
    """Start a file; the number of threads is set for the rest of this process."""
    require_cpu(RUNTIME, way)
    _use_threads(way.threads or cores())
    program = open_program(path)
    most = constant(program, SAYS_MOST)
    if most and way.batch > most:
        raise UsageError(
            f"the {LABEL} takes {most} sample{'s' if most > 1 else ''} a call at most",
            where=f"--batch {way.batch}",
            consequence="nothing was timed",
            next_step=f"give --batch {most} or less",
        )
    method, rng = load_network(program, path), np.random.default_rng(seed)
    given = draw(method.metadata, way.batch, most, rng)
    try:
        method.execute(given)
    except Exception as error:  # its exceptions share no base but this one
        raise does_not_run(RUNTIME, error, path) from error
    return lambda: method.execute(given), by_wall


def _use_threads(count: int) -> None:
    """Let networks that are opened from now on run on so many threads.

    Those that were opened before must not run again: they would use the threads that are gone.
    """
    library = load_part("extension.pybindings.portable_lib")
    if library._threadpool_get_thread_count() != count:
        library._unsafe_reset_threadpool(count)


_TYPES: Mapping[int, Any] = {
    0: np.uint8,
    1: np.int8,
    2: np.int16,
    3: np.int32,
    4: np.int64,
    5: np.float16,
    6: np.float32,
    7: np.float64,
    11: np.bool_,
}
"""ExecuTorch's numbers of types, which are PyTorch's own."""


def draw(meta: Any, batch: int, most: int | None, rng: np.random.Generator) -> list[Tensor]:
    """Draw a network's inputs, of so many samples where its batch is free (up to `most`)."""
    given = []
    for position in range(meta.num_inputs()):
        tensor = meta.input_tensor_meta(position)
        sizes = list(tensor.sizes())
        if most and sizes and sizes[0] == most:
            sizes[0] = batch
        given.append(torch.as_tensor(draw_array(sizes, _TYPES[tensor.dtype()], rng)))
    return given
