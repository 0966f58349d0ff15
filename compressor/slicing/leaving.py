"""Let items that only hand on what they are given leave their `Sequential` or `ModuleList`.

It is the last thing that is done to the user's class: the items after them move up, so that names
of parameters change. Until then, and in the files of a result, all names are the original's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from inspect import signature
from typing import Any

from torch import nn

from compressor.modules import copy_of, lies_within
from compressor.records import Plan, Trace
from compressor.slicing import Sliced
from compressor.slicing.compare import Reference
from compressor.slicing.weights import named_tensors

NUMBER = re.compile(r"layer_?(idx|id|index|number)")
"""Names of attributes by which a layer knows its place among others, to find its own cache."""


def find_leaving(sliced: Sliced, trace: Trace) -> tuple[str, ...]:
    """Return the paths of the items that can leave: without them the class computes the same.

    Args:
        sliced: The smaller network; it is not changed.
        trace: The trace that it was cut from.
    """
    removal = sliced.plan.removal
    if removal is None or sliced.plan.form != "class":
        return ()
    items = _empty_items(sliced.module, (*removal.passing, *removal.muted))
    if not items:
        return ()
    reference = Reference(sliced.module, trace)
    tensors = {id(tensor): tensor for tensor in named_tensors(sliced.module).values()}
    leaving: list[str] = []
    for path in items:
        if not lies_within(path, leaving):
            tried = copy_of(sliced.module, dict(tensors))
            leave(tried, [*leaving, path])
            if _agrees(reference, tried):
                leaving.append(path)
    return tuple(sorted(leaving))


def _empty_items(module: nn.Module, replaced: Collection[str]) -> list[str]:
    """Return the items of containers that have no tensors since blocks are gone, outermost first.

    Args:
        module: The smaller class.
        replaced: Paths of the modules in it that do nothing.
    """
    empty: set[str] = set()
    for path in replaced:
        while path:
            container, _, _ = path.rpartition(".")
            if named_tensors(module.get_submodule(path)):
                break
            if _can_be_shortened(module.get_submodule(container)):
                empty.add(path)
            path = container
    return sorted(empty, key=lambda path: (path.count("."), path))


def leave(module: nn.Module, items: Iterable[str]) -> None:
    """Take items out of their containers, in place; configurations have fewer layers then.

    Args:
        module: The network, whose layers are named as in the original.
        items: Paths of the items.
    """
    names = _by_container(items)
    containers = {module.get_submodule(path): path for path in names}  # before any is renumbered
    for container, path in containers.items():
        old, keys = dict(container._modules), names[path]
        places = [place for place, key in enumerate(old) if key in keys]
        left = [(key, layer) for key, layer in old.items() if key not in keys]
        numbered = _is_numbered(container)
        container._modules.clear()
        for place, (key, layer) in enumerate(left):
            container._modules[str(place) if numbered else key] = layer
            if numbered and layer is not None:
                _renumber(layer, int(key), place)
        for config in _configurations(module, path):
            _shorten_lists(config, len(old), places)
            for name in _counts_of_layers(config, path, len(old)):
                setattr(config, name, len(left))


def rename(names: Iterable[str], items: Collection[str]) -> dict[str, str]:
    """Map names of tensors to those that they have once the items have left."""
    containers = {
        path: [int(key) for key in keys if key.isdigit()]
        for path, keys in _by_container(items).items()
    }
    return {name: ".".join(_parts(name, containers)) for name in names}


def _parts(name: str, containers: Mapping[str, list[int]]) -> Iterator[str]:
    parts = name.split(".")
    for i, part in enumerate(parts):
        gone = containers.get(".".join(parts[:i]), [])
        moves = gone and part.isdigit()
        yield str(int(part) - sum(key < int(part) for key in gone)) if moves else part


def without_cache(original: nn.Module, plan: Plan) -> list[str]:
    """Return the layers that stay in the result but fill no cache of keys and values any more.

    Args:
        original: The network as it was given.
        plan: What the result is.
    """
    removal = plan.removal
    if removal is None or plan.form != "class":
        return []
    gone = removal.leaving
    quiet = {*removal.passing, *removal.muted, *plan.stand_ins} - set(gone)
    left = sorted(path for path in quiet if not lies_within(path, gone))
    return [path for path in left if _takes_cache(original.get_submodule(path))]


def _takes_cache(layer: nn.Module) -> bool:
    return any("past" in name or "cache" in name for name in signature(layer.forward).parameters)


def _by_container(items: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of items within their containers, by the containers' paths."""
    names: dict[str, list[str]] = {}
    for path in items:
        container, _, item = path.rpartition(".")
        names.setdefault(container, []).append(item)
    return names


def _can_be_shortened(container: nn.Module) -> bool:
    if not isinstance(container, nn.Sequential | nn.ModuleList):
        return False
    return _is_numbered(container) or not any(key.isdigit() for key in container._modules)


def _is_numbered(container: nn.Module) -> bool:
    return list(container._modules) == [str(i) for i in range(len(container._modules))]


def _agrees(reference: Reference, module: nn.Module) -> bool:
    try:
        return reference.agrees(reference.worst_difference(module))
    except Exception:  # whatever the network's code raises
        return False


# -- what the network knows of its layers ----------------------------------------------------------


def _renumber(item: nn.Module, old: int, new: int) -> None:
    """Tell an item's layers, in place, of the item's new place."""
    for layer in item.modules():
        for name, value in list(vars(layer).items()):
            if NUMBER.fullmatch(name) and value == old:
                setattr(layer, name, new)


def _configurations(module: nn.Module, path: str) -> list[Any]:
    """Return the configurations of the modules around a container, each once."""
    around = (layer for at, layer in module.named_modules() if not at or path.startswith(f"{at}."))
    configs = (vars(layer).get("config") for layer in around)
    return list({id(c): c for c in configs if hasattr(c, "__dict__")}.values())


def _counts_of_layers(config: Any, path: str, count: int) -> list[str]:
    """Return the names of attributes that say how many layers a container has.

    Where encoder and decoder have as many, the name tells which is meant.
    """
    named = [
        name
        for name, value in vars(config).items()
        if "layer" in name and type(value) is int and value == count
    ]
    roles = [role for role in ("encoder", "decoder") if role in path.split(".")]
    own = [name for name in named if any(role in name for role in roles)]
    return own or [name for name in named if "encoder" not in name and "decoder" not in name]


def _shorten_lists(config: Any, count: int, places: Collection[int]) -> None:
    """Drop the places of layers that are gone from lists with one value per layer, in place."""
    for name, value in list(vars(config).items()):
        if "layer" in name and isinstance(value, list | tuple) and len(value) == count:
            left = type(value)(each for i, each in enumerate(value) if i not in places)
            setattr(config, name, left)
