"""Run networks with PyTorch to time them: in which precision, on which device, in which way.

The ways: eager (operator by operator), compiled (`torch.compile`), and as a CUDA graph, in which
the kernels of one call are recorded once and replayed without the processor's part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.clock import Call, Clock, by_wall
from compressor.errors import UsageError

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""The type of weights and activations by precision; tf32 multiplies float32 with fewer bits."""

TORCH = "torch-"
"""Devices that PyTorch runs networks on, where ONNX Runtime could too, are named "torch-cuda"."""

_WARM_UPS = 3


def check_cuda(where: str) -> None:
    """Raise `UsageError`, at the option `where`, if PyTorch has no CUDA device here."""
    if not torch.cuda.is_available():
        raise UsageError(
            "PyTorch has no CUDA device here",
            where=where,
            consequence="nothing was timed",
            next_step="run it where there is a GPU, or time on the CPU",
        )


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Compute in a precision and without gradients meanwhile.

    "tf32" rounds the factors of float32 matrix products and convolutions, all others do not.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = precision == "tf32"
        with torch.no_grad():
            yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def place_inputs(values: Any, device: str, precision: str) -> Any:
    """Move a network's inputs to the device, real numbers in the precision's type.

    Images lie channels last there where kernels want that (see `lies_channels_last`).
    """
    dtype = DTYPES[precision]

    def move(tensor: Tensor) -> Tensor:
        tensor = tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
        if tensor.ndim == 4 and lies_channels_last(device, precision):
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    return pytree.tree_map_only(Tensor, move, values)


def place(module: nn.Module, device: str, precision: str) -> nn.Module:
    """Move the module likewise, in place, and return it."""
    dtype = DTYPES[precision]
    module.to(device)
    if dtype is not torch.float32:
        module.to(dtype)
    if lies_channels_last(device, precision):
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def lies_channels_last(device: str, precision: str) -> bool:
    """Return whether images lie channels last: tensor cores, for all but fp32, read them so."""
    return device != "cpu" and precision != "fp32"


def prepare(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    device: str,
    precision: str,
    how: str = "",
) -> Call:
    """Move a module and its inputs, and return a call of it.

    Args:
        module: Is moved in place.
        args: Its inputs by position.
        kwargs: Its inputs by name.
        device: "cpu" or "cuda".
        precision: A key of `DTYPES`.
        how: "compiled", "graphs", or nothing: operator by operator.

    Raises:
        RuntimeError: It cannot be called in this way.
    """
    place(module, device, precision)
    args, kwargs = place_inputs((args, dict(kwargs)), device, precision)
    wrapped: Any = torch.compile(module) if how == "compiled" else module
    call: Call = partial(wrapped, *args, **kwargs)
    return record_graph(call) if how == "graphs" else call


def record_graph(call: Call) -> Call:
    """Record the call's kernels as a CUDA graph, and return a call that replays them.

    Raises:
        RuntimeError: The call waits for the device, or allocates what a graph cannot hold.
    """
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()
    return lambda: (graph.replay(), outputs)[1]


def clock_of(device: str) -> Clock:
    """Return a device's clock: the clock on the wall, or a GPU's own events.

    A GPU works on while calls return.
    """
    return by_wall if device == "cpu" else _by_events


def _by_events(call: Call) -> float:
    make: Any = torch.cuda.Event
    begin, end = (make(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
