"""Find new values for sizes that the code takes from attributes, by the operators' sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from compressor.graph.axes import Axis, Dim, size_after
from compressor.graph.network import BATCH, Network
from compressor.graph.programs.nodes import argument, operator_of, schema_names
from compressor.graph.rules.facts import CHANNEL_COUNTS
from compressor.records import Trace
from compressor.source_lines import owner_of

Attributes = dict[str, dict[str, Any]]
"""Module path -> attribute -> value."""


def find_attributes(
    module: nn.Module, trace: Trace, network: Network, sizes: Mapping[Axis, int]
) -> tuple[Attributes, list[str]]:
    """Find new values for integer attributes that the code uses as sizes which change.

    Returns:
        The attributes, and the paths of modules with such a size that no attribute holds.
    """
    layers = dict(module.named_modules())
    spelled: dict[str, list[tuple[int, int]]] = {}
    for path, old, new in _list_literals(trace, network, sizes):
        if path in layers:  # where blocks were taken out, some run traced operators instead
            spelled.setdefault(path, []).append((old, new))
    attributes = _listed_attributes(module, trace, network, sizes)
    elsewhere: Attributes = {}
    unspelled: list[str] = []
    for path, pairs in spelled.items():
        if all(old == new for old, new in pairs):
            continue
        own, whole = _spell(module.get_submodule(path), pairs)
        listed = attributes.get(path, {})
        if own:
            attributes[path] = own | listed
        if not whole and not listed:
            unspelled.append(path)
            elsewhere |= _spell_by_parts(module.get_submodule(path), path, pairs)
    for path, values in elsewhere.items():
        attributes[path] = values | attributes.get(path, {})
    return attributes, unspelled


def _spell_by_parts(owner: nn.Module, path: str, pairs: list[tuple[int, int]]) -> Attributes:
    """Find new values for integers that the owner's code reads from its submodules.

    What the submodules' own code says about them takes precedence.
    """
    attributes: Attributes = {}
    for name, part in owner.named_children():
        if values := _spell(part, pairs)[0]:
            attributes[f"{path}.{name}".removeprefix(".")] = values
    return attributes


def _list_literals(
    trace: Trace, network: Network, sizes: Mapping[Axis, int]
) -> Iterator[tuple[str, int, int]]:
    """Yield (owning module, old size, new size) for every size that the code spells out."""
    for node in trace.program.graph.nodes:
        spelling = network.nodes.get(node.name)
        if spelling is None:
            continue
        for name, spelled in spelling.literals.items():
            for value, dim in _given_sizes(node, name, spelled):
                old, new = _per_sample(dim.size), _per_sample(size_after(dim, sizes))
                if value != -1 and value is not None:
                    yield owner_of(node), old, new


def _given_sizes(node: torch.fx.Node, name: str, spelled: Any) -> Iterator[tuple[Any, Dim]]:
    """Yield the values of an argument with their dimensions.

    An operator that gives one size for all pieces has no argument of that name; the pieces' sizes
    are given then.
    """
    dims = spelled if isinstance(spelled, tuple) else (spelled,)
    if name in schema_names(node):
        given = argument(node, name)
        values = given if isinstance(given, list | tuple) else (given,)
    else:
        values = [dim if isinstance(dim, int) else dim.size for dim in dims]
    yield from ((v, d) for v, d in zip(values, dims, strict=False) if not isinstance(d, int))


def _per_sample(size: int) -> int:
    return size // BATCH if size % BATCH == 0 else size


def _spell(owner: nn.Module, pairs: list[tuple[int, int]]) -> tuple[dict[str, Any], bool]:
    """Find new values for the owner's integers, and whether every size that changes has one.

    They are assigned in order of use, or all to the one new size that there is (the old size may
    also stand for something else, such as the 3 of a fused query, key and value).
    """
    values: dict[str, Any] = {}
    whole = True
    for old in dict.fromkeys(old for old, new in pairs if old != new):
        news = [new for before, new in pairs if before == old]
        names = [name for name, value in vars(owner).items() if type(value) is int and value == old]
        changed = {new for new in news if new != old}
        if len(names) == len(news):
            values |= dict(zip(names, news, strict=True))
        elif len(changed) == 1:
            values |= dict.fromkeys(names, changed.pop())
        else:
            names = []
        whole = whole and bool(names)
    return {name: value for name, value in values.items() if value != getattr(owner, name)}, whole


def _listed_attributes(
    module: nn.Module, trace: Trace, network: Network, sizes: Mapping[Axis, int]
) -> Attributes:
    """Find new values for attributes that hold all sizes of a list argument, or a channel count.

    Lists are the shape that is normalised, sizes to unflatten to, or pads.
    """
    candidates: dict[tuple[str, str], list[Any]] = {}
    layers = dict(module.named_modules())
    for node in trace.program.graph.nodes:
        spelling, path = network.nodes.get(node.name), owner_of(node)
        owner = layers.get(path)
        if spelling is None or owner is None:
            continue
        if (name := CHANNEL_COUNTS.get(operator_of(node))) and hasattr(owner, name):
            count = _per_sample(size_after(spelling.outputs[0][1], sizes))
            candidates.setdefault((path, name), []).append(count)
        for literal, spelled in spelling.literals.items():
            given = argument(node, literal) if literal in schema_names(node) else None
            if isinstance(spelled, tuple) and isinstance(given, list | tuple):
                new = _new_list(given, spelled, sizes)
                for name in _lists_like(owner, given):
                    candidates.setdefault((path, name), []).append(new)
    attributes: Attributes = {}
    for (path, name), news in candidates.items():
        if all(new == news[0] for new in news) and news[0] != _as_list(
            getattr(module.get_submodule(path), name)
        ):
            attributes.setdefault(path, {})[name] = news[0]
    return attributes


def _new_list(given: Any, spelled: Any, sizes: Mapping[Axis, int]) -> list[Any]:
    return [
        old if old == -1 or isinstance(dim, int) else _per_sample(size_after(dim, sizes))
        for old, dim in zip(given, spelled, strict=True)
    ]


def _lists_like(owner: nn.Module, given: Any) -> list[str]:
    """Return the names of attributes that hold exactly these numbers."""
    return [
        name
        for name, value in vars(owner).items()
        if isinstance(value, list | tuple) and list(value) == list(given)
    ]


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
