"""Order channels by backward elimination: the least missed goes first.

For a regression y = Wᵀu with second moments A = E[uuᵀ], dropping the features J and re-fitting the
others costs tr(W_Jᵀ ((A⁻¹)_JJ)⁻¹ W_J); the Schur complement of (A⁻¹)_JJ gives A⁻¹ and W of what
remains. It is the optimal-brain-surgeon step (Hassibi and Stork 1993) for whole channels, cf.
Optimal Brain Compression (Frantar and Alistarh 2022, section 4) and ZipLM (Kurtic et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.least_squares.inverses import Inverse, OfMoments, OfRows, factor, solve

RIDGE = 1e-4
"""The least share of the diagonal's mean that is added to the diagonal of A."""

REFITS = 768
"""About the number of re-fits in which a group is emptied, shared among its consumers; it bounds
the cost of large groups. A step of several channels drops the cheapest, as if each were alone."""

LEAST_STEPS, MOST_STEPS = 24, 256
"""In how many steps a group is emptied."""


@dataclass
class Regression:
    """The regression of one consumer, or of the columns of some of its channels.

    Attributes:
        features: Second moments of the features, [blocks, features, features]; or rows
            [blocks, rows, features] of which UᵀU are the second moments.
        weight: [blocks, features, outputs], outputs in units of what the consumer may disturb.
        channel: The group's channel of each feature, [features]; -1 is of another group.
        ridge: Added to the diagonal of the moments, as a share of its mean, [blocks].
        by_rows: Whether `features` are rows.
    """

    features: Tensor
    weight: Tensor
    channel: npt.NDArray[np.int64]
    ridge: Tensor | float = RIDGE
    by_rows: bool = False

    def invert(self) -> Inverse:
        """Return the inverse of the second moments with the ridge."""
        features = self.features.double()
        if self.by_rows:
            mean = features.square().sum((1, 2)) / features.shape[2]
            return OfRows(features, self.ridge * mean + 1e-30)
        mean = features.diagonal(dim1=1, dim2=2).mean(1)
        return OfMoments(features, self.ridge * mean + 1e-30)


@dataclass(frozen=True)
class Elimination:
    """The order in which a group's channels go.

    Attributes:
        order: The channels as they go, [size].
        errors: The error that each of them adds, in that order, [size].
    """

    order: npt.NDArray[np.int64]
    errors: npt.NDArray[np.float64]

    def scores(self) -> npt.NDArray[np.float64]:
        """Return one number per channel that rises along the order, [size].

        It is the largest error added so far, made strictly increasing so that ties keep the order.
        """
        rising = np.maximum.accumulate(np.maximum(self.errors, 0.0))
        nudged = rising * (1 + 1e-9 * np.arange(len(rising))) + 1e-15 * np.arange(len(rising))
        scores = np.empty(len(rising))
        scores[self.order] = nudged
        return scores


def eliminate(
    regressions: Iterable[Regression], size: int, steps: int | None = None
) -> Elimination:
    """Drop the channel whose loss its consumers can make up for best, again and again.

    Args:
        regressions: The group's consumers; their losses add up. They are not changed, and looked
            at one after the other.
        size: Number of channels of the group.
        steps: The most steps to take; each drops several channels where there are more.
    """
    states = [_State(regression) for regression in regressions]
    alive = np.arange(size)
    order: list[npt.NDArray[np.int64]] = []
    errors: list[npt.NDArray[np.float64]] = []
    steps = steps or max(LEAST_STEPS, min(REFITS // len(states), MOST_STEPS))
    at_once = math.ceil(size / steps)
    while len(alive):
        costs = np.sum([state.costs(alive) for state in states], axis=0)
        cheapest = np.argsort(costs, kind="stable")[:at_once]
        gone = alive[cheapest]
        order.append(gone)
        errors.append(_share_out(costs[cheapest], sum(state.drop(gone) for state in states)))
        alive = np.delete(alive, cheapest)
    return Elimination(np.concatenate(order), np.concatenate(errors))


def _share_out(alone: npt.NDArray[np.float64], together: float) -> npt.NDArray[np.float64]:
    """Share out what channels cost together in proportion to what each would cost alone."""
    total = float(alone.sum())
    return alone * (together / total) if total > 0 else np.full(len(alone), together / len(alone))


_MOST_GONE = 0.25
"""The share of a regression's features that may be gone before they are removed: copying what
stays takes longest."""


class _State:
    """The inverse moments and weights of the features that remain.

    Attributes:
        channels: The group's channels in here, ascending, [channels].
        places: Where the features of each are, [channels, k].
        own: The inverse's part of each, [blocks, channels, k, k].
    """

    def __init__(self, regression: Regression) -> None:
        self.weight = regression.weight.double().clone()
        self.features, self.gone = len(regression.channel), 0
        order = np.argsort(regression.channel, kind="stable")
        order = order[regression.channel[order] >= 0]
        self.channels = np.unique(regression.channel[order])
        self.places = torch.as_tensor(order.reshape(len(self.channels), -1))
        self.others = torch.as_tensor(np.flatnonzero(regression.channel < 0))
        self.inverse = regression.invert()
        self.own = self.inverse.blocks(self.places)

    def costs(self, alive: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return what dropping each channel alone would cost; 0 for those not in here."""
        costs = np.zeros(len(alive))
        if not len(self.channels):
            return costs
        if self.places.shape[1] == 1:
            energy = torch.linalg.vector_norm(self.weight, dim=2).square()
            errors = energy[:, self.places[:, 0]] / self.own[:, :, 0, 0]
        else:
            errors = solve(factor(self.own), self.weight[:, self.places]).square().sum((2, 3))
        costs[np.searchsorted(alive, self.channels)] = errors.sum(0).numpy()
        return costs

    def drop(self, gone: npt.NDArray[np.int64]) -> float:
        """Drop channels together, in place, and return the error that this adds."""
        going = np.isin(self.channels, gone)
        if not going.any():
            return 0.0
        out = self.places[torch.as_tensor(going)].flatten()
        stay = torch.as_tensor(np.flatnonzero(~going))
        self.channels, self.places = self.channels[~going], self.places[stay]
        outer = self.inverse.columns(out)
        root = factor(outer[:, out])
        shares = solve(root, self.weight[:, out])
        change = solve(root, outer.transpose(1, 2)).transpose(1, 2)
        self.weight.baddbmm_(change, shares, alpha=-1)
        rows = change[:, self.places]
        is_single = rows.shape[2] == 1
        less = rows.square().sum(3, keepdim=True) if is_single else rows @ rows.transpose(2, 3)
        self.own = self.own[:, stay] - less
        self.inverse.drop(out, change)
        self.gone += len(out)
        if self.gone > _MOST_GONE * self.features:
            self._compact()
        return float(shares.square().sum())

    def _compact(self) -> None:
        """Remove the features that are gone."""
        stay = torch.cat([self.places.flatten(), self.others]).sort().values
        self.weight = self.weight[:, stay]
        self.inverse.compact(stay)
        self.places, self.others = (torch.searchsorted(stay, p) for p in (self.places, self.others))
        self.features, self.gone = len(stay), 0
