"""Prove that a network computes what ONNX Runtime computes from its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.agreement import BFLOAT16 as BFLOAT
from compressor.agreement import FLOAT16, FLOAT32, ONNX, Tolerance, difference, other_inputs, shake
from compressor.loading.onnx.node_by_node import find_wrong_step
from compressor.loading.onnx.onnx_network import OnnxNetwork
from compressor.loading.onnx.saying import OnnxFileError, refused
from compressor.machine import cores
from compressor.records import ExampleInputs
from compressor.runtimes.inputs import Feeds, feeds_by_position
from compressor.runtimes.onnx import open_session

BY_TYPE: Mapping[torch.dtype, Tolerance] = {torch.float16: FLOAT16, torch.bfloat16: BFLOAT}


def tolerance_for(network: OnnxNetwork) -> Tolerance:
    """Return how far ONNX Runtime may be off, which computes in the file's own type."""
    narrow = network.source.narrow
    return ONNX if narrow is None else BY_TYPE.get(narrow, FLOAT32)


def prove(path: Path, network: OnnxNetwork, examples: ExampleInputs) -> float:
    """Compare a network with ONNX Runtime on its file, on several inputs and batch sizes.

    Args:
        path: The file.
        network: What was made of it.
        examples: Inputs that the network has been run on, by position.

    Returns:
        The largest relative difference.

    Raises:
        CompressorError: ONNX Runtime does not run the file, or they differ; then the error names
            the first node whose result differs.
    """
    is_free = network.source.has_free_batch
    inputs = [examples, *(other_inputs(examples, more=is_free, seed=seed) for seed in (0, 1))]
    session = _open(path)
    expected = []
    for each in inputs:
        feeds = feeds_by_position(session, [value.numpy() for value in each.args])
        expected.append(_run(session, feeds))
    actual = _outputs_of(network, inputs)
    _refuse_other_shapes(expected, actual, path)
    tolerance = tolerance_for(network)
    worst = difference(
        actual,
        [list(map(_plain, outputs)) for outputs in expected],
        tolerance,
        lambda: shake(network, lambda copy: _outputs_of(copy, inputs), tolerance),
    )
    if worst.size <= tolerance.relative:
        return worst.size
    wrong = find_wrong_step(path, network, examples, tolerance)
    if not wrong:
        return worst.size
    raise OnnxFileError(
        f"the network read from {path.name} does not compute what ONNX Runtime computes "
        f"(relative difference {worst.size:.1e}): {worst.place}",
        where=wrong,
        consequence="nothing is compressed, since the reading is wrong",
        next_step="please report it with the file; export the network with another version of the "
        "operators until then",
    )


def _outputs_of(network: nn.Module, inputs: list[ExampleInputs]) -> list[list[Tensor]]:
    with torch.no_grad():
        outputs = [network(*each.args) for each in inputs]
    return [list(results) if isinstance(results, tuple) else [results] for results in outputs]


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _refuse_other_shapes(expected: list[list[Any]], actual: list[list[Tensor]], path: Path) -> None:
    for wanted, got in zip(expected, actual, strict=True):
        shapes = [tuple(np.shape(w)) for w in wanted], [tuple(g.shape) for g in got]
        if shapes[0] != shapes[1]:
            raise OnnxFileError(
                f"the network read from {path.name} gives outputs of shapes {shapes[1]}, ONNX "
                f"Runtime {shapes[0]}",
                next_step="please report it with the file",
            )


def _open(network: Path) -> Any:
    try:
        return open_session(network, cores())
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
        raise refused(
            f"ONNX Runtime does not load the file: {_short(error)}",
            str(network),
            "give a file that ONNX Runtime runs",
        ) from error


def _run(session: Any, feeds: Feeds) -> list[Any]:
    try:
        outputs: list[Any] = session.run(None, feeds)
    except Exception as error:  # likewise
        raise refused(
            f"ONNX Runtime does not run the file on inputs of the declared shapes: {_short(error)}",
            next_step="say which inputs it takes: --input [name=]1x3x224x224[:int64<512]",
        ) from error
    return outputs


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:240]
