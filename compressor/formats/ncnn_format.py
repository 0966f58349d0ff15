"""The format ncnn: made of an ONNX form of one sample, run on the CPU in float32, and counted."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from compressor.files.claimed import temporary_folder
from compressor.files.format_table import FORMATS, NCNN, ONNX
from compressor.formats.job import Counted, Job, Methods, Outcome
from compressor.formats.ncnn_conversion import (
    convert,
    ending_of,
    prepare_embeddings,
    refused,
    run_apart,
)
from compressor.formats.ncnn_counts import count_layers
from compressor.formats.onnx_file import export_onnx, routes_of
from compressor.formats.other_runtimes import cannot_be_read, verifier
from compressor.formats.verification import Array, Opened, Run, to_array
from compressor.formats.verifying import compare_file, inputs_to_compare
from compressor.records import Trace
from compressor.runtimes.failures import does_not_run
from compressor.runtimes.ncnn import LABEL, RUNTIME, open_network
from compressor.runtimes.ncnn_network import NcnnNetwork
from compressor.runtimes.ncnn_params import Sizes

_FILE = FORMATS[NCNN].file


# -- written -------------------------------------------------------------------------------------


def write_program(program: ExportedProgram, path: Path, symbol: str | None) -> list[Sizes]:
    """Write a program as an ncnn model of one sample, and see that ncnn survives a call.

    Args:
        program: The program; not changed.
        path: The .param file.
        symbol: The program's symbol for the batch size; None where that is fixed.

    Returns:
        The sizes of the program's outputs, with their batch of one.

    Raises:
        CompressorError: It cannot be written so, or ncnn cannot compute it.
    """
    routes = [
        replace(route, finish=prepare_embeddings)
        for route in routes_of(symbol)
        if not route.free_batch
    ]
    with temporary_folder() as made:
        source = made / FORMATS[ONNX].file
        export_onnx(program, source, batch_symbol=symbol, routes=routes)
        outputs = convert(source, path)
    sizes_in(path)
    return outputs


def _attempt(traced: Trace, folder: Path) -> None:
    write_program(traced.program, folder / _FILE, traced.batch_symbol)


def _write(job: Job) -> Outcome:
    path, symbol = job.folder / _FILE, job.traced.batch_symbol
    outputs = write_program(job.program, path, symbol)
    inputs = inputs_to_compare(job.traced, job.real, free_batch=False)

    def write(target: Path) -> None:
        write_program(job.program, target, symbol)

    def opened(file: Path) -> Opened:
        return Opened(file, as_function(open_network(file), file, outputs), LABEL, RUNTIME)

    worst = compare_file(job.program, inputs, path, write, verified=verifier(opened))
    return Outcome(worst, "it takes one sample a call")


# -- compared ------------------------------------------------------------------------------------


def as_function(network: NcnnNetwork, path: Path, outputs: Sequence[Sizes]) -> Run:
    """Return a network as a function of inputs, which it knows by their order alone.

    Args:
        network: The network.
        path: Its file, for errors.
        outputs: The sizes of its outputs, which ncnn gives without those that are one.
    """

    def run(feeds: Mapping[str, Any]) -> list[Array]:
        given = [to_array(value) for value in feeds.values()]
        try:
            found = network(given)
        except (ValueError, RuntimeError) as error:
            raise does_not_run(RUNTIME, error, path) from error
        return [_like(array, sizes) for array, sizes in zip(found, outputs, strict=True)]

    return run


def _like(array: Array, sizes: Sizes) -> Array:
    """Return an array with the sizes of one where they belong; as it is where it has others."""
    own, wanted = ([size for size in which if size != 1] for which in (array.shape, sizes))
    return array.reshape(sizes) if own == wanted else array


# -- run -----------------------------------------------------------------------------------------


_LOOK = """
import json, sys
from pathlib import Path
from compressor.runtimes.ncnn_network import NcnnNetwork
try:
    print(json.dumps(NcnnNetwork(Path(sys.argv[1])).sizes()))
except ValueError as error:
    sys.exit(str(error))
"""
_UNKNOWN = re.compile(r"layer (\S+) not exists")
"""What ncnn prints of an operator that it has not."""


def sizes_in(path: Path) -> dict[str, Sizes]:
    """Return the sizes of all that a call of a model computes, by name.

    It is called in a process of its own, since ncnn breaks down on what it cannot compute.

    Raises:
        CompressorError: ncnn cannot compute it.
    """
    found = run_apart([sys.executable, "-c", _LOOK, str(path)], path)
    if unknown := _UNKNOWN.search(found.stderr):
        raise refused(f"it has no operators for {unknown[1]}", path)
    if found.returncode:
        raise does_not_run(RUNTIME, RuntimeError(f"its process {ending_of(found)}"), path)
    return {name: tuple(sizes) for name, sizes in json.loads(found.stdout).items()}


# -- counted -------------------------------------------------------------------------------------


def _count(path: Path) -> Counted:
    try:
        return count_layers(path, sizes_in(path))
    except (ValueError, OSError, LookupError) as error:
        raise cannot_be_read(LABEL, error, path) from error


METHODS = Methods(_attempt, _write, _count)
