"""Keep what the original computes where repairs aim at it, for many repairs on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from compressor.graph.programs.nodes import argument
from compressor.least_squares.cells import STATES
from compressor.least_squares.consumers import Contraction, consumers
from compressor.least_squares.walk import Inputs, Script, Walk


def nodes_aimed_at(script: Script, pairs: Sequence[tuple[Contraction, str]]) -> set[Node]:
    """Return the nodes whose values a repair needs of the original.

    Args:
        script: The original's.
        pairs: Each consumer, with the name of the node whose value is wanted of its target.
    """
    nodes = [(consumer, script.named[name]) for consumer, name in pairs]
    states = {argument(node, STATES) for consumer, node in nodes if consumer.recurs}
    return {node for _, node in nodes} | states


class Recording:
    """The values of one program that repairs aim at, of all calibration batches.

    The program is run where they are asked for first.
    """

    def __init__(
        self,
        program: ExportedProgram,
        aliases: Mapping[str, str],
        inputs: Inputs,
        memory: float,
        device: str = "cpu",
    ) -> None:
        """Note what is to be run.

        Args:
            program: The original; not changed while this is used.
            aliases: Name of a tied tensor -> name under which it is stored.
            inputs: Gives the calibration batches, the same that repairs are given.
            memory: Bytes for what is kept; if it takes more, nothing is.
            device: Where it is run.
        """
        self.program, self.aliases, self.inputs = program, aliases, inputs
        self.memory, self.device = memory, device

    @property
    def bytes(self) -> int:
        """Return the bytes of what is kept; 0 where it takes more than there is."""
        return self._kept[0]

    @cached_property
    def _kept(self) -> tuple[int, list[dict[str, Tensor]]]:
        """The bytes, and for each batch the values by their node's name."""
        script = Script(self.program, self.device)
        found = consumers(self.program, self.aliases)
        script.lasting = nodes_aimed_at(script, [(each, each.target) for each in found])
        held, batches = 0, list[dict[str, Tensor]]()
        for given in self.inputs():
            walk = script.start(given)
            with torch.no_grad():
                walk.outputs()
            walk.values.clear()
            held += walk.size_bytes()
            if held > self.memory:
                return 0, []
            batches.append({node.name: value for node, value in walk.kept.items()})
        return held, batches

    def walk(self, script: Script, number: int) -> Walk | None:
        """Return a walk through the program that is at its end, and knows what lasts.

        None where a value is not kept that lasts in the script, or nothing is of that batch.

        Args:
            script: One of the same program.
            number: The batch's, from 0.
        """
        _, batches = self._kept
        if number >= len(batches):
            return None
        values = batches[number]
        if any(node.name not in values for node in script.lasting):
            return None
        walk = _Recorded(script, {}, len(script.nodes))
        walk.kept = {node: values[node.name] for node in script.lasting}
        return walk


class _Recorded(Walk):
    """A walk whose values belong to a recording."""

    def size_bytes(self) -> int:
        """Return 0: letting go of it frees nothing."""
        return 0
