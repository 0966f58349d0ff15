"""Weights that a layer computes from other tensors before its forward runs: parametrisations,
weight norm, spectral norm, masks of `torch.nn.utils.prune`."""

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
from compressor.plain.putting_back import (
    Again,
    pruning_mask,
    weight_norm_hook,
    weight_norm_parametrisation,
)


@dataclass(frozen=True)
class Computed:
    """A tensor of a layer that was computed, and from what.

    `kind` names the computation in words; `sources` are the tensors that it was computed from, by
    identity: layers that share them all share the result. `again` puts the computation back on a
    smaller layer, where that is exact.
    """

    path: str
    name: str
    kind: str
    sources: tuple[int, ...]
    again: Again | None = None


@dataclass(frozen=True)
class HookKind:
    """A computation by a forward pre-hook: its name in words, the attribute of the hook that holds
    the tensor's name, the endings of the tensors that it reads, torch's own way to end it, and what
    makes of hook and layer a way to put it back."""

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
    """Give a layer, in place, its computed tensors as parameters of the values that act, without
    what they were computed from; a parameter learns if any of its sources did.

    Args:
        layer: In eval mode, where computing a weight changes nothing (spectral norm's power
            iteration runs in training).
        path: The layer's, for the error.

    Raises:
        CompressorError: A hook of an unknown kind computes a tensor of the layer.
    """
    found = [*_without_hooks(layer, path), *_without_parametrisations(layer, path)]
    others = layer._parameters.keys() - {computed.name for computed in found}
    for name in [name for name in layer._parameters if found and name in others]:
        layer._parameters[name] = layer._parameters.pop(name)  # groups are named after the first
    _refuse_unknown(layer, path)
    return found


def is_computed(layer: nn.Module) -> bool:
    """Whether a layer may have a tensor that is computed before its forward."""
    return parametrize.is_parametrized(layer) or bool(layer._forward_pre_hooks)


def _without_hooks(layer: nn.Module, path: str) -> Iterator[Computed]:
    """The last one first: it may compute what an earlier one reads."""
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
    """Take off what a computation from the same file of torch does when the layer's state is read
    or written: `remove_spectral_norm` misses it, since torch wraps it in an object."""
    for hooks in (layer._state_dict_hooks, layer._load_state_dict_pre_hooks):
        for key, hook in list(hooks.items()):
            inner = getattr(hook, "hook", hook)
            if type(inner).__module__ == kind.__module__:
                del hooks[key]


def _without_parametrisations(layer: nn.Module, path: str) -> Iterator[Computed]:
    """By hand, since `remove_parametrizations` changes the layer's class, which a copy shares with
    the original."""
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
    """A tensor that is no parameter, beside parameters named after it or in place of a weight, is
    what a hook computes before each call; without knowing how, its sources cannot be cut."""
    if not layer._forward_pre_hooks:
        return
    for name, value in vars(layer).items():
        beside = any(other.startswith(f"{name}_") for other in layer._parameters)
        if isinstance(value, Tensor) and (name in ("weight", "bias") or beside):
            hooks = [_called(hook) for hook in layer._forward_pre_hooks.values()]
            raise CompressorError(
                f"{path}.{name} is computed before each call, by {' or '.join(hooks)}".lstrip("."),
                where=f"layer {path} ({type(layer).__name__})",
                consequence="channels would be scored and cut by tensors that do not act",
                next_step=f"take the hook off and leave the weight that acts: remove its handle, "
                f"then layer.{name} = torch.nn.Parameter(layer.{name}.detach())",
            )


def _called(hook: object) -> str:
    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    return f"the hook {name}"
