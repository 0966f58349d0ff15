"""Let the processes of a distributed run share what they find, so that all make the same choices.

This is the only place where they talk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.calls import Call


def all_summed(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum each tensor (float64, on the CPU) over all processes, in one exchange.

    A process may lack some of them. Where there is one process alone they are returned as they are.
    """
    if not _is_distributed() or _ALONE.get():
        return dict(values)
    shapes = _all_shapes(values)
    whole = {
        name: values.get(name, torch.zeros(shape, dtype=torch.float64))
        for name, shape in shapes.items()
    }
    if not whole:
        return {}
    flat = torch.cat([value.reshape(-1) for value in whole.values()])
    shared = flat.to("cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(shared)
    parts = torch.split(shared.cpu(), [value.numel() for value in whole.values()])
    return {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def each_alone() -> Iterator[None]:
    """Switch summing off inside the block, where every process sees all of the data.

    What each process finds is then what one process alone would.
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def begin(device: str) -> None:
    """Join the other processes, if a launcher (`accelerate launch`, `torchrun`) started some."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _is_distributed():
        from accelerate import PartialState

        PartialState(cpu=torch.device(device).type == "cpu")


def processes() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if _is_distributed() else 1


def rank() -> int:
    """Return the number of this process; the first is 0."""
    return dist.get_rank() if _is_distributed() else 0


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def share_out(batch: tuple[Call, Any]) -> tuple[tuple[Call, Any], float]:
    """Return this process's samples of a batch of (inputs, target), and the weight of their mean.

    With these weights the mean over all processes is the mean over the batch.
    """
    count, parts = batch[0].samples, processes()
    if parts == 1:
        return batch, 1.0
    own = list(range(rank(), count, parts))
    some = own or [0]  # every process has to take part in each step
    part = pytree.tree_map_only(
        Tensor, lambda x: x[some] if x.dim() and len(x) == count else x, batch
    )
    return part, len(own) * parts / count


Made = TypeVar("Made")


def of_the_first(make: Callable[[], Made]) -> Made:
    """Call `make` on the first process, and return its result (or raise its error) on all.

    Times differ from one process to the next, and choices must not.
    """
    if not _is_distributed():
        return make()
    shared: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            shared[0] = make()
        except Exception as error:
            shared[1] = error
    dist.broadcast_object_list(shared)
    if shared[1] is not None:
        raise shared[1]
    made: Made = shared[0]
    return made


def _all_shapes(values: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shapes of all tensors that any process has, in the same order on all of them."""
    gathered: list[dict[str, torch.Size]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, {name: value.shape for name, value in values.items()})
    return {name: shape for known in gathered for name, shape in known.items()}
