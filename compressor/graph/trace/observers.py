"""Set aside the user's hooks that only watch: they record activations, print, or write files.

A capture calls hooks with tensors without values, on which these fail or which they would keep.
Those whose absence changes no output are set aside while the network is captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from compressor.graph.trace.keepsakes import restore_stored
from compressor.modules import copy_of, written_by_hooks
from compressor.records import ExampleInputs

Hooks = MutableMapping[int, Callable[..., Any]]


@contextmanager
def switch_observers_off(module: nn.Module, examples: ExampleInputs) -> Iterator[list[str]]:
    """Switch off the hooks that only watch inside the block; yield a note if there are any."""
    before = [(hooks, dict(hooks)) for hooks in _hooks_of(module)]
    watching = any(_keys_of_own(hooks) for hooks, _ in before) and _only_watch(module, examples)
    if watching:
        _remove(module)
    try:
        yield ["hooks that change no output are left out of the program"] if watching else []
    finally:
        for hooks, kept in before:
            hooks.clear()
            hooks.update(kept)


def _only_watch(module: nn.Module, examples: ExampleInputs) -> bool:
    """Return whether a copy without the user's hooks computes the same, bit for bit.

    It sees other values than any run before, and finds empty what the hooks write to: otherwise
    what they had left there could stand for what they do.
    """
    with_hooks, without = copy_of(module), copy_of(module)
    _remove(without)
    outputs = []
    try:
        with restore_stored(module), torch.no_grad(), torch.random.fork_rng(devices=()):
            args, kwargs = pytree.tree_map(_alter, (examples.args, dict(examples.kwargs)))
            for place in written_by_hooks(module):
                place.clear()
            for network in (without, with_hooks):
                torch.manual_seed(0)
                outputs.append(network(*args, **kwargs))
    except Exception:  # whatever the model's code raises where a hook is missing
        return False
    leaves = [pytree.tree_leaves(output) for output in outputs]
    return len(leaves[0]) == len(leaves[1]) and all(map(_equal, *leaves))


def _alter(leaf: Any) -> Any:
    """Return other values of the same kind: floats change by some per cent, others in order."""
    if not isinstance(leaf, torch.Tensor) or not leaf.dim():
        return leaf
    if leaf.is_floating_point():
        return leaf * (1 + 0.1 * torch.rand(leaf.shape)).to(leaf.dtype)
    return leaf.roll(1, -1)


def _equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    return type(one) is type(other)


def _hooks_of(module: nn.Module) -> Iterator[Hooks]:
    for layer in module.modules():
        yield layer._forward_pre_hooks
        yield layer._forward_hooks


def _keys_of_own(hooks: Hooks) -> list[int]:
    """Return the keys of the user's hooks, not of torch's own."""
    # torch's own have a purpose: old weight norm computes its weight in one
    return [key for key, hook in hooks.items() if not _is_torchs(hook)]


def _is_torchs(hook: Callable[..., Any]) -> bool:
    while isinstance(hook, partial):
        hook = hook.func
    module = getattr(hook, "__module__", "") or ""
    return module == "torch" or module.startswith("torch.")


def _remove(module: nn.Module) -> None:
    for hooks in _hooks_of(module):
        for key in _keys_of_own(hooks):
            del hooks[key]
