"""Execute a program node by node; it can be halted, looked ahead of, and gone on with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.graph.programs.lifting import fill_placeholders, stored_tensors
from compressor.graph.programs.nodes import (
    ASSERTION,
    argument,
    is_mutable,
    operator_of,
    schema_names,
)
from compressor.least_squares.cells import ASIDE, write_out
from compressor.on_demand import OnDemand
from compressor.padding import counted_of

Values = dict[Node, Any]

Inputs = Callable[[], Iterable[Any]]
"""A function that gives the calibration batches anew, the same each time: calls, or positional
inputs alone."""

NOTHING = torch.empty(0)
"""Stands for the value of a node in `cells.ASIDE` that nobody looks at."""


class Script:
    """What all walks through a program share: the nodes' order, the tensors, when a value is done.

    Recurrent layers are written out, as `cells.write_out` does. `tensors` are the program's own,
    moved to `device`; changing one in place changes what all later steps compute. Walks keep the
    values of the nodes in `lasting` for `Walk.reach`. Those of the nodes in `aside` are left out
    where they are neither lasting nor what a walk is on its way to.
    """

    def __init__(self, program: ExportedProgram, device: str = "cpu") -> None:
        self.program, self.device = program, device
        graph = write_out(program.graph_module.graph)
        self.nodes = [node for node in graph.nodes if node.target is not ASSERTION]
        self.named = {node.name: node for node in self.nodes}
        self.place = {node.name: i for i, node in enumerate(self.nodes)}
        self.done: dict[int, list[Node]] = {}
        last: dict[Node, int] = {}
        for i, node in enumerate(self.nodes):
            last |= dict.fromkeys((node, *node.all_input_nodes), i)
        for node, i in last.items():
            self.done.setdefault(i, []).append(node)
        self.tensors: dict[str, Any] = self._move(stored_tensors(program))
        self.writes = [is_mutable(node) for node in self.nodes]
        self.is_written_to = any(self.writes)
        self.lasting: set[Node] = set()
        self.aside = {node for node in self.nodes if operator_of(node) in ASIDE}

    @cached_property
    def storages(self) -> Mapping[int, int]:
        """The bytes of the memory of the program's own tensors, by its address."""
        return _storages(self.tensors.values())

    def start(self, inputs: Any) -> Walk:
        """Return a walk that knows only the inputs (a call, or positional ones alone)."""
        call = Call.of(self._move(inputs))
        given = fill_placeholders(self.program, call.leaves, self.tensors)
        placeholders = [n for n in self.nodes if n.op == "placeholder"]
        values = dict(zip(placeholders, given, strict=True))
        return Walk(self, values, len(placeholders), counted_of(call))

    def _move(self, values: Any) -> Any:
        return pytree.tree_map_only(torch.Tensor, lambda x: x.to(self.device), values)


class Walk:
    """One execution of a program: the values that are still needed, and how far it has come.

    `counted` tells which positions of the batch are no padding (`compressor.padding`). `foreseen`
    are values of nodes that it is about to come to, which it takes in place of computing them.
    """

    def __init__(
        self, script: Script, values: Values, position: int, counted: Tensor | None = None
    ) -> None:
        self.script, self.values, self.position = script, values, position
        self.counted = counted
        self.kept: Values = {}
        self.foreseen: Values = {}

    def advance(self, node: str) -> None:
        """Run until just before a node, whose arguments are known then."""
        wanted = self.script.named[node].all_input_nodes
        with torch.no_grad():
            while self.position < self.script.place[node]:
                self._step(wanted)

    def reach(self, node: str) -> Any:
        """Return the value of a lasting node; run until just after it, if that is still ahead."""
        with torch.no_grad():
            while self.position <= self.script.place[node]:
                self._step()
        return self.kept[self.script.named[node]]

    def run_until(self, position: int) -> None:
        """Run until just before the node of a number."""
        while self.position < position:
            self._step()

    def ahead(self, node: str, *, remember: bool = False) -> Walk:
        """Return a walk of its own that has just computed a node, with all values up to there.

        This walk stays where it is.

        Args:
            node: The node.
            remember: Whether this walk takes what was computed when it comes there itself. No
                tensor of the program may change until then.
        """
        end = self.script.place[node] + 1
        last = self.script.named[node]
        values, writes = dict(self.values), any(self.script.writes[self.position : end])
        if writes:
            values = self._copy(values)
        other = Walk(self.script, values, self.position, self.counted)
        if remember and not writes:
            other.foreseen = dict(self.foreseen)
        with torch.no_grad():
            while other.position < end:
                other._step([last, *last.all_input_nodes], forget=False)
        if remember and not writes:
            passed = self.script.nodes[self.position : end]
            self.foreseen |= {each: other.values[each] for each in passed if _is_known(other, each)}
        return other

    def seeing(self, node: Node, value: Any) -> Walk:
        """Return a walk of its own that stands where this one does, with another value of a node.

        This walk stays as it is.
        """
        return Walk(self.script, {**self.values, node: value}, self.position, self.counted)

    def detour(self, node: str, instead: str) -> list[Any]:
        """Return what the program returns if the next node had the value of an earlier one.

        This walk stays where it is, just before the node. The earlier one is needed still, or is a
        lasting node.
        """
        values = dict(self.values)
        if any(self.script.writes[self.position :]):
            values = self._copy(values)
        earlier = self.script.named[instead]
        taken = values[earlier] if earlier in values else self.kept[earlier]
        other = Walk(self.script, values, self.position + 1)
        other.values[self.script.named[node]] = taken.clone()
        with torch.no_grad():
            return other.outputs()

    def outputs(self) -> list[Any]:
        """Run to the end, and return what the program returns as a flat list."""
        while self.script.nodes[self.position].op != "output":
            self._step()
        returned = self.script.nodes[self.position].args
        return pytree.tree_leaves(map_arg(returned, self.values.__getitem__))

    def size_bytes(self) -> int:
        """Return the bytes of the values, without the program's own tensors."""
        held = _storages([*self.values.values(), *self.kept.values(), *self.foreseen.values()])
        return sum(size for key, size in held.items() if key not in self.script.storages)

    def _copy(self, values: Values) -> Values:
        """Copy values that may be written to; views stay views of one another."""
        memo = {id(t): t for t in self.script.tensors.values()}
        return {node: copy.deepcopy(value, memo) for node, value in values.items()}

    def _step(self, wanted: Collection[Node] = (), *, forget: bool = True) -> None:
        node = self.script.nodes[self.position]
        if node in self.script.aside and node not in (*self.script.lasting, *wanted):
            self.values[node] = NOTHING
        elif node.op == "call_function":
            foreseen = node in self.foreseen
            self.values[node] = value = self.foreseen.pop(node) if foreseen else self.compute(node)
            if node in self.script.lasting:
                # what comes later may write to it
                self.kept[node] = value.clone() if self.script.is_written_to else value
        elif node.op == "get_attr":
            module: Any = self.script.program.graph_module
            self.values[node] = getattr(module, str(node.target))
        if forget:
            for value in self.script.done.get(self.position, ()):
                self.values.pop(value, None)
        self.position += 1

    def compute(self, node: Node) -> Any:
        """Return what a node's operator returns for the walk's values."""
        return _call(node, self.values.__getitem__)

    def shape_of(self, node: Node) -> Any:
        """Return what a node's operator returns for the walk's values, as tensors without data."""

        def without_data(source: Node) -> Any:
            value = self.values[source]
            return pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), value)

        with torch.no_grad():
            return _call(node, without_data)


def arguments_at(walk: Walk, node: Node) -> dict[str, Any]:
    """Return the values of the arguments that a node is about to be called with, by name."""
    given = {name: argument(node, name) for name in schema_names(node)}
    values: dict[str, Any] = map_arg(given, walk.values.__getitem__)
    return values


def _is_known(walk: Walk, node: Node) -> bool:
    return node.op == "call_function" and walk.values[node] is not NOTHING


def _storages(values: Iterable[Any]) -> dict[int, int]:
    """Return the bytes of the memory of tensors, within lists too, by its address.

    Views share theirs. What is kept on demand takes none.
    """
    found: dict[int, int] = {}
    for value in values:
        # most are tensors, for which looking into lists takes as long as all of the rest
        for leaf in [value] if isinstance(value, torch.Tensor) else pytree.tree_leaves(value):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, OnDemand):
                storage = leaf.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return found


def _call(node: Node, value_of: Callable[[Node], Any]) -> Any:
    args, kwargs = map_arg((node.args, node.kwargs), value_of)
    operator: Any = node.target
    return operator(*args, **kwargs)
