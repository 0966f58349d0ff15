"""Everything in double precision, also where the code asks for single."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DOUBLE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


class InFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Norms and rotary tables that compute in float32 by name would drown what is compared."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        args, kwargs = pytree.tree_map(_doubled, (args, dict(kwargs or {})))
        result = SINGLE_ONLY.get(func, func)(*args, **kwargs)
        return pytree.tree_map(_doubled, result)  # what `zeros` without a dtype makes, for one


def _grouped_product(
    a: torch.Tensor, b: torch.Tensor, ends: torch.Tensor, *_: Any, **__: Any
) -> torch.Tensor:
    """Rows of `a` [n, i] up to each end by the matrix [i, o] of their group in `b`."""
    starts = [0, *ends.tolist()]
    rows = [
        a[start:end] @ matrix for start, end, matrix in zip(starts, ends.tolist(), b, strict=False)
    ]
    return torch.cat([*rows, a.new_zeros(len(a) - starts[-1], b.shape[-1])])


SINGLE_ONLY: Mapping[Any, Callable[..., torch.Tensor]] = {
    torch.ops.aten._grouped_mm.default: _grouped_product,
}
"""Operators that know no double precision, and what stands in for them."""


def _doubled(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return DOUBLE.get(value, value)
    if isinstance(value, torch.Tensor) and value.dtype in DOUBLE:
        return value.to(DOUBLE[value.dtype])
    return value


def double_(module: nn.Module) -> nn.Module:
    """Parameters, buffers and constants in double precision, in place."""
    for owner in module.modules():
        for name, value in vars(owner).items():
            if isinstance(value, torch.Tensor) and value.dtype in DOUBLE:
                setattr(owner, name, _doubled(value))
    return module.double()
