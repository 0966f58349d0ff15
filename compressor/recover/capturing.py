"""Record a training step once as a CUDA graph, then replay it without the processor."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.clock import Call
from compressor.processes import processes
from compressor.recover.objective import Objective
from compressor.recover.recipe import Recipe
from compressor.torch_calls import record_graph

Step = Callable[[Any], Tensor]
"""Of a batch on the device, changes the weights; returns numbers to look at later."""


def why_not(recipe: Recipe, objective: Objective, device: torch.device) -> str:
    """Say why a training cannot be recorded, in words; nothing where it can be tried.

    Args:
        recipe: How it is trained.
        objective: What it makes small.
        device: Where.
    """
    obstacles = {
        "steps are recorded on GPUs alone": device.type != "cuda",
        "several processes share each step": processes() > 1,
        "several batches make one step": recipe.accumulate > 1,
        "the objective changes from epoch to epoch": objective.penalty is not None,
        "the training step is your own": objective.step is not None,
    }
    return next((words for words, stands in obstacles.items() if stands), "")


class Captured:
    """A recorded step on batches of fixed shapes, which are copied to where its kernels read.

    Args:
        step: What is recorded; it is called a few times to warm up, of which nothing remains.
        batch: The first batch, on the device.
        kept: Makes a context that puts everything back that the step changes.
        record: Makes the replay of a call. Default: a CUDA graph.

    Raises:
        HostRandomError: The step draws random numbers on the host, which a replay would not.
        RuntimeError: The step waits for the device, or does something else that cannot be recorded.
    """

    def __init__(
        self,
        step: Step,
        batch: Any,
        kept: Callable[[], Any],
        record: Callable[[Call], Call] = record_graph,
    ) -> None:
        self._leaves, self._structure = _copy(batch)
        inputs = pytree.tree_unflatten(self._leaves, self._structure)
        with kept(), _no_host_random_numbers():
            self._replay = record(lambda: step(inputs))

    def fits(self, batch: Any) -> bool:
        """Return whether the batch has the recorded one's shapes, types and other values."""
        leaves, structure = pytree.tree_flatten(batch)
        return structure == self._structure and all(map(_alike, self._leaves, leaves))

    def __call__(self, batch: Any) -> Tensor:
        """Take one step on a batch that fits; return what the recorded step returned."""
        for own, leaf in zip(self._leaves, pytree.tree_leaves(batch), strict=True):
            if isinstance(own, Tensor):
                own.copy_(leaf)
        result: Any = self._replay()
        return result.clone()  # type: ignore[no-any-return]


class HostRandomError(Exception):
    """Random numbers were drawn on the host."""


def _copy(batch: Any) -> tuple[list[Any], Any]:
    leaves, structure = pytree.tree_flatten(batch)
    return [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and bool(one == other)
    return one.shape == other.shape and one.dtype == other.dtype


@contextmanager
def _no_host_random_numbers() -> Iterator[None]:
    before = _host_state()
    yield
    if _host_state() != before:
        raise HostRandomError("the network draws random numbers on the processor")


def _host_state() -> tuple[Any, ...]:
    """Return a state that differs after any random number of Python, NumPy or PyTorch's CPU."""
    name, keys, *rest = np.random.get_state()
    numpys = (name, np.asarray(keys).tobytes(), *rest)
    return random.getstate(), numpys, torch.get_rng_state().numpy().tobytes()


@contextmanager
def all_kept(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put the module's tensors and the optimizer's moments back afterwards, in place.

    Moments that were not there are zero then, with which a first step is what it is without any.
    """
    tensors = [*module.parameters(), *module.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    moments = {
        (parameter, name): value.clone()
        for parameter, state in optimizer.state.items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
            for parameter, state in optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor) and (parameter, name) in moments:
                        value.copy_(moments[parameter, name])
                    elif isinstance(value, Tensor):
                        value.zero_()
