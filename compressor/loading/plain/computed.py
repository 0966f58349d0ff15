"""Replace weights that a layer computes from other tensors before its forward runs.

These are parametrisations, weight norm, spectral norm and masks of `torch.nn.utils.prune`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from compressor.errors import CompressorError
from compressor.loading.plain.putting_back import (
    Again,
    pruning_mask,
    weight_norm_hook,
    weight_norm_parametrisation,
)


@dataclass(frozen=True)
class Computed:
    """A layer's tensor that was computed from others, and how.

    Attributes:
        path: The layer's path.
        name: The tensor's name within the layer.
        kind: The computation in words.
        sources: Ids of the tensors that it was computed from; layers that share all of them share
            the result.
        again: Puts the computation back on a smaller layer, where that is exact.
    """

    path: str
    name: str
    kind: str
    sources: tuple[int, ...]
    again: Again | None = None


@dataclass(frozen=True)
class HookKind:
    """A kind of computation by a forward pre-hook.

    Attributes:
        words: Its name in words.
        attribute: The hook's attribute that holds the tensor's name.
        sources: Endings of the names of the tensors that it reads.
        end: torch's own way to end it.
        again: Makes, of hook and layer, a way to put the computation back.
    """

    words: str
    attribute: str
    sources: tuple[str, ...]
    end: Callable[[nn.Module, str], object]
    again: Callable[[Any, nn.Module], Again] | None = None


MASK = "a pruning mask"

HOOKS: dict[type, HookKind] = {
    WeightNorm: HookKind("weight norm", "name", ("_g", "_v"), remove_weight_norm, weight_norm_hook),
    SpectralNorm: HookKind("spectral norm", "name", ("_orig",), remove_spectral_norm),
    prune.BasePruningMethod: HookKind(MASK, "_tensor_name", ("_orig",), prune.remove, pruning_mask),
}


def plain_tensors(layer: nn.Module, path: str) -> list[Computed]:
    """Turn a layer's computed tensors into parameters of the values that act, in place.

    What they were computed from is removed. A parameter learns if any of its sources did.

    Args:
        layer: A layer in eval mode, where computing a weight changes nothing (spectral norm's
            power iteration runs in training).
        path: The layer's path, for the error.

    Raises:
        CompressorError: A hook of an unknown kind computes a tensor of the layer.
    """
    all_computed = [*_without_hooks(layer, path), *_without_parametrisations(layer, path)]
    others = layer._parameters.keys() - {computed.name for computed in all_computed}
    for name in [name for name in layer._parameters if all_computed and name in others]:
        layer._parameters[name] = layer._parameters.pop(name)  # groups are named after the first
    _refuse_unknown(layer, path)
    return all_computed


def is_computed(layer: nn.Module) -> bool:
    """Return whether a layer may have a tensor that is computed before its forward."""
    return parametrize.is_parametrized(layer) or bool(layer._forward_pre_hooks)


def _without_hooks(layer: nn.Module, path: str) -> Iterator[Computed]:
    """Take off the hooks that compute tensors, in place, and yield what they computed."""
    # the last one first: it may compute what an earlier one reads
    for hook in reversed(list(layer._forward_pre_hooks.values())):
        kind = next((kind for of, kind in HOOKS.items() if isinstance(hook, of)), None)
        if kind is None:
            continue
        name = getattr(hook, kind.attribute)
        sources = [getattr(layer, name + ending) for ending in kind.sources]
        learns = any(source.requires_grad for source in sources)
        again = kind.again(hook, layer) if kind.again else None
        kind.end(layer, name)
        _without_state_hooks(layer, type(hook))
        getattr(layer, name).requires_grad_(learns)
        yield Computed(path, name, kind.words, tuple(map(id, sources)), again)


def _without_state_hooks(layer: nn.Module, kind: type) -> None:
    """Remove a computation's hooks on reading and writing the layer's state, in place.

    `remove_spectral_norm` misses them, since torch wraps them in an object. They are recognised by
    being defined in the same module of torch as the computation (`kind`).
    """
    for hooks in (layer._state_dict_hooks, layer._load_state_dict_pre_hooks):
        for key, hook in list(hooks.items()):
            inner = getattr(hook, "hook", hook)
            if type(inner).__module__ == kind.__module__:
                del hooks[key]


def _without_parametrisations(layer: nn.Module, path: str) -> Iterator[Computed]:
    """Take off the layer's parametrisations, in place, and yield what they computed.

    `remove_parametrizations` cannot be used: it changes the layer's class, which a copy shares with
    the original.
    """
    if not parametrize.is_parametrized(layer):
        return
    lists = dict(layer.parametrizations.items())  # type: ignore[union-attr, operator]
    values: dict[str, Tensor] = {}
    for name in lists:
        with torch.no_grad():
            values[name] = getattr(layer, name).detach().clone()
    del layer._modules["parametrizations"]
    layer.__class__ = type(layer).__bases__[0]
    for name, steps in lists.items():
        sources = [value for key, value in _originals(steps) if key.startswith("original")]
        if any(isinstance(source, nn.Parameter) for source in sources):
            learns = any(tensor.requires_grad for tensor in steps.parameters())
            setattr(layer, name, nn.Parameter(values[name], learns))
        else:
            layer.register_buffer(name, values[name])
        kinds = " and ".join(_in_words(type(step).__name__) for step in steps)
        is_norm = kinds == "weight norm" and len(steps) == 1
        again = weight_norm_parametrisation(name, steps[0].dim) if is_norm else None
        yield Computed(path, name, kinds, tuple(map(id, sources)), again)


def _originals(steps: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from steps.named_parameters(recurse=False)
    yield from steps.named_buffers(recurse=False)


def _in_words(kind: str) -> str:
    known = {"_WeightNorm": "weight norm", "_SpectralNorm": "spectral norm"}
    return known.get(kind, kind.strip("_").lower())


def _refuse_unknown(layer: nn.Module, path: str) -> None:
    """Raise an error if an unknown hook computes a tensor of the layer before each call.

    It shows as a tensor that is no parameter, beside parameters named after it or in place of a
    weight. Without knowing the computation, its sources cannot be cut.
    """
    if not layer._forward_pre_hooks:
        return
    for name, value in vars(layer).items():
        beside = any(other.startswith(f"{name}_") for other in layer._parameters)
        if isinstance(value, Tensor) and (name in ("weight", "bias") or beside):
            hooks = [_words_of(hook) for hook in layer._forward_pre_hooks.values()]
            raise CompressorError(
                f"{path}.{name} is computed before each call, by {' or '.join(hooks)}".lstrip("."),
                where=f"layer {path} ({type(layer).__name__})",
                consequence="channels would be scored and cut by tensors that do not act",
                next_step=f"take the hook off and leave the weight that acts: remove its handle, "
                f"then layer.{name} = torch.nn.Parameter(layer.{name}.detach())",
            )


def _words_of(hook: object) -> str:
    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    return f"the hook {name}"
