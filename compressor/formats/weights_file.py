"""Write parameters and buffers as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_safetensors
from safetensors.torch import save_file
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.formats.output import no_room, write


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
        if alias in tensors and not _same_values(tensors[alias], tensors.get(stored)):
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
            original = first.setdefault(_place(tensor, name), name)
            effective |= {name: original} if original != name else {}
    kept = {
        name: _contiguous(tensor, (types or {}).get(name, tensor.dtype))
        for name, tensor in tensors.items()
        if name not in effective
    }
    write_tensors(path, kept)
    return effective


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, each straight from its memory.

    Raises:
        NoRoomError: The file cannot be written.
    """
    write(path, b"")  # the file as it is made here, which may be read by whom it should
    mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        path.unlink(missing_ok=True)
        raise no_room(path, error) from error
    path.chmod(mode)


def _contiguous(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a type, as a copy on the CPU in the order of its elements."""
    found = tensor.cpu().resolve_conj().resolve_neg().to(dtype).contiguous()
    is_own = found.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()
    return found if is_own else found.clone()


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


def _same_values(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(tensor, other)


def _place(tensor: Tensor, name: str) -> object:
    """Return a key that is equal for tensors that are the same memory seen the same way."""
    memory = tensor.untyped_storage().data_ptr()
    view = (tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset())
    return (memory, *view) if memory else name
