"""Restore what a forward stores in attributes and lists, so that a capture leaves nothing there.

While a network is captured its forward runs on tensors without values. What it stores then (an
attention map in an attribute, an activation that a hook appends to a list of the user's) would stay
there and break whatever reads it later.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

DEEPEST = 4
KEPT_ELSEWHERE = (nn.Module, types.ModuleType, type)
"""Kinds of values that are not searched: modules are gone through on their own, and classes and
imported modules are not the network's."""


@contextmanager
def restore_stored(module: nn.Module) -> Iterator[None]:
    """Restore, after the block, what the network's code can have stored.

    These are the attributes of every layer, and the lists, dicts and variables that its forward and
    its hooks reach.
    """
    restore = [undo for place in _find_places(module) for undo in place]
    try:
        yield
    finally:
        for undo in restore:
            undo()


def _find_places(module: nn.Module) -> Iterator[Iterator[Callable[[], None]]]:
    seen: set[int] = set()
    for layer in module.modules():
        own = vars(layer)
        for name, value in own.items():
            if name not in ("_parameters", "_buffers", "_modules"):
                yield _keep(value, seen, 0)
        yield iter((functools.partial(_refill, own, dict(own)),))
        forward = inspect.getattr_static(type(layer), "forward", None)
        if isinstance(forward, types.FunctionType):
            yield _keep(forward, seen, 0)


def _keep(value: Any, seen: set[int], depth: int) -> Iterator[Callable[[], None]]:
    """Yield functions that undo changes of a value, and of all that it leads to."""
    if id(value) in seen or depth > DEEPEST or isinstance(value, KEPT_ELSEWHERE):
        return
    seen.add(id(value))
    inner: list[Any] = []
    if isinstance(value, list | deque):
        inner = list(value)
        yield functools.partial(_reset, value, list(value))
    elif isinstance(value, dict):
        inner = list(value.values())
        yield functools.partial(_refill, value, dict(value))
    elif isinstance(value, set):
        yield functools.partial(_reset_set, value, set(value))
    elif isinstance(value, tuple):
        inner = list(value)
    elif isinstance(value, functools.partial):
        inner = [value.func, value.args, value.keywords]
    elif isinstance(value, types.MethodType):
        inner = [value.__func__, value.__self__]
    elif isinstance(value, types.FunctionType):
        yield from _variables_of(value)
        inner = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        inner += [value.__globals__.get(name) for name in value.__code__.co_names]
        inner = [each for each in inner if not isinstance(each, types.FunctionType)]
        inner.append(value.__defaults__)
    elif _is_users_object(value):
        inner = [vars(value)]
    for each in inner:
        yield from _keep(each, seen, depth + 1)


def _variables_of(function: types.FunctionType) -> Iterator[Callable[[], None]]:
    for cell in function.__closure__ or ():
        if _is_filled(cell):
            yield functools.partial(setattr, cell, "cell_contents", cell.cell_contents)
    known = function.__globals__
    for name in function.__code__.co_names:
        if name in known and not name.startswith("__"):
            yield functools.partial(known.__setitem__, name, known[name])


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (an empty one raises)
    except ValueError:
        return False
    return True


def _is_users_object(value: Any) -> bool:
    """Return whether a value has attributes and a class that is not torch's or numpy's."""
    home = type(value).__module__.partition(".")[0]
    return home not in ("torch", "builtins", "numpy") and hasattr(value, "__dict__")


def _reset(items: Any, before: list[Any]) -> None:
    items.clear()
    items.extend(before)


def _reset_set(items: set[Any], before: set[Any]) -> None:
    items.clear()
    items.update(before)


def _refill(mapping: dict[Any, Any], before: dict[Any, Any]) -> None:
    if mapping.keys() == before.keys() and all(mapping[k] is v for k, v in before.items()):
        return
    mapping.clear()
    mapping.update(before)
