"""Define how a graph is run: steps in their order, what each takes, and the tensors held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compressor.loading.onnx.contents import Node, Shared
from compressor.loading.onnx.small_numbers import Numbers
from compressor.loading.onnx.stored_forms import StoredForm


@dataclass(frozen=True)
class Held(Shared):
    """A constant that is held as tensors of the network.

    Attributes:
        form: How.
        paths: The tensors' names in the network.
        learns: Whether they are parameters, else buffers.
    """

    form: StoredForm
    paths: tuple[str, ...]
    learns: bool


@dataclass(frozen=True)
class FromValue(Shared):
    """An input of a step that another step computes, or that the network is given."""

    name: str


@dataclass(frozen=True)
class FromTensors(Shared):
    """An input of a step that the network holds: one tensor, or several as a tuple."""

    paths: tuple[str, ...]
    together: bool


Source = FromValue | FromTensors | Numbers | None


@dataclass(frozen=True)
class Planned(Shared):
    """A step: one node, or two that are one layer.

    Attributes:
        node: The node that it runs.
        op: The key of its entry in the table.
        path: Where its module is in the network.
        inputs: What it takes.
        outputs: The names of what it gives.
        branches: Of an `If`, the steps and results of both branches.
    """

    node: Node
    op: str
    path: str
    inputs: tuple[Source, ...]
    outputs: tuple[str, ...]
    branches: tuple[tuple[tuple[Planned, ...], tuple[Source, ...]], ...] = ()


@dataclass(frozen=True)
class GraphPlan(Shared):
    """How a graph is run.

    Attributes:
        steps: Its steps in their order.
        results: What it returns.
        held: Constants that are tensors of the network, by their names in the file.
    """

    steps: tuple[Planned, ...]
    results: tuple[Source, ...]
    held: Mapping[str, Held]


def every_step(steps: tuple[Planned, ...]) -> list[Planned]:
    """Return all steps, those within branches after the step that chooses among them."""
    return [
        each
        for step in steps
        for each in (step, *(e for inner, _ in step.branches for e in every_step(inner)))
    ]
