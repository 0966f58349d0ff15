"""Find out how a module's call meets its part of the program, by watching one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from compressor.agreement import difference
from compressor.graph.programs.attention_path import unfuse_attention
from compressor.graph.programs.lifting import fill_placeholders
from compressor.records import ExampleInputs
from compressor.slicing.part import Part


@dataclass(frozen=True)
class Wiring:
    """How a module's call meets its part of the program.

    Attributes:
        arguments: Positions of the operators' inputs among the call's tensors; None for one that
            the call is not given, which is computed from the sizes of others.
        returned: (number of leaves, position of the tensor among them) of what the module returns;
            None for a tensor alone.
        handed: Per further tensor that it returns its position, and that of the call's tensor that
            is handed on there.
    """

    arguments: tuple[int | None, ...]
    returned: tuple[int, int] | None
    handed: tuple[tuple[int, int], ...] = ()

    @classmethod
    def read(cls, spelled: Mapping[str, Any]) -> Wiring:
        """Build a wiring from what a plan says of it."""
        returned = spelled["returned"]
        handed = tuple((leaf, at) for leaf, at in spelled.get("handed", ()))
        return cls(tuple(spelled["arguments"]), tuple(returned) if returned else None, handed)

    def spell(self) -> dict[str, Any]:
        """Return what a plan says of the wiring."""
        spelled = asdict(self)
        if not self.handed:
            del spelled["handed"]
        return spelled

    def give_back(self, result: Any, given: Sequence[torch.Tensor]) -> Any:
        """Return a module's result as its call returned it: alone, or at its place in a tuple.

        Args:
            result: The tensor that is returned.
            given: The call's tensors, which may be handed on beside it.
        """
        if self.returned is None:
            return result
        count, position = self.returned
        places = {**{leaf: given[at] for leaf, at in self.handed}, position: result}
        return tuple(places.get(i) for i in range(count))


def find_wirings(
    module: nn.Module, program: ExportedProgram, inputs: ExampleInputs, parts: Mapping[str, Part]
) -> dict[str, Wiring]:
    """Run the original, and match the tensors of each module's call with the values in the program.

    Of modules with the same operators the first is watched; modules whose call cannot be matched
    are left out.
    """
    kinds: dict[Any, list[str]] = {}
    for path, part in parts.items():
        kinds.setdefault(part.kind, []).append(path)
    firsts = {paths[0]: parts[paths[0]] for paths in kinds.values()}
    calls = _watch_calls(module, inputs, list(firsts))
    wanted = {name for part in firsts.values() for name in (*part.inputs, part.output)}
    values = _Values(program, wanted).of(inputs)
    wirings: dict[str, Wiring] = {}
    for first, *others in kinds.values():
        wiring = _match(parts[first], calls.get(first), values)
        if wiring is not None:
            wirings |= dict.fromkeys([first, *others], wiring)
    return wirings


class _EnoughError(Exception):
    """The error that ends a run after all that was wanted has been seen."""


def _watch_calls(
    module: nn.Module, inputs: ExampleInputs, paths: list[str]
) -> dict[str, tuple[list[Any], Any]]:
    """Return the tensors given to the first call of each module, and what it returned, by path."""
    calls: dict[str, tuple[list[Any], Any]] = {}

    def watch(path: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            calls.setdefault(path, (given, output))
            if len(calls) == len(paths):
                raise _EnoughError

        return module.get_submodule(path).register_forward_hook(hook, with_kwargs=True)

    handles = [watch(path) for path in paths]
    try:
        # fused, encoder layers hand on tensors without shapes
        with torch.no_grad(), unfuse_attention(), suppress(_EnoughError):
            module(*inputs.args, **inputs.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _match(
    part: Part, call: tuple[list[Any], Any] | None, values: Mapping[str, torch.Tensor]
) -> Wiring | None:
    if call is None:
        return None
    given, output = call
    positions = [_find(given, values.get(name)) for name in part.inputs]
    if isinstance(output, torch.Tensor):
        leaves, returned = [output], None
    elif isinstance(output, tuple) and all(
        o is None or isinstance(o, torch.Tensor) for o in output
    ):
        leaves = list(output)
        at = _find(leaves, values.get(part.output))
        returned = (len(leaves), -1 if at is None else at)
    else:
        return None
    lacks = {
        name for name, position in zip(part.inputs, positions, strict=True) if position is None
    }
    if not lacks <= part.derived.keys() or _find(leaves, values.get(part.output)) is None:
        return None
    place = returned[1] if returned is not None else 0
    handed = [
        (i, at)
        for i, leaf in enumerate(leaves)
        for at, tensor in enumerate(given)
        if leaf is tensor and i != place
    ]
    return Wiring(tuple(positions), returned, tuple(dict(reversed(handed)).items()))


_SAME_VALUE = 1e-3
"""Relative difference up to which two values are one: both are of the same run, by the module and
by its traced operators."""


def _find(leaves: list[Any], value: torch.Tensor | None) -> int | None:
    for i, leaf in enumerate(leaves):
        if value is None or leaf is None or leaf.shape != value.shape:
            continue
        if difference([[value]], [[leaf]]).size <= _SAME_VALUE:
            return i
    return None


class _Values(Interpreter):
    """Runs a program and keeps the values of some of its nodes."""

    def __init__(self, program: ExportedProgram, wanted: set[str]) -> None:
        super().__init__(program.graph_module)
        self.program, self.wanted = program, wanted
        self.found: dict[str, torch.Tensor] = {}

    def run_node(self, node: Node) -> Any:
        result = super().run_node(node)
        if node.name in self.wanted:
            self.found[node.name] = result
            if len(self.found) == len(self.wanted):
                raise _EnoughError
        return result

    def of(self, inputs: ExampleInputs) -> dict[str, torch.Tensor]:
        leaves = pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
        with torch.no_grad(), suppress(_EnoughError):
            self.run(*fill_placeholders(self.program, leaves), enable_io_processing=False)
        return self.found
