"""Parse an ONNX file, and refuse what is damaged or hostile before memory is taken for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx

from compressor.loading.onnx.saying import damaged, refused
from compressor.loading.onnx.small_numbers import Array
from compressor.machine import free_bytes

LARGEST_SIDE = 2**31
"""The largest size of one dimension."""

BITS = {
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("INT64", "UINT64", "DOUBLE"), 64),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 8),
}
"""Types of tensors that are read -> bits of an element."""

FIELDS = {
    **dict.fromkeys(("INT32", "INT16", "UINT16", "INT8", "UINT8", "BOOL"), "int32_data"),
    **dict.fromkeys(("FLOAT16", "BFLOAT16"), "int32_data"),
    **dict.fromkeys(("UINT32", "UINT64"), "uint64_data"),
    "INT64": "int64_data",
    "DOUBLE": "double_data",
    "FLOAT": "float_data",
}
"""Types of tensors -> the field that holds the elements where they are not raw bytes."""


def parse(path: Path) -> onnx.ModelProto:
    """Parse the file, without what lies beside it.

    Raises:
        CompressorError: It is no ONNX file, or takes more memory than is free.
    """
    if 3 * path.stat().st_size > free_bytes():
        raise refused(
            f"{path.name} takes more memory than is free",
            str(path),
            "close other programs, or take a machine with more memory",
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own error shares no base with others
        raise damaged(f"{path.name} cannot be parsed as an ONNX file", str(path)) from error
    if not model.HasField("graph") or not model.graph.node or not model.graph.output:
        raise damaged(f"{path.name} begins as an ONNX file and holds no network", str(path))
    return model


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all graphs within it, in the order in which they stand in the file."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield all nodes of a graph, each before those within it; their order is their places."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors of a graph and of those within it.

    Their order gives tensors their places.
    """
    for each in graphs_of(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


class TensorReader:
    """Reads the tensors of a file, each checked before memory is taken for it."""

    def __init__(self, path: Path) -> None:
        """Take the file; what lies beside it is read from its folder alone."""
        self._path = path
        self._free = free_bytes()

    def read(self, tensor: onnx.TensorProto, name: str) -> Array:
        """Return a tensor's values.

        Raises:
            CompressorError: Its sizes and its data do not go together, it is of a type that no
                network is made of here, or its data lie somewhere else than beside the file.
        """
        kind = (
            onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in _KINDS else ""
        )
        if kind not in BITS:
            known = kind.lower() or str(tensor.data_type)
            raise refused(f"a tensor is of a type that is not read: {known}", name)
        count = self._count(tensor, name)
        wanted = count * BITS[kind] // 8
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raw = self._external(tensor, wanted, name)
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data
        else:
            self._check_typed(tensor, kind, count, name)
            return np.array(onnx.numpy_helper.to_array(tensor))
        if len(raw) != wanted:
            raise damaged(
                f"a tensor of {count} elements has {len(raw)} bytes, and needs {wanted}", name
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(tensor.dims).copy()

    def _count(self, tensor: onnx.TensorProto, name: str) -> int:
        if any(not 0 <= size < LARGEST_SIDE for size in tensor.dims):
            raise damaged(f"a tensor has the impossible sizes {list(tensor.dims)[:8]}", name)
        count = math.prod(tensor.dims)
        if 8 * count > self._free:
            raise refused(
                f"a tensor of sizes {list(tensor.dims)[:8]} takes more memory than is free", name
            )
        return int(count)

    def _check_typed(self, tensor: onnx.TensorProto, kind: str, count: int, name: str) -> None:
        held = len(getattr(tensor, FIELDS[kind]))
        if held != count:
            raise damaged(f"a tensor of {count} elements holds {held}", name)

    def _external(self, tensor: onnx.TensorProto, wanted: int, name: str) -> bytes:
        said = {entry.key: entry.value for entry in tensor.external_data}
        file = self._beside(said.get("location", ""), name)
        try:
            offset = int(said.get("offset", "0") or 0)
            length = int(said.get("length", wanted) or wanted)
        except ValueError:
            raise damaged("where a tensor's data lie is no number", name) from None
        if offset < 0 or length != wanted or offset + length > file.stat().st_size:
            raise damaged(
                f"a tensor's data ({length} bytes at {offset}) are not those of {file.name}, "
                f"which has {file.stat().st_size}: it needs {wanted}",
                name,
            )
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(length)

    def _beside(self, location: str, name: str) -> Path:
        """Return the file with a tensor's data, which lies in the model's own folder.

        Raises:
            CompressorError: It lies elsewhere, is a link, or is not there.
        """
        parts = PurePosixPath(location.replace("\\", "/")).parts
        folder = self._path.absolute().parent
        file = folder.joinpath(*parts) if parts else folder
        is_inside = bool(parts) and ".." not in parts and not Path(location).is_absolute()
        is_inside = is_inside and ":" not in parts[0] and parts[0] not in ("/", "\\")
        way = [folder.joinpath(*parts[: i + 1]) for i in range(len(parts))] if is_inside else []
        if not is_inside or "\0" in location or any(step.is_symlink() for step in way):
            raise refused(
                f"a tensor's data lie outside of the file's folder: {location[:80]!r}",
                name,
                "put the data beside the file, as its exporter does; links are not followed",
            )
        if not file.is_file():
            raise damaged(f"the file with a tensor's data is not there: {location[:80]}", name)
        return file


_KINDS = set(onnx.TensorProto.DataType.values())


def strip(model: onnx.ModelProto) -> None:
    """Remove the values of all tensors, in place; their names, types and sizes stay."""
    for tensor in tensors_of(model.graph):
        clear_values(tensor)


def clear_values(tensor: Any) -> None:
    """Remove a tensor's values, in place."""
    for field in ("raw_data", "external_data", "data_location", *set(FIELDS.values())):
        tensor.ClearField(field)
