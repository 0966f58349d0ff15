"""Run the traced program on data, and look at what its consumers are given."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.export.passes import move_to_device_pass
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.graph.network import Consumer
from compressor.graph.programs.lifting import fill_placeholders, stored_tensors
from compressor.graph.programs.nodes import ASSERTION, operator_of
from compressor.graph.rules import convolution, linear
from compressor.records import Trace

LAYERS = frozenset({*linear.RULES, *convolution.RULES})
"""Operators that multiply an activation with weights. Recurrent layers are not among them, since
the states that meet their weights are no values of the program."""

Look = Callable[[Consumer, torch.Tensor], torch.Tensor]
"""A function that is given what a consumer gets, and returns what it gets instead."""


class Program(Interpreter):
    """A traced program on a device, which frees each value after its last use."""

    def __init__(self, trace: Trace, consumers: Sequence[Consumer], device: str = "cpu") -> None:
        self.trace, self.device = trace, device
        self.program = _on_device(trace.program, device)
        super().__init__(self.program.graph_module)
        self.nodes = {node.name: node for node in self.program.graph.nodes}
        self.watched: dict[str, list[Consumer]] = {}
        for consumer in consumers:
            if operator_of(self.nodes[consumer.node]) in LAYERS:
                self.watched.setdefault(consumer.node, []).append(consumer)

    @property
    def consumers(self) -> list[Consumer]:
        """Return the consumers whose activations can be seen."""
        return [consumer for there in self.watched.values() for consumer in there]

    def sample_dimension(self, consumer: Consumer) -> int | None:
        """Return the dimension of a consumer's activation that grows with the batch, or None."""
        value = self.nodes[consumer.activation].meta["val"]
        for i, size in enumerate(value.shape):
            symbols = size.node.expr.free_symbols if isinstance(size, torch.SymInt) else ()
            if any(str(symbol) == self.trace.batch_symbol for symbol in symbols):
                return i
        return None

    def __call__(self, inputs: Any, look: Look) -> Any:
        """Run the network on a batch's inputs (a call, or positional ones) and return its outputs.

        Args:
            inputs: The batch's inputs.
            look: Is given what each consumer gets, and returns what it gets instead.

        Raises:
            CompressorError: The inputs are not those of the traced call.
        """
        leaves = Call.of(inputs).map(lambda leaf: leaf.to(self.device)).leaves
        signature, stored = self.program.graph_signature, stored_tensors(self.program)
        stored |= {name: stored[name].clone() for name in signature.buffers}  # may be written to
        values = fill_placeholders(self.program, leaves, stored)
        _check_batch(self.trace, leaves)
        self.look = look
        outputs = self.run(*values, enable_io_processing=False)
        specs = zip(outputs, signature.output_specs, strict=True)
        own = [output for output, spec in specs if spec.kind == OutputKind.USER_OUTPUT]
        return pytree.tree_unflatten(own, self.program.call_spec.out_spec)

    def run_node(self, node: Node) -> Any:
        if node.target is ASSERTION:
            return None
        before = dict[Node, Any]()
        for consumer in self.watched.get(node.name, ()):
            source = self.nodes[consumer.activation]
            before.setdefault(source, self.env[source])
            self.env[source] = self.look(consumer, self.env[source])
        result = super().run_node(node)
        self.env.update(before)
        return result


def _on_device(program: ExportedProgram, device: str) -> ExportedProgram:
    if torch.device(device).type == "cpu":
        return program
    return move_to_device_pass(copy.deepcopy(program), device)


def _check_batch(trace: Trace, leaves: Sequence[Any]) -> None:
    wanted = pytree.tree_leaves((trace.examples.args, dict(trace.examples.kwargs)))
    if trace.batch_symbol is None and leaves[0].shape[:1] != wanted[0].shape[:1]:
        raise CompressorError(
            f"a batch has {len(leaves[0])} samples, the traced program takes {len(wanted[0])}",
            where="--data",
            consequence="the activations cannot be measured",
            next_step=f"give at least {len(wanted[0])} samples, or a criterion of the weights",
        )


@contextmanager
def told_apart(inputs: Any) -> Iterator[None]:
    """Raise errors of the network or the loss inside the block as a CompressorError about them."""
    try:
        yield
    except CompressorError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise CompressorError(
            f"scoring failed on a batch: {' '.join(str(error).split())[:300]}",
            where=f"inputs of shape {Call.of(inputs).shapes}",
            consequence="nothing is scored",
            next_step="check that the data and the loss suit the network, or choose a criterion of "
            "the weights",
        ) from error
