"""Capture a network whose weights are kept on demand, without reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.export import ExportedProgram

from compressor.on_demand import exchange, parameters_on_demand


@contextmanager
def hollow(
    module: nn.Module, *, with_values: bool = False
) -> Iterator[Callable[[ExportedProgram], None]]:
    """Let plain tensors stand for a module's parameters on demand inside the block, in place.

    A capture reads shapes alone. So these are as large as the parameters, but nothing is written to
    them, and memory that nobody touches is none.

    Args:
        module: The network.
        with_values: Whether the tensors get the parameters' values, where a capture follows them.

    Yields:
        A function that gives a program captured in the block the parameters themselves, in place.
    """
    kept = parameters_on_demand(module)
    stands: dict[int, Tensor] = {
        id(tensor): nn.Parameter(
            tensor.read() if with_values else tensor.hollow(), tensor.requires_grad
        )
        for tensor in kept.values()
    }
    back = {id(stands[id(tensor)]): tensor for tensor in kept.values()}
    exchange(module, stands)

    def fill(program: ExportedProgram) -> None:
        for name in program.state_dict.keys() & kept.keys():
            program.state_dict[name] = kept[name]

    try:
        yield fill
    finally:
        exchange(module, back)
