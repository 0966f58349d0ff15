"""Random networks, analysed and sliced at random, against the dense network without what is
dropped. `pytest -m slow` tries a thousand; COMPRESSOR_EXAMPLES=N tries N."""

from __future__ import annotations

import os

import pytest
import torch
from compact import CompactTwin
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_networks import SIDE, RandomNetwork, Recipe, recipes
from twin import random_keep

from compressor.agreement import difference, is_live
from compressor.graph.analysis import analyse
from compressor.graph.programs.redraw import drawable, redraw_
from compressor.graph.trace import trace
from compressor.records import ExampleInputs
from compressor.slicing import as_module
from compressor.slicing.compare import outputs_of
from compressor.slicing.program import slice_program

ROLES = ("channels", "heads", "head_width", "stream")
relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


def _inputs(batch: int) -> ExampleInputs:
    return ExampleInputs((torch.randn(batch, 2, SIDE, SIDE, dtype=torch.float64),))


def assert_sliced_like_its_twin(recipe: Recipe, seed: int) -> None:
    torch.manual_seed(seed)
    model = RandomNetwork(recipe).double().eval()
    redraw_(drawable(model), seed)
    traced = trace(model, _inputs(2))
    inputs = [_inputs(batch) for batch in ((2, 2, 3) if traced.batch_symbol else (2, 2))]
    network = analyse(traced)
    keep = random_keep(network, seed, ROLES)
    small = as_module(slice_program(traced, network, network.masks(keep)))
    twin = CompactTwin(traced, network, keep)
    outputs = [outputs_of(twin, example) for example in inputs]
    assume(is_live(outputs))
    assert difference(outputs, [outputs_of(small, example) for example in inputs]).size <= 1e-9
    left = network.cost.params(network.sizes({name: len(kept) for name, kept in keep.items()}))
    assert sum(p.numel() for p in small.parameters()) == left


@settings(relaxed, max_examples=8, derandomize=True)
@given(recipes, st.integers(0, 1000))
def test_random_networks(recipe: Recipe, seed: int) -> None:
    assert_sliced_like_its_twin(recipe, seed)


@pytest.mark.slow
@settings(relaxed, max_examples=int(os.environ.get("COMPRESSOR_EXAMPLES", "1000")))
@given(recipes, st.integers(0, 1000))
def test_many_random_networks(recipe: Recipe, seed: int) -> None:
    assert_sliced_like_its_twin(recipe, seed)
