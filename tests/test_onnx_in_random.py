"""Random ONNX graphs: read as ONNX Runtime runs them, and made smaller like their masked twins.

`pytest -m slow` tries a thousand of each; COMPRESSOR_EXAMPLES=N tries N.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
from cases import Case
from hypothesis import HealthCheck, assume, given, settings
from onnx_files import save
from random_onnx import Drawing, alone, chains
from torch import nn
from twin import Analysed, masked_twin, random_keep

from compressor.agreement import ONNX, difference, is_live, shake
from compressor.errors import CompressorError
from compressor.formats.own_routes import own_routes
from compressor.formats.verifying import write_and_verify
from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.loading import load_model
from compressor.loading.onnx.onnx_network import OnnxNetwork
from compressor.records import LoadedModel
from compressor.slicing import slice_network
from compressor.slicing.compare import outputs_of, variants

KNOWN = re.compile("averages with gaps")
"""What is refused in words: forms of operators that have no entry."""

LEFT = {"Gather", "Pad", "Slice"}
"""Operators that the file's own graph may not follow: other channels are another list of places, or
a place that is counted from the end."""

MANY = int(os.environ.get("COMPRESSOR_EXAMPLES", "1000"))
relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


def read(g: Drawing, path: Path) -> LoadedModel:
    """Read a graph's file, which compares it with ONNX Runtime; what that does not run is no
    example."""
    save(g.model(rank=len(g.shape)), path)
    try:
        session = onnxruntime.InferenceSession(str(path))
        session.run(None, {"x": torch.randn(g.first).numpy()})
    except Exception:
        assume(False)
    try:
        return load_model(str(path))
    except CompressorError as error:
        assume(not KNOWN.search(str(error)))
        raise


def assert_smaller_like_its_twin(g: Drawing, folder: Path) -> None:
    loaded = read(g, folder / "net.onnx")
    assert loaded.examples is not None
    traced = trace(loaded.module, loaded.examples)
    network = analyse(traced)
    keep = random_keep(network, seed=0)
    sliced = slice_network(traced, network, keep)
    case = Case(lambda: traced.module)
    twin = masked_twin(Analysed(case, traced.module, traced, network), keep)

    def run(module: nn.Module) -> list[list[torch.Tensor]]:
        return [outputs_of(module, each) for each in variants(traced)]

    expected = run(twin)
    assume(is_live(expected))
    off = difference(expected, run(sliced.module), ONNX, lambda: shake(twin, run, ONNX))
    assert off.size <= 1e-4, off.place
    routes = own_routes(sliced.module)
    assert routes or LEFT & {node.op_type for node in g.nodes}
    if routes:
        write_and_verify(sliced.program, folder / "s.onnx", traced, routes)


@settings(relaxed, max_examples=60, derandomize=True)
@given(alone())
def test_an_operator_is_read_as_onnx_runtime_runs_it(tmp_path: Path, g: Drawing) -> None:
    loaded = read(g, tmp_path / "net.onnx")
    assert isinstance(loaded.module, OnnxNetwork)  # which was compared, or loading had raised


@settings(relaxed, max_examples=8, derandomize=True)
@given(chains())
def test_a_graph_becomes_smaller_like_its_masked_twin(tmp_path: Path, g: Drawing) -> None:
    assert_smaller_like_its_twin(g, tmp_path)


@pytest.mark.slow
@settings(relaxed, max_examples=MANY)
@given(alone())
def test_many_operators(tmp_path: Path, g: Drawing) -> None:
    loaded = read(g, tmp_path / "net.onnx")
    assert isinstance(loaded.module, OnnxNetwork)  # which was compared, or loading had raised


@pytest.mark.slow
@settings(relaxed, max_examples=MANY)
@given(chains())
def test_many_graphs(tmp_path: Path, g: Drawing) -> None:
    assert_smaller_like_its_twin(g, tmp_path)
