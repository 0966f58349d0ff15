"""Read the graph of a parsed ONNX file: nodes in order, constants, declared inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compressor.listing import some_of
from compressor.loading.onnx.contents import (
    TYPES,
    Constant,
    Declared,
    Graph,
    Node,
    OnnxSource,
    key_of,
)
from compressor.loading.onnx.model_checks import check_model, check_with_onnx, inline_functions
from compressor.loading.onnx.old_forms import attributes_as_inputs
from compressor.loading.onnx.operators import require_entry
from compressor.loading.onnx.ordering import in_order, made_by
from compressor.loading.onnx.parsing import TensorReader, graphs_of, parse, strip
from compressor.loading.onnx.saying import damaged, refused
from compressor.loading.onnx.small_numbers import Array
from compressor.loading.wording import one_line


def read_source(path: Path) -> OnnxSource:
    """Read an ONNX file, with the data beside it; nothing in it is run.

    Raises:
        CompressorError: It is damaged, hostile or quantised, or holds what is not read.
    """
    model = parse(path)
    try:
        return _read(model, path)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise damaged(
            f"parts of {path.name} do not go together: {one_line(error)}", str(path)
        ) from error


def _read(model: onnx.ModelProto, path: Path) -> OnnxSource:
    check_model(model)
    if model.functions:
        model = inline_functions(model)
    versions = {e.domain if e.domain != "ai.onnx" else "": e.version for e in model.opset_import}
    reading = _Reading(TensorReader(path), versions)
    reading.read_tensors(model.graph)
    graph = reading.graph(model.graph, {}, frozenset())
    check_with_onnx(model, path)
    strip(model)
    return OnnxSource(model, graph, versions.get("", 1), tuple(reading.arrays))


@dataclass
class _Reading:
    """What is read so far; names within sub-graphs are made different from all others."""

    tensors: TensorReader
    versions: Mapping[str, int]
    constants: dict[str, Constant] = field(default_factory=dict)
    arrays: list[Array] = field(default_factory=list)
    _read: list[Iterator[tuple[int, Array]]] = field(default_factory=list)
    _places: int = 0

    def read_tensors(self, graph: onnx.GraphProto) -> None:
        """Read all tensors of the file, which gives them their places."""
        place = 0
        for each in graphs_of(graph):
            numbered = []
            for name, tensor in _named_tensors(each):
                self.arrays.append(self.tensors.read(tensor, name))
                numbered.append((place, self.arrays[-1]))
                place += 1
            self._read.append(iter(numbered))

    def graph(
        self, proto: onnx.GraphProto, outer: Mapping[str, str], above: frozenset[str]
    ) -> Graph:
        """Read a graph.

        Args:
            proto: The graph.
            outer: Name in the file -> name as it is read, for what the graphs around it have.
            above: Those of them that are known there.
        """
        prefix = f"{proto.name or 'graph'}@{self._places}/" if outer else ""
        names = _Names(outer, prefix, self._read.pop(0))
        initializers = [tensor.name for tensor in proto.initializer]
        _refuse_repeated(initializers, "initializers")
        given = [entry for entry in proto.input if entry.name not in set(initializers)]
        _refuse_repeated([entry.name for entry in proto.input], "inputs")
        inputs = [_declared(entry, names.own(entry.name)) for entry in given]
        for tensor in proto.initializer:
            place, array = next(names.tensors)
            name = names.own(tensor.name)
            self.constants[name] = Constant(place, array, tensor.data_type, True)
        made = [name for node in proto.node for name in node.output if name]
        _refuse_repeated([*made, *initializers, *(entry.name for entry in given)], "values")
        for name in made:
            names.own(name)
        known = above | {names.of(n) for n in (*initializers, *(e.name for e in given))}
        nodes = list(self._nodes(proto, names, known | {names.of(name) for name in made}))
        ordered = in_order(nodes, known | set(self.constants))
        outputs = [_declared(entry, names.of(entry.name)) for entry in proto.output]
        lost = [
            o.name for o in outputs if o.name not in known | self.constants.keys() | made_by(nodes)
        ]
        if lost:
            raise damaged(f"nothing computes the outputs {some_of(lost)}")
        return Graph(tuple(ordered), tuple(inputs), tuple(outputs), self.constants)

    def _nodes(
        self, proto: onnx.GraphProto, names: _Names, known: frozenset[str]
    ) -> Iterator[Node]:
        for node in proto.node:
            place, self._places = self._places, self._places + 1
            key = key_of(node.domain, node.op_type)
            domain = "" if node.domain == "ai.onnx" else node.domain
            if domain not in self.versions:
                raise damaged(
                    f"the file does not say which version of the operators {domain!r} it is in",
                    node.name,
                )
            outputs = tuple(names.of(name) if name else "" for name in node.output)
            name = node.name or f"{node.op_type}_{next(filter(None, outputs), place)}"
            if key == "Constant":
                self._constant(node, outputs[0], name, names)
                continue
            if (
                key == "Identity"
                and not names.is_inner
                and names.of(node.input[0]) in self.constants
            ):
                self._another(names.of(node.input[0]), outputs[0], place)
                continue
            read = Node(
                place,
                name,
                key,
                self.versions[domain],
                tuple(names.of(given) if given else "" for given in node.input),
                outputs,
                {a.name: self._attribute(a, names, known) for a in node.attribute},
            )
            require_entry(read)
            yield attributes_as_inputs(read, self._keep)

    def _another(self, name: str, output: str, place: int) -> None:
        """Read an Identity of a constant as a constant of its own.

        An exporter writes tensors of equal values once; they are not tied for that.
        """
        known = self.constants[name]
        self.constants[output] = replace(known, place=-1, identity=place)

    def _keep(self, name: str, array: Array, kind: int) -> None:
        """Note a constant that is an attribute in the file, under a name of its own."""
        self.constants[name] = Constant(-1, array, kind, False)

    def _constant(self, node: onnx.NodeProto, output: str, name: str, names: _Names) -> None:
        if len(node.attribute) != 1:
            raise damaged("a Constant has not one value", name)
        (given,) = node.attribute
        if given.name == "value" and given.HasField("t"):
            place, array = next(names.tensors)
            self.constants[output] = Constant(place, array, given.t.data_type, False)
            return
        value = onnx.helper.get_attribute_value(given)
        kinds = {"value_int": "INT64", "value_ints": "INT64", "value_float": "FLOAT"}
        kinds["value_floats"] = "FLOAT"
        if given.name not in kinds:
            raise refused(f"a Constant holds what is no tensor ({given.name})", name)
        kind = getattr(onnx.TensorProto, kinds[given.name])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        self.constants[output] = Constant(-1, np.array(value, dtype), kind, False)

    def _attribute(self, given: onnx.AttributeProto, names: _Names, known: frozenset[str]) -> Any:
        if given.type == onnx.AttributeProto.TENSOR:
            return next(names.tensors)[1]
        if given.type == onnx.AttributeProto.GRAPH:
            return self.graph(given.g, names.all, known)
        if given.type in (onnx.AttributeProto.GRAPHS, onnx.AttributeProto.TENSORS):
            raise refused(f"an attribute of a kind that is not read: {given.name}")
        try:
            value = onnx.helper.get_attribute_value(given)
        except ValueError as error:
            raise damaged(f"an attribute cannot be read: {given.name}") from error
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, int | float):
            return value
        try:
            return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        except TypeError as error:
            raise refused(f"an attribute of a kind that is not read: {given.name}") from error


def _named_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield the tensors of a graph alone, with words for where they are."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            name = node.name or ", ".join(node.output)
            if attribute.HasField("t"):
                yield name, attribute.t
            yield from ((name, tensor) for tensor in attribute.tensors)


class _Names:
    """The names of one graph: its own, those of the graphs around it, and its tensors in order."""

    def __init__(
        self, outer: Mapping[str, str], prefix: str, tensors: Iterator[tuple[int, Array]]
    ) -> None:
        self.all, self.tensors = dict(outer), tensors
        self.is_inner = bool(prefix)
        self._prefix = prefix

    def own(self, name: str) -> str:
        """Give a name of this graph its own spelling."""
        self.all[name] = self._prefix + name
        return self.all[name]

    def of(self, name: str) -> str:
        """Return the spelling of a name that may be from this graph or one around it."""
        return self.all.get(name, self._prefix + name)


def _declared(entry: onnx.ValueInfoProto, name: str) -> Declared:
    if not entry.type.HasField("tensor_type"):
        if not entry.type.WhichOneof("value"):
            return Declared(name, onnx.TensorProto.FLOAT, None)
        raise refused(f"{entry.name} is no tensor", entry.name)
    kind = entry.type.tensor_type.elem_type
    if kind not in TYPES:
        known = onnx.TensorProto.DataType.values()
        word = onnx.TensorProto.DataType.Name(kind).lower() if kind in known else str(kind)
        raise refused(f"{entry.name} is of a type that is not read: {word}", entry.name)
    if not entry.type.tensor_type.HasField("shape"):
        return Declared(name, kind, None)
    dims = entry.type.tensor_type.shape.dim
    return Declared(name, kind, tuple(map(_size, dims)))


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value > 0 else None
    return dim.dim_param or None


def _refuse_repeated(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if repeated:
        raise damaged(f"{what} of one name stand in the file twice: {some_of(repeated)}")
