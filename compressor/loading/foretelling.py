"""How large a run of the model would be, told without running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.machine import free_bytes
from compressor.records import ExampleInputs

TOLERABLE = 0.25
"""The share of the free memory that one tensor may take in a run on inputs that are a guess."""


def is_too_large(model: nn.Module, examples: ExampleInputs) -> bool:
    """Return whether a run would make a tensor that takes much of the free memory.

    Attention over every pixel of a large image is such a run: it would be killed, and what else
    runs on the machine with it. A model that cannot be run on tensors without data is not judged.
    """
    largest = _Largest()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with fake, largest, torch.no_grad():
            args, kwargs = pytree.tree_map_only(
                Tensor, fake.from_tensor, (examples.args, dict(examples.kwargs))
            )
            model(*args, **kwargs)
    except Exception:  # torch has many for what needs values; the model's own code may raise, too
        return False
    return largest.size_bytes > TOLERABLE * free_bytes()


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the size of the largest tensor that any operator gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size_bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.size_bytes = max(self.size_bytes, tensor.nelement() * tensor.element_size())
        return result
