"""The masked twin of a sliced network: the dense one, deaf to what was dropped.

Dropped positions are zeroed where they are consumed, producers are left alone. A statistic over a
dropped axis (LayerNorm, a mean) would still hear them, so it alone is computed on the kept ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Interpreter, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from compressor.agreement import difference, is_live
from compressor.graph.axes import Axis, Bools, Dim, keep_mask, leaves
from compressor.graph.network import Network, Shape
from compressor.graph.programs.lifting import fill_placeholders, stored_names, stored_tensors
from compressor.graph.rules import RULES
from compressor.graph.rules.norm import group_norm, last_dimensions, per_channel
from compressor.graph.rules.reduce import statistic
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module, variants
from compressor.slicing.compare import Outputs, outputs_of
from tools.zoo.float64 import InFloat64, double_

Masks = Mapping[Axis, Bools]


def _operators(*rules: Any) -> set[str]:
    return {f"aten.{op}" for op, rule in RULES.items() if rule in rules}


NORMS = _operators(last_dimensions, group_norm, per_channel)
REDUCTIONS = _operators(statistic)
"""Operators that may compute one number from several channels."""

LIVE = 1e-5
"""Relative change of an output that shows, in float64, that the network answers to its input."""


FAINT = 0.1
"""Relative change of an output below which cutting channels may leave nothing of it."""


class DeadNetworkError(Exception):
    """The outputs do not depend on the inputs: agreeing with them would mean nothing."""


def twin_difference(
    trace: Trace, network: Network, masks: Masks, program: torch.export.ExportedProgram
) -> float:
    """Largest relative difference between the sliced program and its twin, in float64.

    The twin is the user's own class; of a detector it is the dense program, whose constants, the
    mean and deviation of images, are the sliced one's in every bit. Where a statistic crosses a
    dropped axis, it is the dense program with those statistics computed compactly.
    """
    crossed = _crossed(trace, network, masks)
    twin: nn.Module
    if crossed:
        twin = _CompactStatistics(trace, network, masks, program, crossed)
    else:
        twin = copy.deepcopy(as_module(trace.program) if trace.ends_after else trace.module)
        _deafen(dict(twin.named_parameters()), network, masks)
        double_(twin)
    sliced = double_(copy.deepcopy(as_module(program)))
    inputs = [in_double(x) for x in variants(trace)]
    with InFloat64():  # type: ignore[no-untyped-call]
        expected = [outputs_of(twin, x) for x in inputs]
        found = [outputs_of(sliced, x) for x in inputs]
    if not _is_live(expected):
        raise DeadNetworkError("the masked twin's outputs do not depend on its inputs")
    return difference(expected, found).size


def rounding_error(
    module: nn.Module, inputs: ExampleInputs, ends_after: Sequence[str] = ()
) -> float:
    """How far a network in float32 is from itself in float64, relatively."""
    single = outputs_of(module, inputs, ends_after)
    exact = double_(copy.deepcopy(module))
    with InFloat64():  # type: ignore[no-untyped-call]
        double = outputs_of(exact, in_double(inputs), ends_after)
    pairs = [(a, b.double()) for a, b in zip(double, single, strict=True) if b.is_floating_point()]
    return difference([[a for a, _ in pairs]], [[b for _, b in pairs]]).size


def is_faint(trace: Trace) -> bool:
    """Whether the dense network hardly answers to its input: activations fade from block to block,
    and with half of the channels they fade twice as fast."""
    found = [outputs_of(trace.module, x, trace.ends_after) for x in variants(trace)]
    return not is_live(found, FAINT)


def live_shapes(module: nn.Module, trace: Trace) -> tuple[list[tuple[int, ...]], bool]:
    """Shapes of all outputs on all variants, and whether they depend on the inputs."""
    found: list[Outputs] = [outputs_of(module, x, trace.ends_after) for x in variants(trace)]
    return [tuple(t.shape) for outputs in found for t in outputs], _is_live(found)


def _is_live(found: list[Outputs]) -> bool:
    """Some output varies from input to input, and all are finite."""
    floats = [t for outputs in found for t in outputs if t.is_floating_point()]
    return all(bool(t.isfinite().all()) for t in floats) and is_live(found, LIVE)


def in_double(inputs: ExampleInputs) -> ExampleInputs:
    """Tensors of floating point in double precision."""

    def doubled(leaf: Any) -> Any:
        is_float = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        return leaf.double() if is_float else leaf

    args, kwargs = pytree.tree_map(doubled, (inputs.args, dict(inputs.kwargs)))
    return ExampleInputs(args, kwargs)


def _deafen(tensors: Mapping[str, torch.Tensor], network: Network, masks: Masks) -> None:
    """Zero the dropped positions of every consumer, in place."""
    for group in network.groups:
        if network.axes[group.name] not in masks:
            continue
        for member in group.members:
            if member.contracted and member.tensor in tensors:
                keep = keep_mask(network.tensors[member.tensor][member.dim], masks)
                lost = torch.from_numpy(np.flatnonzero(~keep))
                with torch.no_grad():
                    tensors[member.tensor].index_fill_(member.dim, lost, 0)


def _crossed(trace: Trace, network: Network, masks: Masks) -> set[str]:
    """Nodes with a statistic over an axis that loses channels."""
    reading = NodeShapes(trace, network)
    found = set()
    for node in trace.program.graph.nodes:
        if str(node.target) in NORMS | REDUCTIONS:
            axes = _axes(d for source in node.all_input_nodes for d in reading.of(source))
            if str(node.target) in REDUCTIONS:
                axes -= _axes(reading.of(node))
            if any(a in masks for a in axes) and _is_over_channels(node):
                found.add(node.name)
    return found


def _axes(dims: Iterable[Dim]) -> set[Axis]:
    return {axis for dim in dims for axis in leaves(dim)}


def _is_over_channels(node: Node) -> bool:
    """Batch norm with running statistics looks at each channel alone."""
    return "batch_norm" not in str(node.target) or bool(node.args[5])


class NodeShapes:
    """The solved dimensions of a program's nodes."""

    def __init__(self, trace: Trace, network: Network) -> None:
        self.network = network
        self.stored = stored_names(trace.program)

    def of(self, node: Node) -> Shape:
        if node.op == "placeholder":
            return self.network.tensors.get(self.stored.get(node.name, ""), ())
        if node.name in self.network.nodes:
            return self.network.nodes[node.name].outputs[0]
        if "getitem" in str(node.target):
            source, position = node.args
            assert isinstance(source, Node) and isinstance(position, int)
            spelling = self.network.nodes.get(source.name)
            return spelling.outputs[position] if spelling else ()
        return ()


class _CompactStatistics(nn.Module):
    """The dense program with deafened consumers, whose crossed statistics see kept channels only:
    their operands are gathered, and what they give is put back between zeros."""

    def __init__(
        self,
        trace: Trace,
        network: Network,
        masks: Masks,
        sliced: torch.export.ExportedProgram,
        crossed: set[str],
    ) -> None:
        super().__init__()
        self.trace, self.masks, self.crossed = trace, masks, crossed
        self.shapes = NodeShapes(trace, network)
        self.spelled = {node.name: node for node in sliced.graph.nodes}
        program = trace.program
        self.tensors: dict[str, Any] = {}
        for name, stored in stored_tensors(program).items():
            is_float = isinstance(stored, torch.Tensor) and stored.is_floating_point()
            self.tensors[name] = stored.detach().double() if is_float else stored
        for alias, name in network.aliases.items():
            self.tensors[alias] = self.tensors[name]
        _deafen(self.tensors, network, masks)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        program = self.trace.program
        order = program.example_inputs[1] if program.example_inputs else kwargs
        leaves = pytree.tree_leaves((args, {name: kwargs[name] for name in order}))
        arguments = fill_placeholders(program, leaves, self.tensors)
        runner = _Runner(program.graph_module, self)
        with torch.no_grad():
            return runner.run(*arguments, enable_io_processing=False)

    def compact(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        for i, dim in enumerate(self.shapes.of(node)):
            kept = keep_mask(dim, self.masks)
            if not kept.all() and value.shape[i] == len(kept):
                value = value.index_select(i, torch.from_numpy(np.flatnonzero(kept)))
        return value

    def spread(self, shape: Shape, value: torch.Tensor) -> torch.Tensor:
        for i, dim in enumerate(shape):
            kept = keep_mask(dim, self.masks)
            if not kept.all():
                places = torch.from_numpy(np.flatnonzero(kept))
                sizes = (*value.shape[:i], len(kept), *value.shape[i + 1 :])
                value = value.new_zeros(sizes).index_copy_(i, places, value)
        return value


class _Runner(Interpreter):
    def __init__(self, module: torch.fx.GraphModule, twin: _CompactStatistics) -> None:
        super().__init__(module)
        self.twin = twin

    def run_node(self, n: Node) -> Any:
        if n.name not in self.twin.crossed:
            return super().run_node(n)
        dense = {source.name: source for source in n.all_input_nodes}

        def operand(node: Node) -> Any:
            source = dense[node.name]
            value = self.env[source]
            return self.twin.compact(source, value) if isinstance(value, torch.Tensor) else value

        spelled = self.twin.spelled[n.name]
        args, kwargs = map_arg((spelled.args, dict(spelled.kwargs)), operand)
        assert callable(n.target)
        result = n.target(*args, **kwargs)
        shapes = self.twin.shapes.network.nodes[n.name].outputs
        if isinstance(result, torch.Tensor):
            return self.twin.spread(shapes[0], result)
        return tuple(self.twin.spread(s, r) for s, r in zip(shapes, result, strict=True))
