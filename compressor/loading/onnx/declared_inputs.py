"""Make example inputs from what an ONNX file declares, with sizes that suit where they are free."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from compressor.loading.onnx.contents import Declared
from compressor.loading.onnx.onnx_network import OnnxNetwork
from compressor.loading.onnx.planned_steps import FromTensors, FromValue, Planned, Source
from compressor.loading.onnx.saying import refused
from compressor.loading.onnx.small_numbers import Numbers
from compressor.records import ExampleInputs
from compressor.runtimes.inputs import words_of

ORIGIN = "the file's declared inputs"
SIDES = (224, 640, 64, 320, 512, 32)
"""Sizes that are tried for the free sides of an image, likeliest first."""
LENGTHS = (16, 128, 64, 1024)
"""Sizes that are tried for other free dimensions."""
LARGEST = 2**28
"""The most elements of an example input."""


def candidates(network: OnnxNetwork, batch: int = 1) -> Iterator[ExampleInputs]:
    """Yield example inputs, likeliest first; one alone where the file fixes every size.

    Args:
        network: Says what the inputs are.
        batch: The number of samples where the file leaves it free.

    Raises:
        CompressorError: An input is larger than any example can be.
    """
    graph = network.source.graph
    bounds = index_bounds(network)
    names = words_of([declared.name for declared in graph.inputs])
    has_free_sizes = any(
        not isinstance(dim, int) for declared in graph.inputs for dim in (declared.dims or ())[1:]
    )
    seen = set()
    for side, length in itertools.product(SIDES, LENGTHS):
        shapes = [_shape(declared, batch, side, length) for declared in graph.inputs]
        key = tuple(map(tuple, shapes))
        if key in seen:
            continue
        seen.add(key)
        generator = torch.Generator().manual_seed(0)
        drawn = {
            name: _draw(declared, shape, bounds, generator)
            for name, declared, shape in zip(names, graph.inputs, shapes, strict=True)
        }
        words = ", ".join("x".join(map(str, shape)) for shape in shapes)
        yield ExampleInputs(tuple(drawn.values()), {}, f"{ORIGIN}: {words}", has_free_sizes)


def _shape(declared: Declared, batch: int, side: int, length: int) -> list[int]:
    if declared.dims is None:
        raise refused(
            "the file does not say how many dimensions an input has",
            declared.name,
            "give the inputs: --input 1x3x224x224, once per input",
        )
    shape = [
        dim if isinstance(dim, int) else batch if i == 0 else _free(declared, i, side, length)
        for i, dim in enumerate(declared.dims)
    ]
    count = 1
    for size in shape:
        count *= size
    if count > LARGEST:
        raise refused(
            f"an input of sizes {shape[:8]} takes more memory than is sensible", declared.name
        )
    return shape


def _free(declared: Declared, at: int, side: int, length: int) -> int:
    """Return a size for a free dimension: sides for images, few for what may be channels."""
    assert declared.dims is not None
    if len(declared.dims) != 4 or not declared.dtype.is_floating_point:
        return length
    last_is_channels = declared.dims[3] in (1, 3, 4) and declared.dims[1] not in (1, 3, 4)
    channels = 3 if last_is_channels else 1
    return 3 if at == channels else side


def _draw(
    declared: Declared, shape: Sequence[int], bounds: Mapping[str, int], generator: torch.Generator
) -> Tensor:
    """Draw values: normal ones, places within what they index, or zeros and ones."""
    if declared.dtype.is_floating_point:
        return torch.randn(shape, generator=generator)
    bound = bounds.get(declared.name, 2)
    drawn = torch.randint(bound, shape, generator=generator)
    if declared.name not in bounds and drawn.dim() > 1:
        drawn[..., :1] = 1  # a mask that hides everything leaves nothing to compute
    return drawn.to(declared.dtype)


PASSING = frozenset(
    [
        "Cast",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operators that hand on the values of their first input."""


def index_bounds(network: OnnxNetwork) -> dict[str, int]:
    """Return how many values each input can have that chooses among stored ones.

    It is what it looks up in the smallest table, is compared with (a one-hot code spelled out), or
    is made a one-hot code of.
    """
    origin = {declared.name: declared.name for declared in network.source.graph.inputs}
    bounds: dict[str, int] = {}
    for step in network.layout.steps:
        sources = step.inputs
        first = sources[0] if sources else None
        if step.op in PASSING and isinstance(first, FromValue) and first.name in origin:
            origin[step.outputs[0]] = origin[first.name]
        for index, other in itertools.permutations(sources[:2], 2):
            if isinstance(index, FromValue) and index.name in origin:
                count = _choices(network, step, other)
                name = origin[index.name]
                if count is not None:
                    bounds[name] = min(count, bounds.get(name, count))
    return bounds


def _choices(network: OnnxNetwork, step: Planned, other: Source) -> int | None:
    """Return among how many values a step chooses by an index; None where it does not."""
    if isinstance(other, Numbers) and other.is_plain:
        tensor = other.tensor()
    elif isinstance(other, FromTensors):
        tensor = network._tensor(other.paths[0])
    else:
        return None
    if step.op == "Gather":
        is_table = isinstance(other, FromTensors) and step.inputs[0] is other
        return int(tensor.shape[step.node.attributes.get("axis", 0)]) if is_table else None
    if step.op == "OneHot":
        return int(tensor.reshape(-1)[0])
    is_code = tensor.dtype in (torch.int32, torch.int64) and tensor.numel() > 1
    return int(tensor.max()) + 1 if step.op == "Equal" and is_code else None
