"""List the routes on which a network that came from an ONNX file is written as one again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import onnx
from onnx.version_converter import convert_version
from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError
from compressor.formats.onnx_file import Route
from compressor.formats.own_graph import write_smaller
from compressor.graph.programs.lifting import stored_tensors
from compressor.loading.onnx.contents import Declared, OnnxSource
from compressor.loading.onnx.node_module import NodeModule
from compressor.loading.onnx.onnx_network import OnnxNetwork
from compressor.loading.onnx.operators import BRANCH
from compressor.loading.onnx.parsing import graphs_of, nodes_of
from compressor.loading.onnx.planned_steps import every_step
from compressor.loading.onnx.proof import tolerance_for
from compressor.runtimes.inputs import words_of


def own_routes(module: nn.Module | None, opset: int | None = None) -> tuple[Route, ...]:
    """Return the route into the file's own graph, where a network came from one and follows it.

    Args:
        module: The network.
        opset: The version of the operators that is asked for, which ONNX's own converter makes of
            the file's; None for the file's.
    """
    if not isinstance(module, OnnxNetwork) or not _follows(module):
        return ()
    network, words = module, "the file's own graph"
    if opset not in (None, network.source.opset):
        words += ", by ONNX's own converter of versions"

    def convert(program: ExportedProgram, opset: int | None) -> onnx.ModelProto:
        model = write_smaller(network, stored_tensors(program))
        return model if opset in (None, network.source.opset) else convert_version(model, opset)

    return (
        Route(
            *(words, convert, network.source.has_free_batch),
            is_own=True,
            tolerance=tolerance_for(network),
        ),
    )


def finish_like_file(routes: Iterable[Route], *modules: nn.Module | None) -> tuple[Route, ...]:
    """Return the routes so that files are like the file that a network came from.

    They get its names of inputs, outputs and free sizes, and the version of its operators where
    that can be written.

    Args:
        routes: The exporters' routes.
        modules: Forms of the network, of which one may know such a file.
    """
    source = next((each.source for each in modules if isinstance(each, OnnxNetwork)), None)
    if source is None:
        return tuple(routes)
    named = [replace(route, finish=lambda model: _name_like(model, source)) for route in routes]
    return (*(_at_version(route, source.opset) for route in named if route.free_batch), *named)


def _at_version(route: Route, version: int) -> Route:
    """Return the route at a version of the operators, unless another one is asked for."""

    def convert(program: ExportedProgram, opset: int | None) -> onnx.ModelProto:
        model = route.convert(program, opset or version)
        written = next(entry.version for entry in model.opset_import if not entry.domain)
        if written > (opset or version):
            raise CompressorError(
                f"{route.exporter} writes version {written} of the operators",
                consequence=f"the file is not written at version {opset or version} by it",
                next_step="the next exporter is tried; --opset asks for another version",
            )
        return model

    return replace(route, convert=convert)


def _name_like(model: onnx.ModelProto, source: OnnxSource) -> None:
    """Give a model the names of a file's inputs, outputs and free sizes, in place.

    It also gets what the file says of itself.
    """
    words = words_of(declared.name for declared in source.graph.inputs)
    names = {w: d.name for w, d in zip(words, source.graph.inputs, strict=True)}
    new_names = {e.name: names.get(e.name, e.name) for e in model.graph.input}
    for entry, declared in zip(model.graph.output, source.graph.outputs, strict=True):
        new_names[entry.name] = declared.name
    taken = {new for old, new in new_names.items() if new != old}
    inner = {name for node in nodes_of(model.graph) for name in node.output}
    inner |= {tensor.name for tensor in model.graph.initializer}
    new_names |= {name: f"{name}@inner" for name in (inner & taken) - new_names.keys()}
    for graph in graphs_of(model.graph):
        for entry in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            entry.name = new_names.get(entry.name, entry.name)
        for node in graph.node:
            for given in (node.input, node.output):
                renamed = [new_names.get(name, name) for name in given]
                del given[:]
                given.extend(renamed)
    _name_sizes(model, {declared.name: declared for declared in source.graph.inputs})
    model.metadata_props.extend(source.model.metadata_props)


def _name_sizes(model: onnx.ModelProto, given: Mapping[str, Declared]) -> None:
    """Call free sizes what the inputs of a file call them, in place."""
    names: dict[str, str] = {}
    for entry in model.graph.input:
        wanted = given[entry.name].dims or () if entry.name in given else ()
        for dim, name in zip(entry.type.tensor_type.shape.dim, wanted, strict=False):
            if dim.dim_param and isinstance(name, str):
                names.setdefault(dim.dim_param, name)
    for graph in graphs_of(model.graph):
        for entry in (*graph.input, *graph.output, *graph.value_info):
            for dim in entry.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = re.sub(
                        r"\w+", lambda word: names.get(word[0], word[0]), dim.dim_param
                    )


def _follows(network: OnnxNetwork) -> bool:
    """Return whether every step of the network is still what the file says."""
    try:
        layers = [
            network.get_submodule(step.path)
            for step in every_step(network.layout.steps)
            if step.op != BRANCH
        ]
    except AttributeError:
        return False
    return all(isinstance(layer, NodeModule) for layer in layers)
