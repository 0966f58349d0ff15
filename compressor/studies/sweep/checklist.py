"""Answer what Blalock et al. 2020 (section 6, appendix B) ask of a comparison, for a sweep.

Each answer is computed from the sweep's numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.choose.budget import times_smaller
from compressor.listing import some_of
from compressor.metrics import scale_of
from compressor.options import PAPER_RATIOS
from compressor.score.criteria import CRITERIA
from compressor.studies.sweep.curves_of_trials import COSTS, MethodCurve
from compressor.studies.sweep.trials import STRUCTURED, UNSTRUCTURED

SUBSTANTIAL = 0.05
"""A metric has fallen substantially when this share of it is gone."""
_MANY_CLASSES = 5
_OF_MAGNITUDE = ("l1", "l2")
_NEAR = 0.1


@dataclass(frozen=True)
class Found:
    """What the answers are computed from: rows, curves, and the facts of results.json."""

    rows: Sequence[Mapping[str, Any]]
    curves: Sequence[MethodCurve]
    metrics: Sequence[str]
    facts: Mapping[str, Any]

    @property
    def own(self) -> list[MethodCurve]:
        return [curve for curve in self.curves if curve.kind == STRUCTURED]

    @property
    def good(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if not row["failure"]]


@dataclass(frozen=True)
class Item:
    """One recommendation of the checklist.

    Attributes:
        asks: What it asks for.
        fulfilled: Whether the sweep fulfils it; None where it does not apply.
        found: Why, in words.
    """

    asks: str
    fulfilled: bool | None
    found: str


Answer = tuple[bool | None, str]


def _operating_points(found: Found) -> Answer:
    wanted = [times_smaller(ratio) for ratio in PAPER_RATIOS]
    missing = [
        f"{times:g}×"
        for times in wanted
        if not all(any(abs(x / times - 1) <= _NEAR for x in _costs_of(c)) for c in found.own)
    ]
    if missing:
        return False, f"not within a tenth of {', '.join(missing)} for every method"
    return True, "every method at 2, 4, 8, 16 and 32 times smaller"


def _costs_of(curve: MethodCurve) -> list[float]:
    costs = (point.numbers.get("compression_ratio") for point in curve.points)
    return [cost.mean for cost in costs if cost is not None]


def _extremes(found: Found) -> Answer:
    metric = found.metrics[0]
    dense = found.facts["dense"]["metrics"][metric]
    intact = []
    for curve in found.own:
        values = [p.numbers[metric].mean for p in curve.points if metric in p.numbers]
        scale = scale_of(metric)
        worst = max((scale.lost(dense, value) for value in values), default=0.0)
        if worst <= (100 if scale.is_relative else 100 * abs(dense)) * SUBSTANTIAL:
            intact.append(f"{curve.method} ({curve.setting})")
    if intact:
        return (
            False,
            f"{metric} has hardly fallen for {some_of(dict.fromkeys(intact))}: add larger ratios",
        )
    return True, f"{metric} falls by more than {SUBSTANTIAL:.0%} somewhere on every curve"


def _both_costs(found: Found) -> Answer:
    lacking = [r["method"] for r in found.good if any(r[cost] is None for cost in COSTS[:2])]
    return not lacking, _or(lacking, "compression ratio and theoretical speed-up of every trial")


def _are_timed(found: Found) -> Answer:
    lacking = [row["method"] for row in found.good if row["measured_speedup"] is None]
    return not lacking, _or(lacking, "every network timed, taking turns with the dense original")


def _five(found: Found) -> Answer:
    if found.metrics[0] != "top1":
        return None, f"the metric is {found.metrics[0]}"
    has = "top5" in found.metrics
    return (True, "both") if has else (None, f"there are no more than {_MANY_CLASSES} classes")


def _control(found: Found) -> Answer:
    values = [f"{n} {v:.4g}" for n, v in found.facts["dense"]["metrics"].items()]
    return bool(values), f"the dense original, on the same data: {', '.join(values)}"


def _raw(found: Found) -> Answer:
    lacking = [r["method"] for r in found.good if any(r[m] is None for m in found.metrics)]
    return not lacking, _or(lacking, "each point's own value beside its difference")


def _seeds(found: Found) -> Answer:
    least = min((p.seeds for curve in found.own for p in curve.points), default=0)
    return least >= 3, f"{least} seeds at least behind each point"


def _trainings(found: Found) -> Answer:
    return False, "one set of trained weights: repeat the sweep for other trainings of the network"


def _bars(found: Found) -> Answer:
    lacking = [
        c.method for c in found.own if any(n.deviation is None for n in _values(c, found.metrics))
    ]
    return not lacking, _or(lacking, "mean ± sample standard deviation over seeds at every point")


def _values(curve: MethodCurve, metrics: Sequence[str]) -> list[Any]:
    return [p.numbers[m] for p in curve.points for m in metrics if m in p.numbers]


def _present(*pairs: tuple[tuple[str, ...], str]) -> Callable[[Found], Answer]:
    """Return a check that every setting has a whole curve of one of some criteria with a scope."""

    def answer(found: Found) -> Answer:
        settings = {curve.setting for curve in found.own}
        for criteria, scope in pairs:
            there = [
                curve
                for curve in found.own
                if curve.criterion in criteria and curve.scope == scope and _is_whole(curve)
            ]
            if {curve.setting for curve in there} == settings:
                return True, there[0].method
        wanted = " or ".join(f"{'/'.join(criteria)}, {scope}" for criteria, scope in pairs)
        return False, f"no whole curve of {wanted}"

    return answer


def _is_whole(curve: MethodCurve) -> bool:
    return all(point.seeds == point.asked for point in curve.points)


def _same_shares(found: Found) -> Answer:
    return False, "no control has the layers' shares of another method"


def _scratch(found: Found) -> Answer:
    there = [curve for curve in found.own if curve.recovery.startswith("reinitialise")]
    return bool(there), "the same widths trained from scratch" if there else (
        "add a recovery: reinitialise=EPOCHS"
    )


def _eras(found: Found) -> Answer:
    years = {
        curve.criterion: [int(y) for y in re.findall(r"\b(?:19|20)\d\d\b", _paper(curve))]
        for curve in found.own
        if not curve.control
    }
    old = [name for name, found_years in years.items() if any(y < 2010 for y in found_years)]
    new = [name for name, found_years in years.items() if any(y >= 2018 for y in found_years)]
    before, since = (some_of(dict.fromkeys(names)) or "none" for names in (old, new))
    words = f"before 2010: {before}; since 2018: {since}"
    return bool(old and new), words


def _paper(curve: MethodCurve) -> str:
    return CRITERIA[curve.criterion].paper if curve.criterion in CRITERIA else ""


def _reference(found: Found) -> Answer:
    there = [curve for curve in found.curves if curve.kind == UNSTRUCTURED]
    return bool(there), there[0].method if there else "it was left out (--no-reference)"


def _alike(found: Found) -> Answer:
    """Answer whether all methods of a setting have the same points and the same number of seeds."""
    for setting in {curve.setting for curve in found.own}:
        shapes = {
            tuple((point.ratio, point.seeds) for point in curve.points)
            for curve in found.own
            if curve.setting == setting
        }
        if len(shapes) > 1:
            return False, f"methods differ in their points ({setting}): some trials failed"
    return True, "same data, ratios, seeds, recovery and training for all methods of a plot"


def _pairs(found: Found) -> Answer:
    return False, f"one: {found.facts['model']['name']}; repeat the sweep for other networks"


def _repeatable(found: Found) -> Answer:
    lacking = [r["method"] for r in found.good if r["kind"] == STRUCTURED and not r["command"]]
    return not lacking, _or(lacking, "each trial's command with every option is in its row")


def _surroundings(found: Found) -> Answer:
    known = bool(found.facts["versions"]) and bool(found.facts["machine"].get("processor"))
    return known, f"{found.facts['machine'].get('processor') or 'no processor is known'}"


ITEMS: Sequence[tuple[str, Callable[[Found], Answer]]] = (
    ("At least five points, at compression ratios 2, 4, 8, 16, 32", _operating_points),
    ("Extreme ratios, at which the metric falls substantially", _extremes),
    ("Compression ratio and theoretical speed-up, both", _both_costs),
    ("Beyond the paper: measured latency", _are_timed),
    ("Top-1 and top-5 accuracy", _five),
    ("The same metrics of an unpruned control", _control),
    ("Raw values, not differences alone", _raw),
    ("Several runs with separate random seeds (three or more)", _seeds),
    ("Separate initialisations of the network", _trainings),
    ("Error bars: mean and sample standard deviation", _bars),
    ("A random baseline", _present((("random",), "global"))),
    ("A magnitude baseline, uniform over layers", _present((_OF_MAGNITUDE, "layer"))),
    ("A magnitude baseline, global", _present((_OF_MAGNITUDE, "global"))),
    ("Baselines with a method's own share of each layer", _same_shares),
    ("The pruned architecture trained from scratch", _scratch),
    ("Methods from before 2010 and recent ones", _eras),
    ("Beyond the paper: unstructured magnitude as a reference", _reference),
    ("All else equal between methods", _alike),
    ("At least three pairs of data set and architecture", _pairs),
    ("Everything needed to repeat it", _repeatable),
    ("Library and hardware", _surroundings),
)


def checklist(found: Found) -> list[Item]:
    """Answer all recommendations, in the paper's order more or less."""
    return [Item(asks, *answer(found)) for asks, answer in ITEMS]


def _or(lacking: Sequence[str], words: str) -> str:
    return f"lacking: {some_of(dict.fromkeys(lacking))}" if lacking else words
