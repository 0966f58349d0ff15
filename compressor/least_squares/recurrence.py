"""Re-fit the sums of recurrent cells, whose features hang upon the weights that are fitted.

The states before each step are first taken from the original network (teacher forcing, Williams and
Zipser 1989), which makes it a linear regression. Run by itself the cell then sees its own states,
so its errors come back: closely fitted weights may amplify them. So it is fitted again on the
states that it had by itself, towards the original's sums at the same steps: it learns to come back
(Data as Demonstrator, Venkatraman et al. 2015), for as long as that helps. Each time several pulls
towards the weights so far are tried, and on batches kept apart the cell decides by itself which
weights it has, the old ones among them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from compressor.graph.axes import Axis, Bools
from compressor.graph.network import Network
from compressor.graph.programs.nodes import argument
from compressor.least_squares.cells import STATES
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.drawn_rows import Draw
from compressor.least_squares.pairs import Pairs, keep_wanted
from compressor.least_squares.positions import keep_positions
from compressor.least_squares.ridge import ByMoments
from compressor.least_squares.walk import Walk
from compressor.processes import all_summed

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""The pulls towards the old weights that are tried, as shares of the features' mean energy."""

ROUNDS, GAIN = 6, 0.05
"""A cell is fitted on its own states so many times at most, and no more once the error falls by a
smaller share than this."""

APART = 4
"""One of so many batches is kept apart; all take both parts where there is a single one."""


class CellFit:
    """The re-fit of some of a cell's sums."""

    def __init__(
        self,
        pairs: Pairs,
        consumer: Contraction,
        network: Network,
        masks: Mapping[Axis, Bools],
        seed: int,
    ) -> None:
        self.pairs, self.consumer, self.network, self.masks = pairs, consumer, network, masks
        self.node = pairs.sliced.named[consumer.node]
        self.before = argument(self.node, STATES)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, ridge: float | None = None) -> tuple[float, float] | None:
        """Change the weights where that is for the better, in place.

        Args:
            ridge: Is tried in place of `RIDGES`.

        Returns:
            The mean squared error of the cell that runs by itself, before and after; None where
            nothing was better.
        """
        first = self._error()
        error = self._improve(first, ridge, is_led=True)
        for _ in range(ROUNDS):
            before, error = error, self._improve(error, ridge, is_led=False)
            if error >= (1 - GAIN) * before:  # nor where there is none
                break
        return (first, error) if error < first else None

    def _improve(self, best: float, ridge: float | None, *, is_led: bool) -> float:
        """Solve one regression with several pulls, and leave the best weights in place.

        Args:
            best: The error of the weights that are there, which stay if no others are better.
            ridge: Is tried in place of `RIDGES`.
            is_led: Whether the states before each step are the original's, else the cell's own.

        Returns:
            The error of the weights that are left.
        """
        gathering, kept = self._gather(is_led=is_led), self._weights()
        old = kept
        for pull in RIDGES if ridge is None else (ridge,):
            step = copy.deepcopy(gathering).step(centred=bool(self.consumer.constant), ridge=pull)
            if step is None:
                break
            self.consumer.add(step, self.pairs.sliced.tensors)
            error = self._error()
            if error < best:
                best, kept = error, self._weights()
            self._put_back(old)
        self._put_back(kept)
        return best

    def _gather(self, *, is_led: bool) -> ByMoments:
        """Gather the regression with the original's states, or with the cell's own, as features."""
        gathering, consumer = ByMoments(), self.consumer
        draw = Draw(self.pairs.batches() or 1, self.generator, self.pairs.memory)
        columns = self.network.tensors[consumer.state][1]
        for original, sliced, wanted in self._some(apart=False):
            if is_led:
                theirs = original.kept[argument(self._original, STATES)]
                shape = (*map(Axis, theirs.shape[:-1]), columns)
                states = keep_positions(theirs, shape, self.masks)
            else:
                states = sliced.compute(self.before)
            seen = sliced.seeing(self.before, states)
            change = wanted - seen.compute(self.node)
            features, rows = draw.features(seen, consumer, change)
            gathering.add(features, consumer.layout.outputs(change, rows).unsqueeze(0))
        return gathering

    def _error(self) -> float:
        """Return the mean squared error of the sums of the cell that sees its own states."""
        sums = {"error": torch.zeros((), dtype=torch.float64), "count": torch.zeros(())}
        for _, sliced, wanted in self._some(apart=True):
            own = sliced.seeing(self.before, sliced.compute(self.before))
            errors = (wanted - own.compute(self.node)).square().sum(-1)
            sums["error"] += errors.double().sum().cpu()
            sums["count"] += errors.numel()
        whole = all_summed(sums)
        return float(whole["error"] / whole["count"].clamp(min=1))

    @property
    def _original(self) -> torch.fx.Node:
        node: torch.fx.Node = self.pairs.original.named[self.pairs.wanted(self.consumer)]
        return node

    def _some(self, *, apart: bool) -> Iterator[tuple[Walk, Walk, Tensor]]:
        """Yield pairs of walks of the batches that are kept apart, or of the others.

        With each comes what the smaller cell's sums should be.
        """
        count = self.pairs.batches() or APART
        every = min(count, APART)

        def is_wanted(number: int) -> bool:
            return every == 1 or (number % every == every - 1) is apart

        with torch.no_grad():
            for original, sliced in self.pairs.at(self.consumer.node, is_wanted):
                whole = original.reach(self.pairs.wanted(self.consumer))
                yield original, sliced, keep_wanted(whole, self.network, self.consumer, self.masks)

    def _weights(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self._tensors()]

    def _put_back(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for tensor, old in zip(self._tensors(), weights, strict=True):
                tensor.copy_(old)

    def _tensors(self) -> list[Tensor]:
        names = (*self.consumer.tensors, *filter(None, [self.consumer.constant]))
        return [self.pairs.sliced.tensors[name] for name in names]
