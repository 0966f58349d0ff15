"""Define what is read from an ONNX file: nodes, constants, declared inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnx
import torch

from compressor.loading.onnx.small_numbers import Array

TYPES: Mapping[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float32,
    onnx.TensorProto.BFLOAT16: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}
"""Type of a tensor in a file -> the type that it is computed in: every float is float32."""

FLOATS: Mapping[int, torch.dtype] = {
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
}
"""Types of a file's floats that are not float32."""


class Shared:
    """A record that copies of a network share."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


@dataclass(frozen=True)
class Node(Shared):
    """One operator of the graph.

    Attributes:
        place: Its position among all nodes of the file, those of sub-graphs included.
        name: Its name; made from its type and its output where it has none.
        op: Its type, with its domain where that is not ONNX's own ("com.microsoft.Gelu").
        version: The version of its domain's operators that the file asks for.
        inputs: Names of its inputs; "" for one that is left out.
        outputs: Names of its outputs; "" for one that nobody wants.
        attributes: Its attributes by name: numbers, texts, lists, arrays and graphs.
    """

    place: int
    name: str
    op: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Constant(Shared):
    """A tensor that the file holds.

    Attributes:
        place: Its position among all tensors of the file; -1 where it is none of them.
        array: Its values.
        kind: Its type in the file (`onnx.TensorProto`).
        is_initializer: Whether it is an initializer, else the value of a Constant node.
        identity: The place of the Identity of another constant that it is; -1 where it is none.
    """

    place: int
    array: Array
    kind: int
    is_initializer: bool
    identity: int = -1


@dataclass(frozen=True)
class Declared(Shared):
    """An input or output as the file declares it.

    Attributes:
        name: Its name.
        kind: Its type in the file (`onnx.TensorProto`).
        dims: Its sizes: a number, the name of a free size, or None for a free one without a name;
            None where nothing is said.
    """

    name: str
    kind: int
    dims: tuple[int | str | None, ...] | None

    @property
    def dtype(self) -> torch.dtype:
        """Return the type that it is computed in."""
        return TYPES[self.kind]

    @property
    def has_free_batch(self) -> bool:
        """Return whether its first size is free."""
        return bool(self.dims) and not isinstance(self.dims[0], int)  # type: ignore[index]


@dataclass(frozen=True, eq=False)
class Graph(Shared):
    """A graph, or a sub-graph of one.

    Attributes:
        nodes: Its operators, each after those that it needs.
        inputs: What it is given; no initializers.
        outputs: What it returns.
        constants: All tensors that the file holds, by name; shared by all graphs of the file.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    constants: Mapping[str, Constant]


@dataclass(frozen=True, eq=False)
class OnnxSource(Shared):
    """The file that a network was read from.

    Attributes:
        model: All of the file but the values of its tensors; it is never changed.
        graph: What was read.
        opset: Version of ONNX's own operators.
        arrays: The values of all its tensors, by their places.
    """

    model: onnx.ModelProto
    graph: Graph
    opset: int
    arrays: tuple[Array, ...]

    @property
    def has_free_batch(self) -> bool:
        """Return whether every input's first size is free."""
        return all(declared.has_free_batch for declared in self.graph.inputs)

    @property
    def has_other_free_sizes(self) -> bool:
        """Return whether a size that is not the first of its input is free."""
        sizes = [size for declared in self.graph.inputs for size in (declared.dims or ())[1:]]
        return any(not isinstance(size, int) for size in sizes)

    @property
    def narrow(self) -> torch.dtype | None:
        """Return the commonest type of the file's large floats where it is not float32."""
        sizes: dict[int, int] = {}
        for constant in self.graph.constants.values():
            if constant.array.dtype.kind == "f" or constant.kind in FLOATS:
                sizes[constant.kind] = sizes.get(constant.kind, 0) + constant.array.size
        commonest = max(sizes, key=lambda kind: sizes[kind], default=0)
        return FLOATS.get(commonest)


def as_float32(array: Array) -> Array:
    """Return floats of any width as float32; other arrays as they are."""
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if is_float else array


def key_of(domain: str, op: str) -> str:
    """Return an operator's key in the table: its type, after its domain where it has one."""
    return op if domain in ("", "ai.onnx") else f"{domain}.{op}"
