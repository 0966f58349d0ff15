"""How a decision came about, where scores and a budget alone did not make it: typed records, and
what the report's budget says of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A smaller network timed against the original.

    Attributes:
        predicted: Its share of the original's time, by the latency model.
        share: The same, as measured.
        before_ms: The original's time of one call.
        after_ms: The smaller network's.
        noise: The share by which the original differed from itself.
    """

    predicted: float
    share: float
    before_ms: float
    after_ms: float
    noise: float

    @property
    def words(self) -> str:
        """Return the times as a short line for the terminal."""
        return (
            f"{self.after_ms:.3g} of {self.before_ms:.3g} ms, {self.share:.3f} "
            f"(noise {self.noise:.1%})"
        )


@dataclass(frozen=True)
class Attempt:
    """A network of one size that was recovered and judged.

    Attributes:
        removed: The share of the cost that is removed.
        metric: Its metric on the validation data.
        drop: How much worse the metric is, in points (hundredths; of perplexity, of its own).
        is_within: Whether that is no more than is allowed.
    """

    removed: float
    metric: float
    drop: float
    is_within: bool


@dataclass(frozen=True)
class ByClock:
    """The choice was corrected until the measured time was what was asked for.

    Attributes:
        measured: The times of the network that was taken.
        asked: The share of the original's time that was asked for.
        tries: How many networks were timed.
    """

    measured: Measured
    asked: float
    tries: int


@dataclass(frozen=True)
class ByAccuracy:
    """The size was found by trying how much worse the metric gets.

    Attributes:
        whole: The original's metric.
        max_drop: The points that it may be worse by.
        trials: The sizes that were tried, in order.
    """

    whole: float
    max_drop: float
    trials: Sequence[Attempt]


@dataclass(frozen=True)
class Candidate:
    """A smaller network that was made and repaired on a few samples.

    Attributes:
        blocks: The blocks that it lacks, in the order of execution.
        divergence: How far its outputs are from the original's, as a share of their variance;
            infinite where it cannot meet the budget.
        factors: What the scores of groups were multiplied by before channels were chosen; others'
            by 1.
        scored_again: Whether channels were scored again when half of the way was done.
        is_even: Whether each layer lost the same share.
        aim: What the goal was multiplied by after its network was timed; None where none was.
    """

    blocks: tuple[str, ...]
    divergence: float
    factors: Mapping[str, float] = field(default_factory=dict)
    scored_again: bool = False
    is_even: bool = False
    aim: float | None = None

    def to_report(self) -> dict[str, Any]:
        """Return what the report says of it; null for an infinite divergence."""
        return {
            "blocks": list(self.blocks),
            "divergence": self.divergence if math.isfinite(self.divergence) else None,
            "factors": dict(self.factors),
            "scored_again": self.scored_again,
            "is_even": self.is_even,
            "aim": self.aim,
        }

    @classmethod
    def from_report(cls, said: Mapping[str, Any]) -> Candidate:
        """Build the record that `to_report` turned into what is given."""
        divergence = math.inf if said["divergence"] is None else said["divergence"]
        others = (said[name] for name in ("factors", "scored_again", "is_even", "aim"))
        return cls(tuple(said["blocks"]), divergence, *others)


def best_of(candidates: Iterable[Candidate]) -> Candidate:
    """Return the candidate with the least divergence, of equal ones that with fewest blocks.

    Where some were timed, it is one of those: they cost what was asked for, as measured.
    """
    tried = list(candidates)
    timed = [e for e in tried if e.aim is not None and math.isfinite(e.divergence)]
    return min(timed or tried, key=lambda each: (each.divergence, len(each.blocks)))


@dataclass(frozen=True)
class Search:
    """A search for the best of several smaller networks.

    Attributes:
        of: How many blocks could go.
        candidates: What was tried, in order; the first is what is chosen without a search.
    """

    of: int
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """Return the candidate that was taken."""
        return best_of(self.candidates)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the blocks that were taken out."""
        return self.best.blocks

    def to_report(self) -> dict[str, Any]:
        """Return what the report's budget says of it, as numbers and texts alone."""
        tried, best = [each.to_report() for each in self.candidates], self.best.to_report()
        return {
            "blocks": list(self.blocks),
            "of": self.of,
            "divergence": best["divergence"],
            "candidates": tried,
        }

    @classmethod
    def from_report(cls, said: Mapping[str, Any]) -> Search:
        """Build the record that `to_report` turned into what is given."""
        return cls(said["of"], tuple(map(Candidate.from_report, said["candidates"])))


Found = ByClock | ByAccuracy


def to_report(found: Found | None) -> dict[str, Any]:
    """Return what the report's budget says of it, as numbers and texts alone."""
    match found:
        case ByClock(measured, asked, tries):
            return {"measured": {**asdict(measured), "asked": asked, "tries": tries}}
        case ByAccuracy():
            return {"accuracy_floor": asdict(found)}
        case None:
            return {}


def from_report(said: Mapping[str, Any]) -> Found | None:
    """Build the record that `to_report` turned into what is given; None where it had none."""
    if "measured" in said:
        times = dict(said["measured"])
        asked, tries = times.pop("asked"), times.pop("tries")
        return ByClock(Measured(**times), asked, tries)
    if "accuracy_floor" in said:
        search = dict(said["accuracy_floor"])
        trials = [Attempt(**trial) for trial in search.pop("trials")]
        return ByAccuracy(**search, trials=trials)
    return None
