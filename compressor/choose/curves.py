"""Read and write what `compress sensitivity` measured: the loss of each group at each cut.

Beside the groups stand whole blocks, each with the loss without it alone.

`sensitivity.json` has schema 1. A loss is the fall of a metric that is better when higher, or the
rise of one that is better when lower; losses of different groups compare, since each is measured on
the whole network's output with that group alone cut.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.errors import CompressorError
from compressor.metrics import HIGHER, LOWER
from compressor.records import Group

SCHEMA = 1

Losses = dict[str, npt.NDArray[np.float64]]
"""Per group the loss when 1, 2, ... of its channels are dropped, [size] float64."""


@dataclass(frozen=True)
class Point:
    """One measurement of a group: the network's metric when only some of its channels are left.

    Attributes:
        ratio: The share of channels that was to be removed, between 0 and 1.
        kept: Number of channels that are left.
        value: The network's metric.
    """

    ratio: float
    kept: int
    value: float


@dataclass(frozen=True)
class Curve:
    """The measurements of one group; without points it could not be measured.

    Attributes:
        name: The group's name.
        layer: The layer that makes the channels.
        size: Number of channels.
        role: The group's role.
        exact: As in `Group`.
        macs_share: Share of the network's MACs that goes with all channels but one.
        points: The measurements.
    """

    name: str
    layer: str
    size: int
    role: str
    exact: bool
    macs_share: float
    points: tuple[Point, ...]


@dataclass(frozen=True)
class MissedBlock:
    """The measurement of one block: what the network is worth without it alone.

    Attributes:
        name: The block's name.
        place: The layer and source line of its addition.
        macs_share, params_share: Shares of the network's cost that go with it, between 0 and 1.
        value: The network's metric.
    """

    name: str
    place: str
    macs_share: float
    params_share: float
    value: float


@dataclass(frozen=True)
class Sensitivity:
    """A measurement of how sensitive a network is to losing parts of each group, or each block.

    Attributes:
        model: Name, what it was recognised as, its weights and their hash.
        metric: Name of what was measured.
        better: "higher" or "lower".
        baseline: The metric of the uncut network.
        measured_on: What it was measured on, in words.
        samples: Number of samples that it was measured on.
        criterion: Name of the criterion; channels with the lowest scores were dropped.
        ratios: Shares of each group that were tried, between 0 and 1.
        groups: The measurements by group, in the network's order.
        notes: Notes that were made while measuring.
        blocks: The measurements of whole blocks, in the order of execution.
    """

    model: Mapping[str, Any]
    metric: str
    better: str
    baseline: float
    measured_on: str
    samples: int
    criterion: str
    ratios: tuple[float, ...]
    groups: tuple[Curve, ...]
    notes: tuple[str, ...] = ()
    blocks: tuple[MissedBlock, ...] = ()

    def loss(self, value: float) -> float:
        """Return how much worse a metric is than the uncut network's; negative if better."""
        return self.baseline - value if self.better == HIGHER else value - self.baseline

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as plain data, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, text: str) -> Sensitivity:
        """Read a measurement from JSON text that was made from `to_dict`.

        Raises:
            ValueError, KeyError, TypeError: The text is anything else.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict) or "schema" not in raw:
            raise ValueError("it does not say its schema")
        if raw.pop("schema") != SCHEMA:
            raise ValueError(f"it is of another version; this one reads schema {SCHEMA}")
        if raw["better"] not in (HIGHER, LOWER) or not math.isfinite(raw["baseline"]):
            raise ValueError("its metric makes no sense")
        curves = tuple(map(_curve, raw["groups"]))
        blocks = tuple(MissedBlock(**block) for block in raw.get("blocks", ()))
        return cls(**{**raw, "groups": curves, "blocks": blocks, **_tuples(raw, "ratios", "notes")})


def _curve(raw: Mapping[str, Any]) -> Curve:
    points = tuple(Point(**point) for point in raw["points"])
    curve = Curve(**{**raw, "points": points})
    for point in points:
        if not (0 < point.kept <= curve.size and math.isfinite(point.value)):
            raise ValueError(f"a value of {curve.name} makes no sense: {point}")
    return curve


def _tuples(raw: Mapping[str, Any], *names: str) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(raw[name]) for name in names}


def read_sensitivity(path: str | Path) -> Sensitivity:
    """Read a sensitivity.json file.

    Raises:
        CompressorError: The file cannot be read, is cut off, of another version or something else.
    """
    try:
        return Sensitivity.from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"the sensitivities cannot be read: {error.strerror}"
    except json.JSONDecodeError as error:
        problem = f"this is no whole sensitivity.json, but cut off or something else: {error}"
    except KeyError as error:
        problem = f"this is no sensitivity.json: it lacks {error}"
    except (ValueError, TypeError, AttributeError) as error:
        problem = f"this is no sensitivity.json that can be used: {error}"
    raise CompressorError(
        problem,
        where=f"--use {path}",
        consequence="nothing was pruned",
        next_step="write it with compress sensitivity, or leave --use out",
    )


def losses_of(found: Sensitivity, groups: Iterable[Group], wanted: Iterable[Group]) -> Losses:
    """Compute each group's loss at every number of dropped channels.

    The loss is 0 at none, interpolated between what was measured, never falling, and infinite
    beyond the largest cut that was measured.

    Args:
        found: The measurement.
        groups: All groups of the network.
        wanted: Those that may be pruned.

    Raises:
        CompressorError: It was measured on another network, or not on all groups that are wanted.
    """
    curves = {curve.name: curve for curve in found.groups}
    _check_same_network(curves, {group.name: group for group in groups})
    missing = [group for group in wanted if group.name not in curves]
    if missing:
        raise CompressorError(
            f"the sensitivity of {len(missing)} groups was not measured: "
            + ", ".join(group.name for group in missing[:3]),
            where="--use",
            consequence="nothing was pruned",
            next_step="measure with the same --prune and --protect, or protect these groups",
        )
    return {group.name: _losses(found, curves[group.name]) for group in wanted}


def _losses(found: Sensitivity, curve: Curve) -> npt.NDArray[np.float64]:
    measured = sorted((curve.size - p.kept, found.loss(p.value)) for p in curve.points)
    dropped, values = zip((0, 0.0), *measured, strict=True)
    counts = np.arange(1, curve.size + 1)
    between = np.interp(counts, dropped, np.maximum.accumulate(values))
    return np.where(counts <= dropped[-1], between, np.inf)


def _check_same_network(curves: Mapping[str, Curve], groups: Mapping[str, Group]) -> None:
    for name, curve in curves.items():
        group = groups.get(name)
        if group is None or (group.size, group.role) != (curve.size, curve.role):
            has = f"{group.size} ({group.role})" if group else "no such group"
            raise CompressorError(
                "the sensitivities were measured on another network",
                where=f"--use, {name}: {curve.size} channels ({curve.role}) there, {has} here",
                consequence="nothing was pruned",
                next_step="measure this network with compress sensitivity",
            )
