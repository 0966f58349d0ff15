"""One operator called twice: as it stands, and on operands that have lost what its rule says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401 - its operators have rules
import transformers.integrations.moe  # noqa: F401 - so has its operator
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.graph.axes import (
    Axis,
    Bools,
    Dim,
    keep_mask,
    leaves,
    repeated_in_product,
)
from compressor.graph.rules import RULES, Call, Equations
from compressor.graph.rules.call import TensorShape
from compressor.graph.solver import Reason, Solver
from compressor.slicing.program import OPEN

Overload = Any
Place = tuple[str, int]
"""An argument, and the position in it where it is a list of tensors (else 0)."""


def overload(name: str) -> Overload:
    *namespace, operator, variant = name.removeprefix("aten.").split(".")
    return getattr(getattr(getattr(torch.ops, *namespace or ["aten"]), operator), variant)


def run(name: str, arguments: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The operator on copies, since some write into their operands."""
    copies = pytree.tree_map_only(Tensor, torch.clone, dict(arguments))
    names = {a.name for a in overload(name)._schema.arguments}
    result = overload(name)(**{key: value for key, value in copies.items() if key in names})
    return tuple(result) if isinstance(result, list | tuple) else (result,)


@dataclass(frozen=True)
class Solved:
    """A call with the dimensions that its rule gives to operands and results, solved."""

    name: str
    arguments: Mapping[str, Any]
    results: tuple[Tensor, ...]
    shapes: Mapping[Place, tuple[Dim, ...]]
    equations: Equations
    solver: Solver

    def normal(self, dims: Any) -> tuple[Dim, ...]:
        return tuple(map(self.solver.normal, dims))

    @property
    def free(self) -> list[Axis]:
        """Axes that may lose indices without changing what is left of the result."""
        solver, equations = self.solver, self.equations
        shapes = [*map(self.normal, self.shapes.values()), *map(self.normal, equations.outputs)]
        dims = [dim for shape in shapes for dim in shape]
        mixed = {a for dim in self.normal(equations.statistics) for a in leaves(dim)}
        mixed |= {axis for dim in dims for axis in repeated_in_product(dim)}
        axes = dict.fromkeys(axis for dim in dims for axis in leaves(dim))
        return [axis for axis in axes if not solver.is_kept(axis) and axis not in mixed]


def solve(name: str, *given: Any, **named: Any) -> Solved:
    """The operator called, its rule asked, and the equations solved."""
    schema = overload(name)._schema.arguments
    arguments = dict(zip((a.name for a in schema), given, strict=False)) | named
    results = run(name, arguments)
    shapes: dict[Place, TensorShape] = {}

    def seen(value: Any, place: Place) -> Any:
        if isinstance(value, Tensor):
            shapes[place] = TensorShape(Axis(n) for n in value.shape)
            return shapes[place]
        if isinstance(value, list | tuple):
            return tuple(seen(item, (place[0], i)) for i, item in enumerate(value))
        return value

    everything = {a.name: arguments.get(a.name, a.default_value) for a in schema}
    call = Call(
        name,
        {key: seen(value, (key, 0)) for key, value in everything.items()},
        tuple(tuple(result.shape) for result in results),
    )
    equations, solver = RULES[name](call), Solver()
    for dim, text in equations.keep:
        solver.protect(dim, Reason(text))
    for left, right in equations.same:
        solver.unify(left, right, Reason(name))
    return Solved(name, arguments, results, shapes, equations, solver)


def operands(arguments: Mapping[str, Any]) -> Iterator[tuple[Place, Tensor]]:
    for name, value in arguments.items():
        for i, item in enumerate(value if isinstance(value, list | tuple) else [value]):
            if isinstance(item, Tensor):
                yield (name, i), item


def taken(tensor: Tensor, shape: tuple[Dim, ...], keep: Mapping[Axis, Bools]) -> Tensor:
    for at, dim in enumerate(shape):
        tensor = tensor.index_select(at, torch.from_numpy(keep_mask(dim, keep).nonzero()[0]))
    return tensor


def silenced(call: Solved, keep: Mapping[Axis, Bools], extra: tuple[Place, ...]) -> dict[str, Any]:
    """The arguments with zeros where dropped positions are summed over."""
    summed = [(*_place(argument), dim) for argument, dim in call.equations.contracted]
    arguments = dict(call.arguments)
    for name, position, dim in [*summed, *((name, 0, dim) for name, dim in extra)]:
        held = arguments[name]
        tensor = (held[position] if isinstance(held, list) else held).clone()
        expression = call.solver.normal(call.shapes[name, position][dim])
        lost = torch.from_numpy((~keep_mask(expression, keep)).nonzero()[0])
        tensor.index_fill_(dim, lost, 0)
        if isinstance(held, list):
            arguments[name] = [*held[:position], tensor, *held[position + 1 :]]
        else:
            arguments[name] = tensor
    return arguments


def _place(argument: str) -> Place:
    name, _, position = argument.partition(".")
    return name, int(position or 0)


def sliced_call(call: Solved, keep: Mapping[Axis, Bools]) -> tuple[Tensor, ...]:
    """The operator on sliced operands, its literals and pins spelled from the new sizes."""
    arguments = dict(call.arguments)
    for (name, i), tensor in operands(call.arguments):
        small = taken(tensor, call.normal(call.shapes[name, i]), keep)
        held = arguments[name]
        arguments[name] = [*held[:i], small, *held[i + 1 :]] if isinstance(held, list) else small
    for name, spelled in call.equations.literals.items():
        old = arguments.get(name)
        if isinstance(spelled, tuple) and isinstance(old, list) and not call.equations.target:
            pairs = zip(old, spelled, strict=True)
            arguments[name] = [o if o == OPEN.get(name) else _size(call, d, keep) for o, d in pairs]
        elif isinstance(spelled, tuple):
            arguments[name] = [_size(call, dim, keep) for dim in spelled]
        elif old is not None or call.equations.target:
            arguments[name] = old if old == OPEN.get(name, ()) else _size(call, spelled, keep)
    for name, (value, dim) in call.equations.pins.items():
        if _size(call, dim, keep) != dim.size:
            arguments[name] = value
    return run(call.equations.target or call.name, arguments)


def _size(call: Solved, spelled: Dim | int, keep: Mapping[Axis, Bools]) -> int:
    if isinstance(spelled, int):
        return spelled
    return int(keep_mask(call.solver.normal(spelled), keep).sum())


def random_masks(axes: list[Axis], seed: int) -> dict[Axis, Bools]:
    """Every axis loses at least one index and keeps at least one."""
    rng = np.random.default_rng(seed)
    masks = {axis: np.zeros(axis.size, dtype=bool) for axis in axes}
    for axis, mask in masks.items():
        mask[rng.permutation(axis.size)[: rng.integers(1, axis.size)]] = True
    return masks
