"""Turn a program's file, or a module, into a call on inputs that stay the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from compressor.clock import Call
from compressor.graph.programs.drawing import random_inputs
from compressor.loading import load_program_file
from compressor.slicing import as_module
from compressor.studies.bench.ways import Way
from compressor.torch_calls import prepared


def call_of(file: str, way: Way, seed: int = 0) -> Call:
    """Load a .pt2 file, and return a function that runs it once, on random inputs, in this way."""
    program = load_program_file(Path(file))
    args, kwargs = random_inputs(program, way.batch, "cpu", seed)
    return run_in(way, as_module(program), args, kwargs)


def run_in(way: Way, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """Move a module to the way's device and precision, in place, and return a call of it."""
    how = way.backend.removeprefix("torch").removeprefix("-")
    return prepared(module, args, kwargs, way.device, way.precision, how)
