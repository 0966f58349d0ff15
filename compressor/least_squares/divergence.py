"""Measure how far a network's outputs are from the original's; no labels and no loss are needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.double_precision import pieces_of
from compressor.graph.blocks import Block
from compressor.least_squares.walk import Inputs, Script
from compressor.padding import blank_padding
from compressor.processes import all_summed

Outputs = list[Tensor]


class Divergence:
    """Compares smaller networks with the original on some samples.

    The divergence is the mean squared difference of the outputs as a share of the original outputs'
    variance, averaged over the outputs: 0 for the original, 1 for what returns their mean.
    """

    def __init__(
        self,
        program: ExportedProgram,
        inputs: Inputs,
        device: str = "cpu",
        memory: float = math.inf,
    ) -> None:
        """Run the original on all samples and keep what it returns, if the memory is enough.

        Args:
            program: The original.
            inputs: Gives the batches anew, the same each time.
            device: Where networks are run.
            memory: Bytes for the original's outputs; if they take more, it is run again each time.
        """
        self.inputs, self.device = inputs, device
        self.script = Script(program, device)
        self._kept: list[Outputs] | None = []
        held = 0
        for outputs in self._run(self.script):
            held += sum(output.nbytes for output in outputs)
            if held > memory:
                self._kept = None
                break
            self._kept.append(outputs)

    def _wanted(self) -> Iterator[Outputs]:
        """Yield what the original returns, batch by batch."""
        yield from self._run(self.script) if self._kept is None else self._kept

    def of(self, program: ExportedProgram) -> float:
        """Return the divergence of a smaller program from the original."""
        pairs = zip(self._wanted(), self._run(Script(program, self.device)), strict=True)
        return self._share(sum(_squares(wanted, outputs) for wanted, outputs in pairs))

    def without(self, blocks: Sequence[Block]) -> list[float]:
        """Return, for each block, the divergence of the original without it alone, unrepaired.

        It is measured on the first batch.
        """
        self.script.lasting |= {self.script.named[block.stream] for block in blocks}
        walk = self.script.start(next(iter(self.inputs())))
        divergences, wanted = [], next(self._wanted())
        for block in blocks:
            walk.advance(block.addition)
            outputs = _floats(walk.detour(block.addition, block.stream), walk.counted)
            divergences.append(self._share(_squares(wanted, outputs)))
        return divergences

    def _run(self, script: Script) -> Iterator[Outputs]:
        with torch.no_grad():
            for given in self.inputs():
                walk = script.start(given)
                yield _floats(walk.outputs(), walk.counted)

    @staticmethod
    def _share(sums: Any) -> float:
        over_all: Tensor = all_summed({"squares": sums})["squares"]
        differences, variances = over_all.reshape(2, -1)
        return float((differences / variances.clamp(min=1e-30)).mean())


def _floats(outputs: Sequence[Any], counted: Tensor | None) -> Outputs:
    tensors = (t for t in outputs if isinstance(t, Tensor))
    floats = (t for t in tensors if t.is_floating_point() and t.numel())
    return [blank_padding(t, counted).cpu() for t in floats]


def _squares(wanted: Outputs, outputs: Outputs) -> Tensor:
    """Return per output the squared difference, then per output the squared deviation, [2·n]."""
    sums = [_squares_of(*pair) for pair in zip(wanted, outputs, strict=True)]
    return torch.stack([each[0] for each in sums] + [each[1] for each in sums])


def _squares_of(wanted: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared difference of an output, and the squared deviation of the original's."""
    difference, deviation = torch.zeros(2, dtype=torch.float64)
    for some, other in pieces_of(wanted, output):
        difference = difference + (some - other).square().sum()
        deviation = deviation + (some - some.mean(0, keepdim=True)).square().sum()
    return difference, deviation
