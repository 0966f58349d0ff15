"""Gather the second moments of a consumer's features and outputs, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from compressor.processes import all_summed

AT_ONCE = 0.5
"""The number of rows whose products are added up together, as a share of the features: adding a
matrix of products takes as long as that many rows."""

SIDE = 512
"""The number of features of a panel: their products with each other and with later ones are held.
Products that mirror these are not computed."""

MOST_SHRUNK = 0.9
"""The largest share of shrinkage, for features that the samples say nothing of."""


@dataclass
class Moments:
    """Sums over the rows of a regression's features u and targets t, in float64.

    Attributes:
        crosses: Whether `cross` is gathered.
        count: Number of rows.
        parts: The sums by name. `outer 0` and so on are panels of Σ uuᵀ, by their first feature,
            [blocks, `SIDE`, that and later features]; `cross` Σ utᵀ, [blocks, features, outputs];
            `features` Σ u; `targets` Σ t; `squares` Σ t². Half batches are looked at apart:
            `halves` is their number, `norms` the sum of the squared norms of their mean squares
            uuᵀ, [blocks].
        waiting: Rows (features, targets) that are too few to be added by themselves.
    """

    crosses: bool = True
    count: int = 0
    parts: dict[str, Tensor] = field(default_factory=dict)
    waiting: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add features [blocks, rows, features] and targets [blocks, rows, outputs] to the sums."""
        self.count += features.shape[1]
        self.waiting.append((features, targets))
        if is_enough(sum(some.shape[1] for some, _ in self.waiting), features.shape[2]):
            self._add_waiting()

    def _add_waiting(self) -> None:
        if not self.waiting:
            return
        features, targets = (torch.cat(each, 1) for each in zip(*self.waiting, strict=True))
        self.waiting.clear()
        for some in halves_of(features.shape[1]):
            self._add(features[:, some], targets[:, some])

    def _add(self, features: Tensor, targets: Tensor) -> None:
        turned = features.transpose(1, 2)
        self._add_products(turned, features)
        if self.crosses:
            self._take("cross", turned @ targets)
        self._take("features", features.sum(1))
        self._take("targets", targets.sum(1))
        self._take("squares", targets.square().sum(1))
        self._take("halves", torch.ones(()))

    def _add_products(self, turned: Tensor, features: Tensor) -> None:
        """Add products of features with themselves and later ones; `settle` mirrors them."""
        blocks, rows, width = features.shape
        norms = torch.zeros(blocks, dtype=torch.float64)
        for first in _panels(width):
            products = (turned[:, first : first + SIDE] @ features[:, :, first:]).cpu()
            self._take(_name_of(first), products)
            norms += square_norm(products[:, :, :SIDE]) + 2 * square_norm(products[:, :, SIDE:])
        self._take("norms", norms / rows**2)

    def _take(self, name: str, value: Tensor) -> None:
        """Add a value to a sum in place, without a second tensor of its size."""
        if name in self.parts:
            self.parts[name] += value.cpu()
        else:
            self.parts[name] = value.cpu().double()

    def over_processes(self) -> Moments:
        """Return the moments of the rows of all processes together; these are used up."""
        self._add_waiting()
        count = torch.tensor([self.count], dtype=torch.float64)
        parts = all_summed({"count": count, **self.parts})
        return Moments(self.crosses, int(parts.pop("count")), parts)

    def settle(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """Return the covariance of the features and its shrinkage; the panels are used up for it.

        The covariance is the mean of uuᵀ, less the product of the means if a constant takes care of
        those: [blocks, features, features]. The shrinkage is how much of the mean square is added
        to the diagonal, so that the covariance errs least where samples are few: [blocks].
        """
        self._add_waiting()
        covariance, halves = self._join_panels().div_(self.count), self.parts["halves"]
        square = square_norm(covariance)
        if centred:
            u = self.parts["features"] / self.count
            covariance.baddbmm_(u.unsqueeze(2), u.unsqueeze(1), alpha=-1)
        mean = covariance.diagonal(dim1=1, dim2=2).sum(1) / max(1, covariance.shape[1])
        spread = square_norm(covariance) - covariance.shape[1] * mean.square()
        return covariance, shrinkage_of(self.parts["norms"] / halves, halves, square, spread)

    def _join_panels(self) -> Tensor:
        """Return the products of all features, [blocks, features, features]; panels are used up."""
        blocks, _, width = self.parts[_name_of(0)].shape
        whole = torch.empty(blocks, width, width, dtype=torch.float64)
        for first in _panels(width):
            panel, end = self.parts.pop(_name_of(first)), first + SIDE
            whole[:, first:end, first:] = panel
            whole[:, end:, first:end] = panel[:, :, SIDE:].mT
        return whole

    def cross(self, *, centred: bool) -> Tensor:
        mean = self.parts["cross"] / self.count
        if centred:
            u, t = (self.parts[name] / self.count for name in ("features", "targets"))
            mean = mean - u.unsqueeze(2) * t.unsqueeze(1)
        return mean

    def variance(self) -> Tensor:
        """Return the variance of the targets, [blocks, outputs]."""
        mean = self.parts["targets"] / self.count
        return (self.parts["squares"] / self.count - mean.square()).clamp(min=0)

    def means(self) -> tuple[Tensor, Tensor]:
        return self.parts["features"] / self.count, self.parts["targets"] / self.count


def panel_entries(features: int) -> int:
    """Return how many products all panels of so many features hold."""
    return sum(min(SIDE, features - first) * (features - first) for first in _panels(features))


def _panels(features: int) -> range:
    """Return the first features of the panels; without features there is one, which is empty."""
    return range(0, max(features, 1), SIDE)


def _name_of(first: int) -> str:
    return f"outer {first}"


def is_enough(rows: int, features: int) -> bool:
    """Return whether so many rows, of one batch or several, are looked at as two halves."""
    return rows >= AT_ONCE * features


def halves_of(rows: int) -> list[slice]:
    """Return rows as two halves; a single row is one by itself."""
    halves = (slice(0, rows // 2), slice(rows // 2, rows))
    return [half for half in halves if half.stop > half.start]


def shrinkage_of(norms: Tensor, halves: Tensor | int, square: Tensor, spread: Tensor) -> Tensor:
    """Compute how much of the mean square is added to a covariance's diagonal, [blocks].

    The weights are those of Ledoit and Wolf 2004 (A well-conditioned estimator for
    large-dimensional covariance matrices, section 3), with half batches for samples, since the
    positions of one image are not independent.

    Args:
        norms: Mean of the squared norms of the half batches' mean squares.
        halves: How many half batches there are.
        square: Squared norm of the mean square of all.
        spread: Squared norm of the covariance, less a multiple of the identity of the same trace.
    """
    count = torch.as_tensor(halves, dtype=torch.float64)
    noise = (norms - square).clamp(min=0) / (count - 1).clamp(min=1)
    share = (noise / spread.clamp(min=1e-30)).clamp(max=MOST_SHRUNK)
    return share / (1 - share)


def square_norm(matrices: Tensor) -> Tensor:
    """Return the squared norm of each block, [blocks], summed in double precision."""
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), dtype=torch.float64)
    return norms.square()
