"""Write parameters and buffers as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.formats.output import no_room
from compressor.on_demand import memory_of


def save_weights(
    source: nn.Module | Mapping[str, Tensor],
    path: Path,
    aliases: Mapping[str, str],
    *,
    types: Mapping[str, torch.dtype] | None = None,
) -> dict[str, str]:
    """Write parameters and buffers as safetensors; tensors that are tied are stored once.

    Args:
        source: A module (its state dict is taken) or tensors by name; not changed.
        path: The file.
        aliases: Name of a tied tensor -> name under which it is stored.
        types: Name of a tensor -> the type that it is stored in, where that is not its own.

    Returns:
        The aliases in effect: those given, and any other tensors found to be the same memory.

    Raises:
        CompressorError: An alias of a tensor that is not there or has other values, a tensor that
            safetensors cannot hold, or the file cannot be written.
    """
    named = dict(source.state_dict() if isinstance(source, nn.Module) else source)
    tensors = {name: value.detach() for name, value in named.items() if isinstance(value, Tensor)}
    check_storable(tensors, path)
    for alias, stored in aliases.items():
        if alias in tensors and not _are_same(tensors[alias], tensors.get(stored)):
            raise CompressorError(
                f"{alias} is not the same as {stored}, with which it is said to be tied",
                where=str(path),
                consequence="the weights were not written",
                next_step="report it with the network",
            )
    effective = dict(aliases)
    first: dict[object, str] = {}
    for name, tensor in tensors.items():
        if name not in effective:
            original = first.setdefault(_place(tensor) or name, name)
            effective |= {name: original} if original != name else {}
    kept = {name: tensor for name, tensor in tensors.items() if name not in effective}
    write_tensors(path, kept, types or {})
    return effective


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], types: Mapping[str, torch.dtype]
) -> None:
    """Write tensors as safetensors, one after the other, so that one of them is read at a time.

    Args:
        path: The file.
        tensors: The tensors by name.
        types: Name of a tensor -> the type that it is stored in, where that is not its own.

    Raises:
        NoRoomError: The file cannot be written.
    """
    types = {name: types.get(name, tensor.dtype) for name, tensor in tensors.items()}
    header = _header(tensors, types)
    try:
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for name in filter(tensors.__contains__, json.loads(header)):
                file.write(bytes_of(tensors[name], types[name]))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise no_room(path, error) from error


def _header(tensors: Mapping[str, Tensor], types: Mapping[str, torch.dtype]) -> bytes:
    """Return what a file of safetensors begins with: where each tensor lies, in their order.

    The order, and the names of types, are those of safetensors for tensors that hold nothing.
    """
    empty = {name: torch.empty(0, dtype=dtype) for name, dtype in types.items()}
    entries = json.loads(to_safetensors(empty, metadata={"format": "pt"})[8:])
    end = 0
    for name in filter(tensors.__contains__, entries):
        first, end = end, end + tensors[name].numel() * types[name].itemsize
        entries[name] |= {"shape": list(tensors[name].shape), "data_offsets": [first, end]}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return header + b" " * (-len(header) % 8)


def bytes_of(tensor: Tensor, dtype: torch.dtype | None = None) -> Any:
    """Return a tensor's values, in its type or another, as an array of bytes in row-major order.

    What lies in that order already is not copied.
    """
    values = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    flat = values.cpu().to(dtype or values.dtype).reshape(-1)
    # a tensor of one element, or of one that is spread, has strides that a view by bytes refuses
    if flat.stride() != (1,) or flat.is_conj() or flat.is_neg():
        flat = torch.empty(values.numel(), dtype=flat.dtype).copy_(flat)
    return flat.view(torch.uint8).numpy()


def check_storable(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that safetensors can hold every tensor.

    Raises:
        CompressorError: Names the first tensor that is sparse, or of a type that the format lacks.
    """
    known: dict[torch.dtype, bool] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in known:
            known[tensor.dtype] = _knows(tensor.dtype)
        if tensor.layout != torch.strided or not known[tensor.dtype]:
            raise CompressorError(
                f"{name} ({tensor.dtype}, {tensor.layout}) cannot be stored as safetensors",
                where=str(path),
                consequence="the weights were not written",
                next_step="make it a dense tensor of a usual type",
            )


def _knows(dtype: torch.dtype) -> bool:
    try:
        to_safetensors({"": torch.empty(0, dtype=dtype)})
    except Exception:  # safetensors' errors share no base but this one
        return False
    return True


def _are_same(tensor: Tensor, other: Tensor | None) -> bool:
    """Return whether tensors are the same memory, or have the same values."""
    if other is None:
        return False
    place = _place(tensor)
    return (place is not None and place == _place(other)) or torch.equal(tensor, other)


def _place(tensor: Tensor) -> object:
    """Return a key that is equal for tensors that are the same memory seen the same way.

    It is None for what has no memory.
    """
    view = (tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset())
    return (memory_of(tensor), *view) if memory_of(tensor) else None
