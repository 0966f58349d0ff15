"""List the routes on which a network that came from an ONNX file is written as one again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx
from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError
from compressor.formats.onnx_file import Route
from compressor.formats.own_graph import write_smaller
from compressor.graph.programs.lifting import stored_tensors
from compressor.loading.onnx.contents import OnnxSource
from compressor.loading.onnx.onnx_network import NodeModule, OnnxNetwork, every_step
from compressor.loading.onnx.operators import BRANCH
from compressor.loading.onnx.parsing import graphs_of, nodes_of
from compressor.loading.onnx.proof import tolerance_for
from compressor.onnx_runtime import words_of


def own_routes(module: nn.Module | None, opset: int | None = None) -> tuple[Route, ...]:
    """Return the route into the file's own graph, where a network came from one and follows it.

    Args:
        module: The network.
        opset: The version of the operators that is asked for; None for any.
    """
    if not isinstance(module, OnnxNetwork) or not _follows(module):
        return ()
    if opset not in (None, module.source.opset):
        return ()
    network = module

    def convert(program: ExportedProgram, _: int | None) -> onnx.ModelProto:
        return write_smaller(network, stored_tensors(program))

    return (
        Route(
            *("the file's own graph", convert, network.source.has_free_batch),
            is_own=True,
            tolerance=tolerance_for(network),
        ),
    )


def finish_like_file(module: nn.Module | None, routes: Iterable[Route]) -> tuple[Route, ...]:
    """Return the routes so that files get the names of the file that a network came from, and the
    version of its operators where that can be written.

    Args:
        module: The network as it was loaded.
        routes: The exporters' routes.
    """
    if not isinstance(module, OnnxNetwork):
        return tuple(routes)
    source = module.source
    named = [replace(route, finish=lambda model: _name_like(model, source)) for route in routes]
    return (*(_at_version(route, source.opset) for route in named if route.free_batch), *named)


def _at_version(route: Route, version: int) -> Route:
    """Return the route at a version of the operators, unless another one is asked for."""

    def convert(program: ExportedProgram, opset: int | None) -> onnx.ModelProto:
        model = route.convert(program, opset or version)
        found = next(entry.version for entry in model.opset_import if not entry.domain)
        if found > (opset or version):
            raise CompressorError(
                f"{route.exporter} writes version {found} of the operators",
                consequence=f"the file is not written at version {opset or version} by it",
                next_step="the next exporter is tried; --opset asks for another version",
            )
        return model

    return replace(route, convert=convert)


def _name_like(model: onnx.ModelProto, source: OnnxSource) -> None:
    """Give a model the inputs' and outputs' names of a file, and what that says of itself, in
    place."""
    words = words_of(declared.name for declared in source.graph.inputs)
    names = {w: d.name for w, d in zip(words, source.graph.inputs, strict=True)}
    found = {e.name: names.get(e.name, e.name) for e in model.graph.input}
    for entry, declared in zip(model.graph.output, source.graph.outputs, strict=True):
        found[entry.name] = declared.name
    taken = {new for old, new in found.items() if new != old}
    inner = {name for node in nodes_of(model.graph) for name in node.output}
    inner |= {tensor.name for tensor in model.graph.initializer}
    found |= {name: f"{name}@inner" for name in (inner & taken) - found.keys()}
    for graph in graphs_of(model.graph):
        for entry in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            entry.name = found.get(entry.name, entry.name)
        for node in graph.node:
            for given in (node.input, node.output):
                renamed = [found.get(name, name) for name in given]
                del given[:]
                given.extend(renamed)
    model.metadata_props.extend(source.model.metadata_props)


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
