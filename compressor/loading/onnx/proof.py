"""Prove that a network computes what ONNX Runtime computes from its file, node by node if need be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from compressor.agreement import BFLOAT16 as BFLOAT
from compressor.agreement import FLOAT16, FLOAT32, ONNX, Tolerance, difference, other_inputs
from compressor.files.claimed import temporary_folder
from compressor.loading.onnx.network import OnnxNetwork
from compressor.loading.onnx.saying import OnnxFileError, refused
from compressor.onnx_runtime import Feeds, cores, feeds_for, open_session, words_of
from compressor.records import ExampleInputs

CHUNK = 64
"""How many values of a graph are asked of ONNX Runtime at a time."""

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
    expected, found = [], []
    for each in inputs:
        feeds = feeds_of(session, each.args)
        expected.append(_run(session, feeds, None))
        with torch.no_grad():
            results = network(*each.args)
        found.append(list(results) if isinstance(results, tuple) else [results])
    _refuse_other_shapes(expected, found, path)
    tolerance = tolerance_for(network)
    worst = difference([list(map(_plain, e)) for e in expected], found, tolerance)
    if worst.size <= tolerance.relative:
        return worst.size
    raise OnnxFileError(
        f"the network read from {path.name} does not compute what ONNX Runtime computes "
        f"(relative difference {worst.size:.1e}): {worst.place}",
        where=_first_difference(path, network, inputs[0], tolerance),
        consequence="nothing is compressed, since the reading is wrong",
        next_step="please report it with the file; export the network with another version of the "
        "operators until then",
    )


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _refuse_other_shapes(expected: list[list[Any]], found: list[list[Tensor]], path: Path) -> None:
    for wanted, got in zip(expected, found, strict=True):
        shapes = [tuple(np.shape(w)) for w in wanted], [tuple(g.shape) for g in got]
        if shapes[0] != shapes[1]:
            raise OnnxFileError(
                f"the network read from {path.name} gives outputs of shapes {shapes[1]}, ONNX "
                f"Runtime {shapes[0]}",
                next_step="please report it with the file",
            )


def feeds_of(session: Any, args: tuple[Any, ...]) -> Feeds:
    """Return inputs by the session's names, in the session's types."""
    words = words_of(spec.name for spec in session.get_inputs())
    given = {word: value.numpy() for word, value in zip(words, args, strict=True)}
    return feeds_for(session, given)


def _open(network: Path) -> Any:
    try:
        return open_session(network, cores())
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
        raise refused(
            f"ONNX Runtime does not load the file: {_short(error)}",
            str(network),
            "give a file that ONNX Runtime runs",
        ) from error


def _run(session: Any, feeds: Feeds, names: list[str] | None) -> list[Any]:
    try:
        found: list[Any] = session.run(names, feeds)
    except Exception as error:  # likewise
        raise refused(
            f"ONNX Runtime does not run the file on inputs of the declared shapes: {_short(error)}",
            next_step="say which inputs it takes: --input [name=]1x3x224x224[:int64<512]",
        ) from error
    return found


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:240]


# -- the first node that differs -------------------------------------------------------------------


def _first_difference(
    path: Path, network: OnnxNetwork, inputs: ExampleInputs, tolerance: Tolerance
) -> str:
    """Return words for the first node whose result ONNX Runtime computes otherwise."""
    own: dict[str, Tensor] = {}

    def watch(name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.numel():
            own[name] = value

    network.watch(inputs.args, watch)
    makers = {name: step.node for step in network.layout.steps for name in step.outputs}
    wanted = [name for name in own if name in makers]
    try:
        for name, theirs in _values_of(path, wanted, inputs.args):
            if np.shape(theirs) != tuple(own[name].shape):
                return f"first at the node {makers[name].name}: another shape"
            found = difference([[_plain(theirs)]], [[own[name]]], tolerance)
            if found.size > max(tolerance.relative, 1e-3):
                node = makers[name]
                return f"first at the node {node.name} ({node.op}): {found.place}"
    except OnnxFileError:
        return "which node differs first cannot be told: ONNX Runtime does not give single results"
    return "no single node differs by much"


def _values_of(
    path: Path, names: list[str], args: tuple[Any, ...]
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield what ONNX Runtime computes for values within the graph, some at a time."""
    model = onnx.load(str(path))
    outputs = list(model.graph.output)
    with temporary_folder() as folder:
        file = Path(folder) / "watched.onnx"
        for start in range(0, len(names), CHUNK):
            some = names[start : start + CHUNK]
            del model.graph.output[:]
            model.graph.output.extend(outputs)
            declared = {output.name for output in outputs}
            model.graph.output.extend(
                onnx.ValueInfoProto(name=name) for name in some if name not in declared
            )
            onnx.save_model(model, str(file), save_as_external_data=True, location="watched.data")
            (Path(folder) / "watched.data").touch()
            try:
                session = open_session(file, cores(), optimised=False)
            except Exception as error:  # likewise
                raise refused(_short(error)) from error
            found = _run(session, feeds_of(session, args), some)
            yield from zip(some, found, strict=True)
            (Path(folder) / "watched.data").unlink(missing_ok=True)
