"""Compare an ONNX file's network with ONNX Runtime node by node, each on the runtime's own values.

So rounding that grows from layer to layer is told from a node that computes something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from compressor.agreement import Tolerance, difference
from compressor.files.claimed import temporary_folder
from compressor.loading.onnx.node_module import NodeModule
from compressor.loading.onnx.onnx_network import OnnxNetwork
from compressor.loading.onnx.operators import BRANCH
from compressor.loading.onnx.planned_steps import FromValue, Planned
from compressor.loading.onnx.small_numbers import Numbers
from compressor.machine import cores
from compressor.records import ExampleInputs
from compressor.runtimes.inputs import Feeds, feeds_by_position
from compressor.runtimes.onnx import open_session

CHUNK = 32
"""How many steps are compared at a time."""

LOCAL = 1e-3
"""The most that one node may be off, relative to what varies in its result: rounding of one node
is less, and a node that computes something else is off by more."""

SMALLEST = 2e-6
"""The most that one node may be off, relative to the largest value of its result: a runtime's
sigmoid is exact to the last places of 1, whatever the result is."""

Values = Mapping[str, Any]


def find_wrong_step(
    path: Path, network: OnnxNetwork, inputs: ExampleInputs, tolerance: Tolerance
) -> str:
    """Return words for the first node that does not compute what ONNX Runtime does, or "".

    Args:
        path: The file.
        network: What was made of it.
        inputs: What both are called with, by position.
        tolerance: How far ONNX Runtime may be off.
    """
    own: dict[str, Any] = {}

    def watch(name: str, value: Any) -> None:
        own[name] = value if isinstance(value, Numbers) else None

    network.watch(inputs.args, watch)
    steps = [step for step in network.layout.steps if step.op != BRANCH]
    for some, theirs in _values_of(path, network, steps, own, inputs):
        for step in some:
            if words := _compare(network, step, own, theirs, tolerance):
                return f"the node {step.node.name} ({step.node.op}): {words}"
    return ""


def _compare(
    network: OnnxNetwork, step: Planned, own: Values, theirs: Values, tolerance: Tolerance
) -> str:
    """Run one step on ONNX Runtime's values; return words for how it differs, or ""."""
    layer = network.get_submodule(step.path)
    assert isinstance(layer, NodeModule)
    given = {**theirs, **{name: value for name, value in own.items() if value is not None}}
    with torch.no_grad():
        result = layer(*(network.value(source, given) for source in step.inputs))
    outputs = result if isinstance(result, tuple) and len(step.outputs) > 1 else (result,)
    for name, value in zip(step.outputs, outputs, strict=False):
        wanted = theirs.get(name)
        if not isinstance(value, Tensor) or not isinstance(wanted, Tensor):
            continue
        if value.shape != wanted.shape:
            return f"shape {list(value.shape)} against {list(wanted.shape)}"
        off = difference([[wanted]], [[value]], tolerance)
        if off.size > max(10 * tolerance.relative, LOCAL) and not _is_rounding(wanted, value):
            return off.place
    return ""


def _is_rounding(wanted: Tensor, got: Tensor) -> bool:
    if not wanted.is_floating_point() or not bool(torch.isfinite(wanted).all()):
        return False
    return bool((wanted - got).abs().max() <= SMALLEST * wanted.abs().max())


def _values_of(
    path: Path,
    network: OnnxNetwork,
    steps: Sequence[Planned],
    own: Values,
    inputs: ExampleInputs,
) -> Iterator[tuple[Sequence[Planned], Values]]:
    """Yield some steps at a time, and what ONNX Runtime computes for their inputs and outputs."""
    given = {
        declared.name: value
        for declared, value in zip(network.source.graph.inputs, inputs.args, strict=True)
    }
    with temporary_folder() as folder:
        file = Path(folder) / "watched.onnx"
        onnx.save_model(
            onnx.load(str(path)), str(file), save_as_external_data=True, location="watched.data"
        )
        model = onnx.load(str(file), load_external_data=False)
        declared = list(model.graph.output)
        for start in range(0, len(steps), CHUNK):
            some = steps[start : start + CHUNK]
            wanted = [n for n in _names_of(some) if n in own and own[n] is None and n not in given]
            del model.graph.output[:]
            model.graph.output.extend(declared)
            known = {output.name for output in declared}
            model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted if n not in known)
            file.write_bytes(model.SerializeToString())
            session = open_session(file, cores(), optimised=False)
            feeds: Feeds = feeds_by_position(session, [v.numpy() for v in inputs.args])
            results = session.run(wanted, feeds) if wanted else []
            yield some, {**given, **dict(zip(wanted, map(_tensor, results), strict=True))}


def _names_of(steps: Sequence[Planned]) -> list[str]:
    names = [
        name
        for step in steps
        for name in (
            *(source.name for source in step.inputs if isinstance(source, FromValue)),
            *filter(None, step.outputs),
        )
    ]
    return list(dict.fromkeys(names))


def _tensor(value: Any) -> Any:
    """Return a value of ONNX Runtime as it is computed here: every float is float32."""
    if not isinstance(value, np.ndarray):
        return tuple(map(_tensor, value)) if isinstance(value, list) else value
    return torch.from_numpy(value.astype(np.float32) if value.dtype.kind == "f" else value)
