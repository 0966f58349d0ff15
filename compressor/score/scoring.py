"""Turn a criterion's rows into scores: reduce over a group's parameters, make groups comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from compressor.errors import CompressorError, UsageError
from compressor.score.criteria import CRITERIA
from compressor.score.criterion import Criterion, Floats, Material, Scores
from compressor.score.normalisations import NORMALISATIONS
from compressor.score.reductions import REDUCTIONS
from compressor.score.routing import routed_energies

USUAL = "usual"
"""Stands for the normalisation that belongs to the criterion."""

FALLBACK = "l2"
"""The criterion that scores groups in which the chosen one measures nothing."""

Entry = TypeVar("Entry")


def score(
    material: Material,
    criterion: str,
    *,
    reduction: str = "mean",
    normalise: str = USUAL,
    criteria: Mapping[str, Criterion] = CRITERIA,
) -> Scores:
    """Score the channels of all groups by what a criterion finds in each of their parameters.

    Groups in which it measures nothing (no batch norm, no consumer whose input can be seen) are
    scored by their weights' L2 norm instead, and a note says so.

    Experts of a mixture, and their widths, are scored by what routers send through them, where the
    criterion is one of data.

    Args:
        material: The network, and what criteria can draw on.
        criterion: A key of `criteria`.
        reduction: A key of `REDUCTIONS`: how a group's parameters become one number per channel.
        normalise: A key of `NORMALISATIONS`: how groups become comparable; "usual" is the
            criterion's own.
        criteria: Criteria by name.

    Returns:
        Group name -> scores, [size] float64; high is important.

    Raises:
        UsageError: A name is unknown, the criterion needs data and got none, or it measures nothing
            anywhere in this network.
        CompressorError: The network fails on the data, or a score is not finite.
    """
    chosen = _entry(criteria, criterion, "criterion")
    reduce = _entry(REDUCTIONS, reduction, "reduction")
    own = chosen.normalise if normalise == USUAL else normalise
    comparable = _entry(NORMALISATIONS, own, "normalisation")
    if chosen.needs != "weights" and material.calibration is None:
        raise UsageError(
            f"the criterion {criterion} needs data",
            where="--criterion",
            consequence="nothing is scored",
            next_step="give --data, or choose a criterion of the weights such as l2",
        )
    network, groups = material.network, material.network.groups
    routed = routed_energies(material) if chosen.needs == "data" else {}
    others = tuple(group for group in groups if group.name not in routed)
    rest = replace(material, network=replace(network, groups=others))
    rows = {**chosen.rows(rest), **routed}
    blank = [group.name for group in groups if not rows.get(group.name)]
    if blank and len(blank) == len(groups):
        raise _measures_nothing(criterion, chosen, criteria)
    if blank:
        weighed = CRITERIA[FALLBACK].rows(material)
        rows = {**rows, **{name: weighed[name] for name in blank}}
        material.note(_fell_back(criterion, blank, len(groups)))
    scores = {name: comparable(reduce(np.stack(row))) for name, row in rows.items()}
    _check_finite(scores, criterion)
    return {group.name: scores[group.name] for group in groups}


def needs_data(criterion: str, criteria: Mapping[str, Criterion] = CRITERIA) -> bool:
    """Return whether the criterion is computed from data."""
    return criterion in criteria and criteria[criterion].needs != "weights"


def needs_loss(criterion: str, criteria: Mapping[str, Criterion] = CRITERIA) -> bool:
    """Return whether the criterion follows the loss, which needs labels or does without."""
    return criterion in criteria and criteria[criterion].needs == "labels"


def _check_finite(scores: Mapping[str, Floats], criterion: str) -> None:
    for name, found in scores.items():
        if not np.isfinite(found).all():
            raise CompressorError(
                f"the criterion {criterion} gives numbers that are not finite",
                where=f"the channels {name}",
                consequence="nothing can be ranked by them",
                next_step="check the data and the loss, or choose a criterion of the weights",
            )


def _entry(table: Mapping[str, Entry], name: str, kind: str) -> Entry:
    if name not in table:
        raise UsageError(
            f"there is no {kind} {name!r}",
            consequence="nothing is scored",
            next_step=f"choose one of {', '.join(table)}",
        )
    return table[name]


def _measures_nothing(
    name: str, criterion: Criterion, criteria: Mapping[str, Criterion]
) -> UsageError:
    others = [other for other, c in criteria.items() if c.needs == "weights" and other != name]
    return UsageError(
        f"the criterion {name} measures nothing in this network ({criterion.measures})",
        where="--criterion",
        consequence="nothing is scored",
        next_step=f"choose another, for example {' or '.join(others[:2])}",
    )


def _fell_back(criterion: str, blank: list[str], groups: int) -> str:
    some = ", ".join(blank[:3]) + (" …" if len(blank) > 3 else "")
    return (
        f"{criterion} measures nothing in {len(blank)} of {groups} groups ({some}): "
        f"they are scored by the {FALLBACK} norm of their weights"
    )
