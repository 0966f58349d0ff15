"""Note inputs that are not tensors, which a captured program has as constants."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from torch.utils import _pytree as pytree

from compressor.records import ExampleInputs

SHOWN = 40


def note_fixed_inputs(module: nn.Module, examples: ExampleInputs) -> list[str]:
    """Return a note of the numbers, flags and texts among the inputs, if there are any."""
    fixed = [
        f"{name}={_shorten(value)}"
        for name, value in _name_leaves(module, examples)
        if not isinstance(value, torch.Tensor) and value is not None
    ]
    if not fixed:
        return []
    return [
        f"inputs that are no tensors are constants of the program and of the ONNX file: "
        f"{', '.join(fixed)} (a number that is to vary has to come as a tensor)"
    ]


def _name_leaves(module: nn.Module, examples: ExampleInputs) -> list[tuple[str, object]]:
    """Return every leaf of the inputs with its name, by the names of forward's arguments."""
    try:
        bound = inspect.signature(module.forward).bind(*examples.args, **examples.kwargs)
    except (TypeError, ValueError):
        return []
    try:
        leaves, _ = pytree.tree_flatten_with_path(dict(bound.arguments))
    except ValueError:  # a type that was registered without names of its fields
        return [
            (name, leaf)
            for name, value in bound.arguments.items()
            for leaf in pytree.tree_leaves(value)
        ]
    return [(_name(path), value) for path, value in leaves]


def _name(path: tuple[object, ...]) -> str:
    """Return an argument's own name, and the path to the leaf within it."""
    first, *rest = path
    return str(getattr(first, "key", first)) + pytree.keystr(tuple(rest))  # type: ignore[arg-type]


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
