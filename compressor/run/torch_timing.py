"""Programs timed against each other as PyTorch runs them: on a GPU as CUDA graphs."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch.export import ExportedProgram

from compressor.clock import Call
from compressor.errors import CompressorError
from compressor.graph.programs.drawing import random_inputs
from compressor.latency.networks import Timed, measure_calls
from compressor.slicing import as_module
from compressor.torch_calls import TORCH, check_cuda, computing_in, prepare


def measure_programs(
    programs: Mapping[str, ExportedProgram],
    *,
    threads: int,
    batch: int,
    device: str,
    precision: str,
    seconds: float,
) -> dict[str, Timed]:
    """Time copies of programs; they take turns, as in `measure_turns`.

    Args:
        device: "torch-cpu" or "torch-cuda".
        precision: A key of `torch_calls.DTYPES`.

    Raises:
        UsageError: PyTorch has no such device here.
        CompressorError: A program cannot be run there in these numbers.
    """
    if device.removeprefix(TORCH) != "cpu":
        check_cuda("--latency-on")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with computing_in(precision):
            calls = {
                name: _prepare(name, program, batch, device.removeprefix(TORCH), precision)
                for name, program in programs.items()
            }
            return measure_calls(
                calls, threads=threads, batch=batch, device=device, seconds=seconds
            )
    finally:
        torch.set_num_threads(before)


def _prepare(name: str, program: ExportedProgram, batch: int, device: str, precision: str) -> Call:
    module = copy.deepcopy(as_module(program))
    args, kwargs = random_inputs(program, batch, "cpu", 0)
    try:
        call = prepare(module, args, kwargs, device, precision, "" if device == "cpu" else "graphs")
        call()
    except Exception as error:  # whatever PyTorch raises
        raise CompressorError(
            f"PyTorch could not run the network on {device} in {precision}: {error}",
            where=name,
            consequence="its latency was not measured",
            next_step="try another --latency-precision, or --latency-on cpu",
        ) from error
    return call
