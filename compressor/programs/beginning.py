"""The beginning of a network whose data decide how its forward goes on.

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
def calls_noted(module: nn.Module, returned: list[str]) -> Iterator[None]:
    """`returned` becomes the paths of the outermost modules with parameters that have returned, in
    the order of their calls.

    Calls within a function of a higher-order operator (torch.cond, a scan) are not noted: it may
    not change what lies outside, and the operator's own call has a module around it.
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
    """The last of the calls has returned, and what came out of it is wanted."""


class _Over:
    """What all modules return from then on. Whoever looks at it ends: each module in its own frame,
    because a tracer loses count of modules that an exception leaves."""

    def _end(self, *_: Any, **__: Any) -> Any:
        raise _EndError

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = _end
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _end

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise _EndError


@contextmanager
def ended_after(module: nn.Module, calls: Sequence[str]) -> Iterator[None]:
    """Meanwhile the module's forward ends after these calls, and returns the tensors that they
    returned. A program, which ends where it was traced to, and no calls change nothing."""
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
