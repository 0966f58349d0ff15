"""Write a network that came from an ONNX file into the file's own graph.

Tensors are replaced by the smaller ones, and sizes that are spelled out by the new ones. Names,
types, free dimensions, the version of the operators and what the file says of itself stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from torch import Tensor

from compressor.errors import CompressorError
from compressor.loading.onnx.contents import Constant, Node
from compressor.loading.onnx.node_module import COUNTED, NodeModule
from compressor.loading.onnx.old_forms import attribute_of
from compressor.loading.onnx.onnx_network import OnnxNetwork
from compressor.loading.onnx.operators import BRANCH
from compressor.loading.onnx.parsing import graphs_of, nodes_of, tensors_of
from compressor.loading.onnx.planned_steps import every_step
from compressor.loading.onnx.small_numbers import Array
from compressor.loading.onnx.stored_forms import GATES
from compressor.runtimes.inputs import SIZES

SCATTER = 11
"""The version from which Scatter is called ScatterElements."""


def write_smaller(network: OnnxNetwork, tensors: Mapping[str, Tensor]) -> onnx.ModelProto:
    """Return the file's model with the network's tensors and sizes.

    Args:
        network: The network; not changed.
        tensors: Its tensors by name, which may be others than its own.

    Raises:
        CompressorError: A tensor of the file is not among them.
    """
    source = network.source
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    values = _values(network, tensors)
    by_place = {source.graph.constants[n].place: array for n, array in values.items()}
    for place, proto in enumerate(tensors_of(model.graph)):
        _fill(proto, by_place.get(place, source.arrays[place]))
    _declare(model.graph, values)
    edits = _Edits(network, values)
    for place, proto in enumerate(nodes_of(model.graph)):
        edits.change(place, proto)
    for graph in graphs_of(model.graph):
        edits.insert(graph)
        del graph.value_info[:]
    model.graph.initializer.extend(edits.initializers)
    _drop_dead(model.graph)
    if source.has_other_free_sizes:
        model.metadata_props.add(key=SIZES, value=json.dumps(network.sizes))
    return model


def _values(network: OnnxNetwork, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """Return the values of the file's held tensors as the file has them, by name."""
    values: dict[str, Array] = {}
    for name, held in network.layout.held.items():
        constant = network.source.graph.constants[name]
        missing = [path for path in held.paths if path not in tensors]
        if missing:
            raise CompressorError(
                f"the program lacks a tensor of the file: {missing[0]}",
                consequence="it is not written into the file's own graph",
                next_step="an exporter writes it anew; --of macs leaves all of the file's layers",
            )
        parts = [tensors[path].detach().cpu() for path in held.paths]
        array = held.form.write(parts).numpy()
        values[name] = array.astype(constant.array.dtype)
    return values


def _fill(proto: onnx.TensorProto, array: Array) -> None:
    """Give a tensor its sizes and values, in place."""
    del proto.dims[:]
    proto.dims.extend(array.shape)
    swapped = array.dtype.newbyteorder("<") if array.dtype.kind in "fiu" else array.dtype
    proto.raw_data = np.ascontiguousarray(array.astype(swapped)).tobytes()


def _declare(graph: onnx.GraphProto, values: Mapping[str, Array]) -> None:
    """Declare the new sizes of initializers that are inputs as well, in place."""
    for entry in graph.input:
        if entry.name in values:
            shape = entry.type.tensor_type.shape
            del shape.dim[:]
            shape.dim.extend(
                onnx.TensorShapeProto.Dimension(dim_value=n) for n in values[entry.name].shape
            )


@dataclass
class _Edits:
    """Changes nodes to the new sizes, and collects what is put in for them."""

    network: OnnxNetwork
    values: Mapping[str, Array]
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    before: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.steps: dict[int, NodeModule] = {}
        for planned in every_step(self.network.layout.steps):
            if planned.op != BRANCH:
                layer = self.network.get_submodule(planned.path)
                assert isinstance(layer, NodeModule)
                self.steps[planned.node.place] = layer
        constants = self.network.source.graph.constants
        self.copies = {
            constants[name].identity: name for name in self.values if constants[name].identity >= 0
        }

    def change(self, place: int, proto: onnx.NodeProto) -> None:
        """Change one node, in place."""
        if place in self.copies:
            self._replace_copy(proto, self.values[self.copies[place]])
        step = self.steps.get(place)
        if step is None:
            return
        if step.planned.op in GATES:
            own = self.values[step.planned.node.inputs[2]]
            _set(proto, "hidden_size", own.shape[-1])
        changed = step.changed()
        for name in COUNTED:
            if name in changed:
                _set(proto, name, changed.pop(name))
        by_input: dict[int, dict[int, int]] = {}
        for name, value in changed.items():
            position, element, _ = step.literals[name]
            by_input.setdefault(position, {})[element] = value
        for position, elements in by_input.items():
            self._respell(step.planned.node, proto, position, elements)

    def _replace_copy(self, proto: onnx.NodeProto, array: Array) -> None:
        """Put an initializer in the place of an Identity of one."""
        self._keep(proto.output[0], array)
        self.gone.add(proto.output[0])

    def _respell(
        self, node: Node, proto: onnx.NodeProto, position: int, elements: Mapping[int, int]
    ) -> None:
        """Change elements of an input that says sizes: an attribute, a constant, or computed."""
        attribute = attribute_of(node.op, position)
        for given in proto.attribute:
            if given.name == attribute:
                for element, value in elements.items():
                    given.ints[element] = value
                return
        old, new = proto.input[position], f"{node.name}@{node.place}/{position}"
        constant = self.network.source.graph.constants.get(node.inputs[position])
        if constant is not None:
            array = _changed(constant, elements)
            self._keep(new, array)
        else:
            places = np.array(sorted(elements), np.int64)
            self._keep(f"{new}/places", places)
            self._keep(f"{new}/sizes", np.array([elements[i] for i in sorted(elements)], np.int64))
            op = "ScatterElements" if self.network.source.opset >= SCATTER else "Scatter"
            scatter = onnx.helper.make_node(
                op, [old, f"{new}/places", f"{new}/sizes"], [new], name=new
            )
            self.before.setdefault(proto.output[0], []).append(scatter)
        proto.input[position] = new

    def _keep(self, name: str, array: Array) -> None:
        proto = onnx.TensorProto(
            name=name, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        _fill(proto, array)
        self.initializers.append(proto)

    def insert(self, graph: onnx.GraphProto) -> None:
        """Put the new nodes before those that need them, in place, without what is replaced."""
        outputs = {name for node in graph.node for name in node.output}
        if not outputs & (self.gone | self.before.keys()):
            return
        nodes = [
            each
            for node in graph.node
            if not self.gone & set(node.output)
            for each in (*self.before.get(node.output[0], ()), node)
        ]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)


def _changed(constant: Constant, elements: Mapping[int, int]) -> Array:
    array: Array = constant.array.copy()
    for element, value in elements.items():
        array.reshape(-1)[element] = value
    return array


def _set(proto: onnx.NodeProto, name: str, value: int) -> None:
    for given in proto.attribute:
        if given.name == name:
            given.i = value


def _drop_dead(graph: onnx.GraphProto) -> None:
    """Leave out nodes and initializers that no output depends on, in place.

    They may hold sizes of the network as it was.
    """
    wanted = {output.name for output in graph.output}
    live: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            live.append(node)
            wanted |= set(_read(node))
    if len(live) < len(graph.node):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(live)]
        del graph.node[:]
        graph.node.extend(copies)
    _keep_only(graph, wanted)


def _read(node: onnx.NodeProto) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from (output.name for output in attribute.g.output)
            for inner in attribute.g.node:
                yield from _read(inner)


def _keep_only(graph: onnx.GraphProto, wanted: set[str]) -> None:
    inputs = {entry.name for entry in graph.input}
    unused = [
        i for i, t in enumerate(graph.initializer) if t.name not in wanted and t.name not in inputs
    ]
    for i in reversed(unused):
        del graph.initializer[i]
