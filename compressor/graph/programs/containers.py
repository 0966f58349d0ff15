"""Handle containers beside tuples, lists and dicts that networks take and return.

Named tuples, dataclasses and objects of the user's own are taken apart to be traced; in files,
plain containers stand for them.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

Names = tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]
"""The names of the parts of an object that is taken apart, and the values of its other
attributes."""

_PLAIN = (Tensor, str, bytes, int, float, complex, bool, type(None))


@contextmanager
def register_returned_types(module: nn.Module) -> Iterator[None]:
    """Register the types of what the module returns with torch's pytree, inside the block.

    This is done as the module returns, right before torch looks at the result.
    """
    handle = module.register_forward_hook(lambda _module, _inputs, returned: know_types(returned))
    try:
        yield
    finally:
        handle.remove()


def know_types(value: Any) -> None:
    """Register with torch's pytree the type of every part of the value that holds tensors.

    These are dataclasses, mappings of other classes than dict, and objects whose attributes are
    tensors, numbers and containers of such. A type stays registered. What torch or the type's own
    library has registered is left as it is.
    """
    for part in _parts(value):
        know_types(part)
    if type(value) not in pytree.SUPPORTED_NODES and _is_taken_apart(value):
        pytree.register_pytree_node(type(value), _take_apart, _put_together(type(value)))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    return list(_attributes(value).values()) if _is_taken_apart(value) else []


def _is_taken_apart(value: Any) -> bool:
    """Return whether a value holds tensors under names, and nothing only its class knows."""
    if isinstance(value, (*_PLAIN, list, tuple, type, nn.Module)) or type(value) is dict:
        return False
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        return True
    held = getattr(value, "__dict__", None)
    return isinstance(held, dict) and _holds_tensors(held) and _is_plain(held)


def _holds_tensors(value: Any) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Mapping | list | tuple):
        return any(map(_holds_tensors, inner))
    return isinstance(value, Tensor)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, _PLAIN)


def _attributes(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {f.name: getattr(value, f.name) for f in fields if hasattr(value, f.name)}
    return dict(value) if isinstance(value, Mapping) else dict(vars(value))


def _take_apart(value: Any) -> tuple[list[Any], Names]:
    named = _attributes(value)
    parts = {n: v for n, v in named.items() if _holds_tensors(v) or not _is_plain(v)}
    rest = tuple((name, v) for name, v in named.items() if name not in parts)
    return list(parts.values()), (tuple(parts), rest)


def _put_together(kind: type) -> Any:
    """Return a function that builds an object of the type from its parts again.

    The type's constructor is only called where it is the one that dataclasses have.
    """
    made_by_fields = dataclasses.is_dataclass(kind) and "__init__" in vars(kind)

    def together(parts: Any, names: Names) -> Any:
        named = {**dict(names[1]), **dict(zip(names[0], parts, strict=True))}
        if not dataclasses.is_dataclass(kind):
            return _fill(kind, named)
        params: Any = kind.__dataclass_params__  # type: ignore[attr-defined]  # in no stub
        if not (params.init and made_by_fields):
            return _fill(kind, named)
        given = {f.name for f in dataclasses.fields(kind) if f.init}
        made = kind(**{name: part for name, part in named.items() if name in given})
        for name in named.keys() - given:
            object.__setattr__(made, name, named[name])
        return made

    return together


def _fill(kind: type, named: Mapping[str, Any]) -> Any:
    if issubclass(kind, Mapping):
        return kind(named)  # type: ignore[call-arg]  # as mappings are made
    made = kind.__new__(kind)
    for name, part in named.items():
        object.__setattr__(made, name, part)
    return made


def names_of_outputs(program: ExportedProgram) -> list[str]:
    """Return the name of each of a program's outputs, such as "logits" or "boxes.1".

    The names are those of the containers that the network returns; a single nameless output is
    "output".
    """
    return [".".join(path) or "output" for path in _paths(program.call_spec.out_spec)]


def _paths(spec: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if spec.is_leaf():
        yield above
        return
    children = _children(spec)
    for name, child in zip(_names(spec) or map(str, range(len(children))), children, strict=True):
        yield from _paths(child, (*above, name))


def _children(spec: Any) -> list[Any]:
    """Return the children of a pytree's TreeSpec, in older and later versions of torch."""
    return list(spec.children() if hasattr(spec, "children") else spec.children_specs)


def _names(spec: Any) -> list[str]:
    """Return the names of the parts of one container, or an empty list if they have none."""
    context, count = spec.context, len(_children(spec))
    for named in (spec.type, context):  # which of the two a named tuple is depends on the version
        if isinstance(named, type) and issubclass(named, tuple):
            fields = getattr(named, "_fields", getattr(named, "__match_args__", ()))
            return list(fields[:count])
    for listed in (context, *(context if isinstance(context, list | tuple) else ())):
        is_named = isinstance(listed, list | tuple) and len(listed) == count
        if is_named and all(isinstance(name, str | int) for name in listed):
            return list(map(str, listed))
    return []


def plain(spec: Any) -> Any:
    """Return the structure (a pytree's TreeSpec) with tuples for all that is no list or dict."""
    return pytree.tree_structure(_plain(spec))


def _plain(spec: Any) -> Any:
    if spec.is_leaf():
        return 0
    parts = [_plain(child) for child in _children(spec)]
    if spec.type is list:
        return parts
    keys = spec.context[1] if spec.type is defaultdict else spec.context
    if spec.type in _DICTS and all(isinstance(key, str | int) for key in keys):
        return dict(zip(keys, parts, strict=True))
    return tuple(parts)


_DICTS = (dict, OrderedDict, defaultdict)


@contextmanager
def make_plain_for_a_while(program: ExportedProgram) -> Iterator[None]:
    """Let the program take and return plain containers, readable anywhere, in the block."""
    entry, examples = program.module_call_graph[0], program.example_inputs
    signature = entry.signature
    assert signature is not None
    specs = {name: plain(getattr(signature, name)) for name in ("in_spec", "out_spec")}
    entry.signature = dataclasses.replace(signature, **specs)
    try:
        if examples is not None:
            leaves = pytree.tree_leaves((examples[0], dict(examples[1])))
            program.example_inputs = pytree.tree_unflatten(leaves, specs["in_spec"])
        yield
    finally:
        entry.signature = signature
        program.example_inputs = examples
