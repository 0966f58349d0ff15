"""The format ExecuTorch: made of the program, computed by XNNPACK, run by its own runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from compressor.errors import CompressorError
from compressor.files.format_table import EXECUTORCH, FORMATS
from compressor.formats.job import Counted, Job, Methods, Outcome
from compressor.formats.onnx_file import capture_for
from compressor.formats.other_runtimes import does_not_take, verifier
from compressor.formats.output import write
from compressor.formats.program_file import count_program
from compressor.formats.verification import Array, Opened, Run, to_array
from compressor.formats.verifying import compare_file, inputs_to_compare
from compressor.quiet import silence
from compressor.records import Trace
from compressor.runtimes.executorch import (
    LABEL,
    RUNTIME,
    SAYS_MOST,
    constant,
    draw,
    load_network,
    load_part,
    open_program,
)
from compressor.runtimes.failures import does_not_run

_FILE = FORMATS[EXECUTORCH].file

MOST = 32
"""Samples of a call at most, where the batch is free: memory is planned for so many in advance."""

_SAYS_MACS, _SAYS_PARAMS = "compress_macs", "compress_params"
"""Methods by which a file says what XNNPACK's part of it hides: multiply-adds of one sample, and
parameters."""


# -- written -------------------------------------------------------------------------------------


def convert(program: ExportedProgram, path: Path, says: Mapping[str, Any], *, is_free: bool) -> int:
    """Write a program as an ExecuTorch program, whose operators XNNPACK computes where it can.

    Args:
        program: The program; not changed.
        path: The .pte file.
        says: Further methods of the file: name -> the constant that it returns.
        is_free: Whether the program's batch is free. The file then takes up to `MOST` samples, or
            one, where it cannot be written so.

    Returns:
        The most samples of a call; 0 where the batch is the program's own.

    Raises:
        CompressorError: ExecuTorch has no equivalent of an operator, or the file cannot be written.
    """
    failures: list[Exception] = []
    for most in (MOST, 1) if is_free else (0,):
        try:
            captured = capture_for(program, most) if most else program
            write(path, _lower(captured, {**says, SAYS_MOST: most}))
            if most > 1:
                _check_batch(path, most)
        except Exception as error:  # its exceptions share no base but this one
            failures.append(error)
        else:
            return most
    raise does_not_take(RUNTIME, LABEL, failures[-1], path) from failures[-1]


def _check_batch(path: Path, most: int) -> None:
    """Check that a file takes up to so many samples: of some networks ExecuTorch loses the bound.

    Raises:
        ValueError: It takes another number.
        RuntimeError: It does not take one.
    """
    method = load_network(open_program(path), path)
    inputs = [method.metadata.input_tensor_meta(i) for i in range(method.metadata.num_inputs())]
    if most not in {next(iter(each.sizes()), 0) for each in inputs}:
        raise ValueError(f"memory is not planned for {most} samples")
    method.execute(draw(method.metadata, 1, most, np.random.default_rng(0)))


def _lower(program: ExportedProgram, says: Mapping[str, Any]) -> bytes:
    partitioner = load_part("backends.xnnpack.partition.xnnpack_partitioner").XnnpackPartitioner
    lower = load_part("exir").to_edge_transform_and_lower
    with silence(), torch.no_grad():
        made = lower(program, partitioner=[partitioner()], constant_methods=dict(says))
        return bytes(made.to_executorch().buffer)


def _says_of(program: ExportedProgram) -> dict[str, int]:
    counted = count_program(program)
    return {_SAYS_MACS: counted.macs, _SAYS_PARAMS: counted.params}


def _attempt(traced: Trace, folder: Path) -> None:
    says, is_free = _says_of(traced.program), traced.batch_symbol is not None
    convert(traced.program, folder / _FILE, says, is_free=is_free)
    load_network(open_program(folder / _FILE), folder / _FILE)


def _write(job: Job) -> Outcome:
    path, is_free = job.folder / _FILE, job.traced.batch_symbol is not None
    says = _says_of(job.program) | {name.replace(".", "_"): t for name, t in job.metadata.items()}
    most = convert(job.program, path, says, is_free=is_free)
    inputs = inputs_to_compare(job.traced, job.real, free_batch=most > 1)

    def write_anew(target: Path) -> None:
        convert(job.program, target, {}, is_free=is_free)

    worst = compare_file(job.program, inputs, path, write_anew, verified=verifier(_open))
    how = {0: "", 1: "it takes one sample a call"}.get(
        most, f"it takes up to {most} samples a call"
    )
    return Outcome(worst, how)


# -- compared ------------------------------------------------------------------------------------


def as_function(program: Any, path: Path) -> Run:
    """Return a program as a function of inputs, which it knows by their order alone."""
    method = load_network(program, path)

    def run(feeds: Mapping[str, Any]) -> list[Array]:
        given = [torch.as_tensor(to_array(value)).contiguous() for value in feeds.values()]
        try:
            outputs = method.execute(given)
        except Exception as error:  # its exceptions share no base but this one
            raise does_not_run(RUNTIME, error, path) from error
        return [to_array(output.clone()) for output in outputs]  # the memory is used again

    return run


def _open(path: Path) -> Opened:
    return Opened(path, as_function(open_program(path), path), LABEL, RUNTIME)


# -- counted -------------------------------------------------------------------------------------


def _count(path: Path) -> Counted:
    """Return what the file says of itself: XNNPACK's part of it cannot be looked into."""
    program = open_program(path)
    macs, params = (constant(program, name) for name in (_SAYS_MACS, _SAYS_PARAMS))
    if macs is None or params is None:
        raise CompressorError(
            f"the {LABEL} does not say how many multiply-adds it takes",
            where=str(path),
            consequence="nothing was timed",
            next_step="give a file that compress or compress export wrote",
        )
    return Counted(int(macs), int(params))


METHODS = Methods(_attempt, _write, _count)
