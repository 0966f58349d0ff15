"""All weights of a network that are computed from weights, made plain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from compressor.plain.computed import Computed, is_computed, plain_tensors
from compressor.plain.in_forward import may_compute, plain_layer

IN_FORWARD = "computed in forward"


@dataclass(frozen=True)
class Plain:
    """A network whose weights are parameters of the values that act, and a note where they were
    computed before."""

    module: nn.Module
    notes: tuple[str, ...] = ()


def made_plain(module: nn.Module, copied: Callable[[nn.Module], nn.Module]) -> Plain:
    """The network with the weights that act in eval mode as plain parameters; tensors that were
    computed from the same sources stay tied, and what was frozen stays frozen.

    Args:
        module: Not changed; it is returned itself where none of its weights is computed.
        copied: Makes the copy that is.

    Raises:
        CompressorError: A weight is computed in a way that is not known.
    """
    if not any(is_computed(layer) or may_compute(layer) for layer in module.modules()):
        return Plain(module)
    copy_of = copied(module)
    modes = {layer: layer.training for layer in copy_of.modules()}
    for layer in modes:
        layer.training = False
    kinds: dict[str, list[str]] = {}
    first: dict[tuple[int, ...], nn.Parameter] = {}
    for path, layer in list(copy_of.named_modules()):
        found = plain_tensors(layer, path)
        for computed in found:
            kinds.setdefault(computed.kind, []).append(path)
            _tie(layer, computed, first)
        if plain_layer(layer):
            kinds.setdefault(IN_FORWARD, []).append(path)
    for layer, mode in modes.items():
        layer.training = mode
    if not kinds:
        return Plain(module)
    return Plain(copy_of, tuple(_note(kind, paths) for kind, paths in kinds.items()))


def _tie(layer: nn.Module, computed: Computed, first: dict[tuple[int, ...], nn.Parameter]) -> None:
    value = getattr(layer, computed.name)
    if isinstance(value, nn.Parameter):
        other = first.setdefault(computed.sources, value)
        if other is not value and torch.equal(other, value):
            setattr(layer, computed.name, other)


def _note(kind: str, paths: list[str]) -> str:
    names = list(dict.fromkeys(paths))
    some = ", ".join(name or "the model itself" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"weights that are computed ({kind}) are plain from here on, as they act: {some}{more}"
