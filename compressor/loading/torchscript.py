"""Read the weights of TorchScript archives: a fixed program that itself cannot be pruned."""

import warnings
from pathlib import Path

import torch

from compressor.errors import CompressorError
from compressor.loading.checkpoints import StateDict
from compressor.loading.wording import one_line

REFUSED = (
    "TorchScript runs as its own program and cannot be pruned: load the "
    "original class, and save it by compressor.save(model, example_inputs, 'model.pt')"
)
TRUSTED = (
    "--trust-pickle changes nothing about that: TorchScript is a fixed program. Name what makes "
    "the network, and the archive's weights are loaded into it: --factory path/file.py:callable "
    "--trust-pickle"
)


def read_torchscript(path: Path) -> StateDict:
    """Read the parameters and buffers of a TorchScript archive, on the CPU.

    Loading can run the archive's own code, so the caller has to trust it.

    Raises:
        CompressorError: Torch cannot load it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise CompressorError(
            f"{path.name} cannot be read as a TorchScript archive ({one_line(error)})",
            where=str(path),
            consequence="nothing was loaded",
            next_step="copy or save the file again",
        ) from error
    return {name: tensor.detach() for name, tensor in archive.state_dict().items()}
