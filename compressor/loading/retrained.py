"""Read weights that were trained further, and check that they belong to the given network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.loading.state_dicts import load_strictly
from compressor.loading.weight_files import read_weights
from compressor.loading.wording import cut_list


def read_retrained(
    path: Path, stored: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> dict[str, Tensor]:
    """Read a file's tensors under the names, shapes and types of those that are stored.

    Prefixes of wrappers are taken off the names.

    Args:
        path: A state dict or a checkpoint with one, safetensors or a file of torch.save.
        stored: The network's tensors, each once.
        aliases: Names of tied tensors -> the name under which they are stored.

    Raises:
        CompressorError: The file cannot be read; tensors are missing, unexpected, of another shape
            or kind, not finite, or different under two names that are tied.
    """
    given: dict[str, Any] = {}
    holder: Any = _holder(stored, aliases)
    holder.register_load_state_dict_pre_hook(lambda _module, state, *_: given.update(state))
    load_strictly(holder, read_weights(path, trust_pickle=False), str(path))
    tensors = {name: holder.state_dict()[name] for name in stored}
    _refuse(path, "not finite", [n for n, t in tensors.items() if not _is_finite(t, stored[n])])
    untied = [
        alias
        for alias, name in aliases.items()
        if alias in given and name in given and not torch.equal(given[alias], given[name])
    ]
    _refuse(path, "tied to another name, where they differ", untied)
    return tensors


def _holder(stored: Mapping[str, Tensor], aliases: Mapping[str, str]) -> nn.Module:
    """Build a module that holds copies of the tensors by all names and computes nothing."""
    holder = nn.Module()
    copies = {name: tensor.clone() for name, tensor in stored.items()}
    copies |= {alias: copies[name] for alias, name in aliases.items()}
    for name, tensor in copies.items():
        *path, leaf = name.split(".")
        owner = holder
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.register_buffer(leaf, tensor)
    return holder


def _is_finite(tensor: Tensor, stored: Tensor) -> bool:
    """Return whether a tensor is finite; infinities pass where the stored tensor has some."""
    if torch.isfinite(tensor).all():
        return True
    # attention masks hold infinities
    has_some = not bool(torch.isfinite(stored).all())
    return has_some and not bool(torch.isnan(tensor).any())


def _refuse(path: Path, what: str, names: list[str]) -> None:
    if names:
        raise CompressorError(
            f"{len(names)} of the weights are {what} ({cut_list(names)})",
            where=str(path),
            consequence="nothing was written",
            next_step="save the state dict of the module that compressor.load gave, trained",
        )
