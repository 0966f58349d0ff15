"""Count what a network costs on the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compressor.graph.counting import count_params, macs_by_layer
from compressor.graph.programs.beginning import ended_after
from compressor.records import Trace


class Costs(NamedTuple):
    """What a network costs.

    Attributes:
        params: Number of elements in its parameters.
        macs: Multiply-adds of one sample.
        layers: Path of a layer -> multiply-adds of one sample.
    """

    params: int
    macs: int
    layers: Mapping[str, int]


def costs_of(module: nn.Module, traced: Trace, program: ExportedProgram | None = None) -> Costs:
    """Count parameters and multiply-adds of the traced network, or of a smaller one made from it,
    then with its `program`.

    Where the traced batch is fixed, the multiply-adds are a sample's share of the batch. What a
    detector computes later depends on what it finds, and is not counted.
    """
    examples = (traced.examples.args, dict(traced.examples.kwargs))
    one = pytree.tree_map(lambda x: x[:1] if isinstance(x, Tensor) and x.dim() else x, examples)
    args, kwargs = examples if traced.batch_symbol is None else one
    samples = traced.batch if traced.batch_symbol is None else 1
    with ended_after(module, traced.ends_after):
        layers = macs_by_layer(module, args, kwargs, program or traced.program)
    macs = sum(layers.values()) // samples
    each = {name: count // samples for name, count in layers.items()}
    return Costs(count_params(module), macs, each)
