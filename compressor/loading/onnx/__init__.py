"""Read the network of an ONNX file: its graph becomes a module, which is proved before it is used.

parse (`parsing`, `model_checks`, `graph_reading`) -> plan (`plan_of_steps`) -> build
(`onnx_network`, `node_module`) -> examples (`declared_inputs`) -> prove (`proof`). Nothing in a
file is executed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from compressor.errors import CompressorError
from compressor.files.hashes import sha256_of
from compressor.loading.foretelling import is_too_large
from compressor.loading.inputs import parse_inputs
from compressor.loading.onnx.contents import FLOATS
from compressor.loading.onnx.declared_inputs import candidates
from compressor.loading.onnx.graph_reading import read_source
from compressor.loading.onnx.onnx_network import OnnxNetwork, build_network
from compressor.loading.onnx.proof import prove
from compressor.loading.onnx.saying import refused
from compressor.loading.sniff import FileKind
from compressor.loading.wanted import Wanted, refuse_factory
from compressor.loading.wording import one_line
from compressor.records import ExampleInputs, LoadedModel

__all__ = ["OnnxNetwork", "read_onnx"]


def read_onnx(path: Path, kind: FileKind, wanted: Wanted) -> LoadedModel:
    """Read the network of an ONNX file, and prove that it computes what the file does.

    Raises:
        UsageError: The arguments do not go with such a file.
        CompressorError: The file is damaged, hostile or quantised, holds what no network is made
            of here, or is read wrongly.
    """
    refuse_factory(path, kind, wanted)
    source = read_source(path)
    network = build_network(source)
    examples = _examples(network, wanted)
    network.note_literals(examples.args)
    prove(path, network, examples)
    return LoadedModel(
        module=network,
        name=path.stem,
        recognised=f"{kind} (operators' version {source.opset})",
        weights="loaded",
        sha256=sha256_of(path),
        examples=examples,
        stored=_types(network),
    )


def _examples(network: OnnxNetwork, wanted: Wanted) -> ExampleInputs:
    """Return the inputs that the user says, or else the first that the network accepts.

    Raises:
        CompressorError: It accepts none.
    """
    if wanted.inputs:
        given = parse_inputs(wanted.inputs)
        return _by_position(network, given)
    tried: list[str] = []
    for examples in candidates(network):
        if is_too_large(network, examples):
            tried.append(f"{examples.origin} (it takes more memory than is free)")
            continue
        try:
            with torch.no_grad():
                network(*examples.args)
        except CompressorError:
            raise
        except Exception as error:  # whatever torch's operators raise
            tried.append(f"{examples.origin} ({one_line(error)})")
            continue
        return examples
    raise refused(
        "the network does not run on inputs of the sizes that the file declares",
        "; ".join(tried[:3]),
        "say which inputs it takes: --input [name=]1x3x224x224[:int64<512], once per input",
    )


def _by_position(network: OnnxNetwork, given: ExampleInputs) -> ExampleInputs:
    import inspect

    try:
        bound = inspect.signature(network.forward).bind(*given.args, **given.kwargs)
    except TypeError as error:
        names = ", ".join(inspect.signature(network.forward).parameters)
        raise refused(f"the file's inputs are {names}: {error}", "--input") from error
    return ExampleInputs(tuple(bound.arguments.values()), {}, given.origin)


def _types(network: OnnxNetwork) -> dict[str, torch.dtype]:
    """Return the file's own types of the tensors that are not float32 there, by name."""
    constants = network.source.graph.constants
    return {
        path: FLOATS[constants[name].kind]
        for name, held in network.layout.held.items()
        for path in held.paths
        if constants[name].kind in FLOATS
    }
