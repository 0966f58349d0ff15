"""Read weights from any file that holds some."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from compressor.errors import CompressorError, UsageError
from compressor.loading.checkpoints import (
    StateDict,
    candidates_in,
)
from compressor.loading.pickles import load_torch_save
from compressor.loading.sniff import FileKind, sniff
from compressor.loading.state_dicts import describe
from compressor.loading.torchscript import read_torchscript
from compressor.loading.wording import one_line


def read_weights(path: Path, *, trust_pickle: bool, option: str = "--weights") -> Any:
    """Read a file with weights on the CPU: a module, a state dict, or a checkpoint that holds some.

    Raises:
        UsageError: There is no such file.
        CompressorError: The file holds no weights, or is not safe or not possible to read.
    """
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}",
            where=option,
            next_step="give a state dict: .pt or .pth by torch.save, or .safetensors",
        )
    kind = sniff(path)
    if kind is FileKind.SAFETENSORS:
        return read_safetensors(path)
    if kind is FileKind.TORCHSCRIPT and trust_pickle:
        return read_torchscript(path)
    if kind not in (FileKind.TORCH_SAVE, FileKind.PICKLE):
        raise CompressorError(
            f"{path.name} is {kind}, and weights are needed",
            where=str(path),
            next_step="give a state dict: .pt or .pth by torch.save, or .safetensors",
        )
    content = load_torch_save(path, kind, trust_pickle=trust_pickle)
    if not any(candidates_in(content)):
        raise CompressorError(
            f"{path.name} holds {describe(content)}, no weights",
            where=str(path),
            next_step="give a state dict: .pt or .pth by torch.save, or .safetensors",
        )
    return content


def read_safetensors(path: Path) -> StateDict:
    """Read the tensors of a safetensors file, on the CPU.

    Raises:
        CompressorError: The file is damaged.
    """
    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CompressorError(
            f"{path.name} is a damaged or truncated safetensors file ({one_line(error)})",
            where=str(path),
            consequence="nothing was loaded",
            next_step="copy or save the file again",
        ) from error
