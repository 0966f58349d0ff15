"""Run one node of an ONNX graph as a module, whose sizes are attributes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from compressor.loading.onnx.operators import run
from compressor.loading.onnx.operators.invocation import NodeCall, Value
from compressor.loading.onnx.planned_steps import Planned
from compressor.loading.onnx.small_numbers import Numbers

LITERALS: Mapping[str, Mapping[int, str]] = {
    "ConstantOfShape": {0: "shape"},
    "Expand": {1: "shape"},
    "Pad": {1: "pads"},
    "Reshape": {1: "shape"},
    "Slice": {1: "starts", 2: "ends"},
    "Split": {1: "split"},
    "Tile": {1: "repeats"},
}
"""Operator -> positions of the inputs that say sizes -> what these are called."""

COUNTED = ("group", "num_groups")
"""Attributes of nodes that are sizes, which change with the channels."""


class NodeModule(nn.Module):
    """One node as a module.

    The sizes that a node is given are integers among its attributes ("shape_2"), so that they can
    change with the channels; those that have not changed are as they are given.
    """

    def __init__(self, planned: Planned) -> None:
        """Take the plan of the step."""
        super().__init__()
        self.planned = planned
        self.literals: dict[str, tuple[int, int, int]] = {}
        for name in COUNTED:
            if name in planned.node.attributes:
                setattr(self, name, planned.node.attributes[name])

    def note_literals(self, inputs: tuple[Value, ...]) -> None:
        """Hold the sizes that the node is given as attributes, in place."""
        for position, word in LITERALS.get(self.planned.op, {}).items():
            given = inputs[position] if position < len(inputs) else None
            listed = given.listed if isinstance(given, Numbers) else []
            for i in _order(self.planned.op, len(listed)):
                if type(value := listed[i]) is int:
                    size = _from_start(inputs, i, value) if self.planned.op == "Slice" else value
                    self.literals[f"{word}_{i}"] = (position, i, size)
                    setattr(self, f"{word}_{i}", size)

    def forward(self, *inputs: Value, device: torch.device | None = None) -> Value:
        """Run the node: its inputs in, its output or a tuple of its outputs out.

        Raises:
            CompressorError: The operator is in a form that its entry does not run.
        """
        planned, node = self.planned, self.planned.node
        counted = {name: getattr(self, name) for name in COUNTED if name in node.attributes}
        call = NodeCall(
            *(planned.op, node.name, node.version, self._spelled(inputs)),
            attributes={**node.attributes, **counted},
            outputs=len(planned.outputs),
            training=self.training,
            device=device,
        )
        outputs = run(call)[: len(planned.outputs)]
        return outputs[0] if len(outputs) == 1 else outputs

    def _spelled(self, inputs: tuple[Value, ...]) -> list[Value]:
        """Return the inputs, with the sizes that have changed put in."""
        spelled = list(inputs)
        for name, (position, element, value) in self.literals.items():
            given = spelled[position]
            if getattr(self, name) != value and isinstance(given, Numbers):
                array = given.array.copy()
                array.reshape(-1)[element] = getattr(self, name)
                spelled[position] = Numbers(array, given.dtype)
        return spelled

    def changed(self) -> dict[str, int]:
        """Return the sizes that are no longer the file's own, by name."""
        own = {name: value for name, (_, _, value) in self.literals.items()}
        attributes = self.planned.node.attributes
        own |= {name: attributes[name] for name in COUNTED if name in attributes}
        now = {name: getattr(self, name) for name in own}
        return {name: value for name, value in now.items() if value != own[name]}

    def extra_repr(self) -> str:
        """Return the node's name in the file."""
        return self.planned.node.name


def _order(op: str, count: int) -> list[int]:
    """Return the order in which torch spells sizes: pads from the last dimension to the first."""
    half = count // 2
    return (
        [at for d in reversed(range(half)) for at in (d, half + d)]
        if op == "Pad"
        else [*range(count)]
    )


def _from_start(inputs: tuple[Value, ...], i: int, place: int) -> int:
    """Return a Slice's start or end, the i-th, counted from the start, as sizes are."""
    given: list[Value] = [*inputs, *[None] * (5 - len(inputs))]
    x, axes, steps = given[0], given[3], given[4]
    axis = axes.listed[i] if isinstance(axes, Numbers) else i
    step = steps.listed[i] if isinstance(steps, Numbers) else 1
    if place >= 0 or step < 0 or not isinstance(x, Tensor) or axis % x.dim() == 0:
        return place
    return max(0, place + x.shape[axis])


@cache
def step_class(op: str) -> type[NodeModule]:
    """Return the class of an operator's steps, so that steps of one operator are alike."""
    return type(op.rpartition(".")[2], (NodeModule,), {"__module__": __name__})
