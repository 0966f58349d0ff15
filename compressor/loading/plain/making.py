"""Turn all weights of a network that are computed from others into plain parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from compressor.errors import UsageError
from compressor.loading.plain.computed import MASK, Computed, is_computed, plain_tensors
from compressor.loading.plain.in_forward import may_compute, plain_layer
from compressor.loading.plain.putting_back import Cut, put_back

IN_FORWARD = "computed in forward"


@dataclass(frozen=True)
class Plain:
    """A network whose weights are parameters of the values that act.

    Attributes:
        module: The network.
        notes: A note for each way in which weights were computed before.
        computed: How each such weight was computed.
    """

    module: nn.Module
    notes: tuple[str, ...] = ()
    computed: tuple[Computed, ...] = ()


def make_plain(module: nn.Module, copied: Callable[[nn.Module], nn.Module]) -> Plain:
    """Return the network with the weights that act in eval mode as plain parameters.

    Tensors that were computed from the same sources stay tied, and what was frozen stays frozen.

    Args:
        module: It is not changed; it is returned itself where none of its weights is computed.
        copied: Makes the copy that is changed.

    Raises:
        CompressorError: A weight is computed in a way that is not known.
    """
    if not any(is_computed(layer) or may_compute(layer) for layer in module.modules()):
        return Plain(module)
    copy_of = copied(module)
    modes = {layer: layer.training for layer in copy_of.modules()}
    for layer in modes:
        layer.training = False
    all_computed: list[Computed] = []
    first: dict[tuple[int, ...], nn.Parameter] = {}
    for path, layer in list(copy_of.named_modules()):
        for computed in plain_tensors(layer, path):
            is_tied = _tie(layer, computed, first)
            all_computed.append(replace(computed, again=None) if is_tied else computed)
        if plain_layer(layer):
            all_computed.append(Computed(path, "weight", IN_FORWARD, ()))
    for layer, mode in modes.items():
        layer.training = mode
    if not all_computed:
        return Plain(module)
    kinds: dict[str, list[str]] = {}
    for computed in all_computed:
        kinds.setdefault(computed.kind, []).append(computed.path)
    notes = tuple(_note(kind, paths) for kind, paths in kinds.items())
    return Plain(copy_of, notes, tuple(all_computed))


def _tie(layer: nn.Module, computed: Computed, first: dict[tuple[int, ...], nn.Parameter]) -> bool:
    """Give a layer the parameter of an earlier one that was computed from the same sources.

    Returns:
        Whether there was such a parameter, and the layer was changed.
    """
    value = getattr(layer, computed.name)
    if not isinstance(value, nn.Parameter):
        return False
    other = first.setdefault(computed.sources, value)
    if other is value or not torch.equal(other, value):
        return False
    setattr(layer, computed.name, other)
    return True


def require_kept(computed: Sequence[Computed], *, refits: bool) -> None:
    """Raise an error if a computation would not compute the same on the smaller network.

    Args:
        computed: The computations that are to be put back.
        refits: Whether weights are repaired or trained, so that zeros do not stay.

    Raises:
        UsageError: One would not; the message names the layer and the reason.
    """
    for each in computed:
        is_mask = each.again is not None and each.kind == MASK
        if each.again is not None and not (is_mask and refits):
            continue
        why = "repair and training fill its zeros" if is_mask else "it would change what is left"
        way = "--no-repair, or " if is_mask else ""
        raise UsageError(
            f"{each.kind} cannot be kept on {each.path or 'the model itself'}: {why}",
            where="--keep-parametrisations",
            consequence="nothing is pruned",
            next_step=f"{way}leave the option out: the result then holds the weights that act",
        )


def put_all_back(module: nn.Module, computed: Sequence[Computed], cuts: Mapping[str, Cut]) -> None:
    """Let a smaller network compute its weights as the large one did, in place.

    Args:
        module: The smaller network.
        computed: How the large network computed its weights.
        cuts: Tensor name -> dimension -> kept indices.
    """
    for each in computed:
        if each.again is not None:
            name = f"{each.path}.{each.name}".removeprefix(".")
            put_back(module.get_submodule(each.path), each.name, each.again, cuts.get(name, {}))


def _note(kind: str, paths: list[str]) -> str:
    names = list(dict.fromkeys(paths))
    some = ", ".join(name or "the model itself" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"weights that are computed ({kind}) are plain from here on, as they act: {some}{more}"
