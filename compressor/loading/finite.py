"""Refuse weights that cannot be computed with: not finite, sparse, or without a shape or values."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from compressor.errors import CompressorError
from compressor.loading.wording import cut_list
from compressor.memory_pages import give_pages_back, lies_in, mapped_files

_ORDERED = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""Types of which the ends are found without a copy; what is not a number is both ends."""

BOUNDED_BUFFERS = ("running_mean", "running_var")


def refuse_non_finite(module: nn.Module) -> None:
    """Raise an error if weights are NaN, infinite or sparse, or do not exist yet.

    Lazy parameters and tensors on the meta device do not exist yet. Buffers other than running
    statistics may hold infinities: attention masks do.

    Args:
        module: It is not changed.

    Raises:
        CompressorError: There are such tensors; the message names them.
    """
    lazy = [
        name
        for name, value in (*module.named_parameters(), *module.named_buffers())
        if is_lazy(value)
    ]
    if lazy:
        raise CompressorError(
            f"the model has parameters without a shape yet: {cut_list(lazy)}",
            next_step="run it once on an example before it is saved or returned",
        )
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    sparse = [name for name, value in tensors.items() if value.layout != torch.strided]
    if sparse:
        raise CompressorError(
            f"the model has tensors that are not dense (torch.sparse, mkldnn): {cut_list(sparse)}",
            consequence="their channels cannot be cut",
            next_step="make them dense (tensor.to_dense()): what is zero in them stays zero",
        )
    meta = [name for name, value in tensors.items() if value.is_meta]
    if meta:
        raise CompressorError(
            f"the model has shapes without values, on the meta device: {cut_list(meta)}",
            consequence="there are no weights to compress",
            next_step="materialise it first: model.to_empty(device='cpu'), then load its weights",
        )
    files = mapped_files()
    bad = [name for name, value in module.named_parameters() if not _is_finite(value, files)]
    for name, value in module.named_buffers():
        bounded = name.endswith(BOUNDED_BUFFERS)
        if not (_is_finite(value, files) if bounded else not torch.isnan(value).any()):
            bad.append(name)
    if bad:
        raise CompressorError(
            f"the weights are not finite (NaN or infinity) in {cut_list(bad)}",
            consequence="scores and comparisons would mean nothing",
            next_step="take a checkpoint from before the training diverged",
        )


def _is_finite(tensor: torch.Tensor, files: Sequence[range]) -> bool:
    """Return whether all numbers are finite; of those in mapped files the pages are given back."""
    if tensor.dtype in _ORDERED and tensor.numel():
        found = all(bool(torch.isfinite(end)) for end in tensor.detach().aminmax())
    else:
        found = bool(torch.isfinite(tensor).all())
    if lies_in(tensor, files):
        give_pages_back(tensor)
    return found
