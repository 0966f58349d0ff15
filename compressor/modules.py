"""Handle modules as users hold them: take wrappers off, and make copies that share nothing."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Collection, Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.causes import copying_hint, first_line
from compressor.errors import CompressorError
from compressor.on_demand import memory_of

WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": ("module", "nn.DataParallel"),
    "torch.nn.parallel.distributed.DistributedDataParallel": (
        "module",
        "DistributedDataParallel",
    ),
    "torch._dynamo.eval_frame.OptimizedModule": ("_orig_mod", "torch.compile"),
}
"""Classes that only run another module: the attribute that holds it, and a name for notes."""

_SPREAD = (
    "is spread over processes (FSDP)",
    "gather the weights (torch.distributed.checkpoint.state_dict.get_model_state_dict with "
    "full_state_dict=True), load them into a network of one process, and give that",
)
_SCRIPTED = (
    "is TorchScript, which runs as its own program and cannot be pruned",
    "use the Python class that was scripted or traced",
)
REFUSED = {
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": _SPREAD,
    "torch.distributed.fsdp._fully_shard._fully_shard.FSDPModule": _SPREAD,
    "torch.distributed._composable.fsdp.fully_shard.FSDPModule": _SPREAD,
    "torch.jit._script.ScriptModule": _SCRIPTED,
}
"""Classes that cannot be copied to one machine's CPU: what they are, and what to do."""


def lies_within(name: str, paths: Collection[str]) -> bool:
    """Return whether a module or tensor of this name lies within one of the modules at `paths`."""
    return any(name.startswith(f"{path}.") for path in paths)


def unwrap(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the network without wrappers that only run it (data parallel, compiled).

    The module is not changed: wrappers within the network are taken off a copy.

    Returns:
        The network, and a note for each kind of wrapper that was taken off.

    Raises:
        CompressorError: Its parameters are spread over processes, or a part of it is TorchScript.
    """
    _refuse(module)
    notes: dict[str, None] = {}
    while wrapper := _wrapper_of(module):
        module = getattr(module, wrapper[0])
        notes[f"the network is taken out of its wrapper {wrapper[1]}"] = None
    if isinstance(module, torch.fx.GraphModule):
        return module, tuple(notes)
    nested = [(path, layer) for path, layer in module.named_modules() if _wrapper_of(layer)]
    if nested:
        memo: dict[int, Any] = {}
        for _, layer in reversed(nested):  # the inner ones first
            memo[id(layer)] = copy_of(_inside(layer), memo)
        module = copy_of(module, memo)
        some = ", ".join(path for path, _ in nested[:3]) + (", …" if len(nested) > 3 else "")
        notes[f"layers are taken out of their wrappers: {some}"] = None
    return module, tuple(notes)


def copy_of(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return a deep copy of a module.

    Tensors that hang on a graph of gradients, which `copy.deepcopy` refuses (an attention map that
    was kept, a loss in a list), are copied without it, wherever they are. Lists and dicts that
    functions among the hooks write to stay the user's own, since functions are not copied: where
    the forward reads them, it must see what the hooks have written.

    Args:
        module: It is not changed.
        memo: Objects by id that stand for themselves or their copies, as for `copy.deepcopy`.

    Raises:
        CompressorError: Something in the module cannot be copied (a lock, an open file).
    """
    memo = {} if memo is None else memo
    memo |= {id(place): place for place in written_by_hooks(module)}
    try:
        with torch.no_grad(), _WithoutGraphs():
            copied = copy.deepcopy(module, memo)
    except Exception as error:  # each class has its own for what cannot be copied
        raise CompressorError(
            "the model cannot be copied",
            where=f"{type(module).__name__}: {first_line(error)}",
            consequence="it is not touched, and so not compressed",
            next_step=copying_hint(error),
        ) from error
    give_buffers_memory(copied)
    return copied


def shared_copy_of(module: nn.Module) -> nn.Module:
    """Return a copy of a module whose parameters are new ones with the very numbers of its own.

    Where several parameters lie in one memory (a file that is mapped), they are copied: what lies
    in one memory counts as one tensor.

    Raises:
        CompressorError: Something in the module cannot be copied.
    """
    memories = Counter(memory_of(parameter) for parameter in module.parameters())
    return copy_of(
        module,
        {
            id(parameter): nn.Parameter(parameter.detach(), parameter.requires_grad)
            for parameter in module.parameters()
            if memories[memory_of(parameter)] == 1
        },
    )


def give_buffers_memory(module: nn.Module) -> None:
    """Give each expanded buffer, whose elements share memory, memory of its own, in place.

    Its values stay as they are. torch cannot load anything into a buffer that shares memory.
    """
    for layer in module.modules():
        for name, buffer in layer._buffers.items():
            if buffer is not None and buffer.layout == torch.strided and _is_expanded(buffer):
                layer._buffers[name] = buffer.contiguous()


def _is_expanded(tensor: Tensor) -> bool:
    return any(
        size > 1 and not step for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )


def written_by_hooks(module: nn.Module) -> Iterator[Any]:
    """Yield the lists, dicts and sets that functions among the module's hooks can write to."""
    for layer in module.modules():
        for hook in (*layer._forward_hooks.values(), *layer._forward_pre_hooks.values()):
            if isinstance(hook, FunctionType):
                variables = inspect.getclosurevars(hook)
                reached = (*variables.nonlocals.values(), *variables.globals.values())
                yield from (place for place in reached if isinstance(place, list | dict | set))


class _WithoutGraphs(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _inside(layer: nn.Module) -> nn.Module:
    while wrapper := _wrapper_of(layer):
        layer = getattr(layer, wrapper[0])
    return layer


def _wrapper_of(module: nn.Module) -> tuple[str, str] | None:
    return next((WRAPPERS[name] for name in _classes(module) if name in WRAPPERS), None)


def _classes(module: nn.Module) -> Iterator[str]:
    for cls in type(module).__mro__:
        yield f"{cls.__module__}.{cls.__qualname__}"


def _refuse(module: nn.Module) -> None:
    for path, layer in module.named_modules():
        for name in _classes(layer):
            if name in REFUSED:
                what, next_step = REFUSED[name]
                raise CompressorError(
                    f"{f'the layer {path}' if path else 'the network'} {what}",
                    where=type(layer).__name__,
                    consequence="there is no network to compress",
                    next_step=next_step,
                )
