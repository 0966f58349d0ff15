"""Run only the beginning of a network whose data decide how its forward goes on.

A detector chooses boxes by their scores, and what comes then has sizes that no program knows. The
modules called before that, the layers with the weights, are a network of its own, which ends with
what they return.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree


@contextmanager
def note_calls(module: nn.Module, returned: list[str]) -> Iterator[None]:
    """Note the outermost modules with parameters that return inside the block.

    Calls within a function of a higher-order operator (torch.cond, a scan) are not noted: it may
    not change what lies outside, and the operator's own call has a module around it.

    Args:
        module: The network that is called.
        returned: Is filled with the modules' paths, in the order of their calls.
    """
    returned.clear()
    begun: list[int] = []

    def enter(*_: Any) -> None:
        if not torch.compiler.is_dynamo_compiling():
            begun.append(len(returned))

    def leave(path: str, has_parameters: bool) -> None:
        if torch.compiler.is_dynamo_compiling():
            return
        begin = begun.pop()
        if has_parameters:
            returned[begin:] = [path]

    handles = []
    for path, layer in module.named_modules():
        if path:
            has = next(layer.parameters(), None) is not None
            handles += [
                layer.register_forward_pre_hook(enter),
                layer.register_forward_hook(lambda *_, path=path, has=has: leave(path, has)),
            ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _EndError(Exception):
    """The error that ends a forward after the last wanted call has returned."""


class _Over:
    """What all modules return after the last wanted call: whatever uses it ends the forward.

    Each module ends in its own frame, because a tracer loses count of modules that an exception
    leaves.
    """

    def _end(self, *_: Any, **__: Any) -> Any:
        raise _EndError

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = _end
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _end

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise _EndError


@contextmanager
def end_after(module: nn.Module, calls: Sequence[str]) -> Iterator[None]:
    """Let the module's forward end after these calls inside the block, returning their tensors.

    Nothing changes without calls, or for a program, which ends where it was traced to.

    Args:
        module: Its forwards are replaced, and restored afterwards.
        calls: Paths of the called modules, in order, as `note_calls` notes them.
    """
    if not calls or isinstance(module, GraphModule):
        yield
        return
    results: list[Any] = []

    def ending(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not path:
                results.clear()
            result: Any = _Over()
            with suppress(_EndError):
                result = forward(*args, **kwargs)
            if not path:
                leaves = pytree.tree_leaves(results)
                return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            if len(results) < len(calls) and path == calls[len(results)]:
                results.append(result)
                return _Over() if len(results) == len(calls) else result
            return result

        return run

    usual = {layer: vars(layer).get("forward") for layer in module.modules()}
    try:
        for path, layer in module.named_modules():
            vars(layer)["forward"] = ending(path, layer.forward)
        yield
    finally:
        for layer, forward in usual.items():
            vars(layer).pop("forward", None)
            if forward is not None:
                vars(layer)["forward"] = forward
