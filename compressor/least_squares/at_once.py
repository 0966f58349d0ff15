"""Compute how many samples may run through a program together, by the sizes of its values."""

from __future__ import annotations

import math

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from compressor.graph.network import size_of

COPIES = 12
"""How often a walk holds a value of the largest size beside the values that wait, at most: what a
consumer is given and what that is padded to, what follows it up to its target in both networks, the
change that is wanted, and its way back."""

IN_A_GRADIENT = 4
"""How often each value is held while gradients are taken: itself, what stands beside it for them,
its gradient, and what operators keep."""


COMPARED = 8
"""How often outputs are held while they are judged: two networks', each also in double precision,
and what is computed of them."""

LEAST = 2
"""The least number of samples in a batch, as programs are traced with: a dimension of size 1 may be
squeezed away."""


def samples_that_fit(program: ExportedProgram, memory: int) -> int:
    """Return how many samples, 2 at least, a memory of so many bytes holds at one place."""
    return max(LEAST, memory // max(1, COPIES * max(_bytes_of_values(program), default=1)))


def samples_with_gradients(program: ExportedProgram, memory: int) -> int:
    """Return of how many samples a memory of so many bytes holds all values, perhaps of none."""
    return memory // max(1, IN_A_GRADIENT * sum(_bytes_of_values(program)))


def samples_to_compare(program: ExportedProgram, memory: int) -> int:
    """Return the outputs of how many samples, 1 at least, a memory of so many bytes can judge."""
    returned = program.graph_module.graph.output_node().all_input_nodes
    return max(1, memory // max(1, COMPARED * sum(map(_bytes_of, returned))))


def _bytes_of_values(program: ExportedProgram) -> list[int]:
    """Return the bytes of the values of each operator, for one sample where the batch is free."""
    nodes = program.graph_module.graph.nodes
    return [_bytes_of(node) for node in nodes if node.op == "call_function"]


def _bytes_of(node: Node) -> int:
    tensors = [v for v in pytree.tree_leaves(node.meta.get("val")) if isinstance(v, torch.Tensor)]
    return sum(math.prod(size_of(size, 1) for size in t.shape) * t.element_size() for t in tensors)
