"""List a sweep's trials: the grid that was asked for, and the controls beside it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from compressor import extras
from compressor.choose.budget import share_of, times_smaller
from compressor.errors import UsageError
from compressor.options import (
    AXES,
    PAPER_RATIOS,
    CriterionName,
    Options,
    Scope,
    SweepOptions,
    flag,
    recovery_of,
    schedule_of,
)
from compressor.score.criteria import resolve

DENSE, STRUCTURED, UNSTRUCTURED = "dense", "structured", "unstructured"
NOT_SMALLER = "zeros, not smaller"

CONTROLS: tuple[tuple[CriterionName, Scope], ...] = (("random", "global"), ("l2", "layer"))
"""The criterion and scope of the controls in every sweep: random channels, and the same share of
each layer by magnitude."""


@dataclass(frozen=True)
class Trial:
    """One network of a sweep: made smaller in one way, with one seed; or the dense original.

    Attributes:
        kind: `DENSE`, `STRUCTURED` or `UNSTRUCTURED`.
        options: How it is made.
        schedule, recovery: The grid's words for what the options say.
    """

    kind: str
    options: Options
    schedule: str = ""
    recovery: str = ""

    @property
    def method(self) -> str:
        """Return in words what is compared with other methods."""
        if self.kind == DENSE:
            return "dense original"
        if self.kind == UNSTRUCTURED:
            return f"unstructured ({NOT_SMALLER})"
        return f"{self.options.criterion}, {self.options.scope}"

    @property
    def is_control(self) -> bool:
        """Return whether the trial would be there without being asked for."""
        own = (self.options.criterion, self.options.scope)
        return self.kind == STRUCTURED and own in CONTROLS

    @property
    def words(self) -> str:
        """Return the trial's name in progress and failures."""
        if self.kind == DENSE:
            return self.method
        times = times_smaller(share_of(self.options))
        where = f"{times:.4g}×, {self.schedule}, {self.recovery}, seed {self.options.seed}"
        return f"{self.method}, {where}"


def complete(options: SweepOptions, *, has_data: bool) -> SweepOptions:
    """Return the options with the grid file's values, and defaults where nothing is said.

    Raises:
        UsageError: The file cannot be read, or says what cannot be meant.
    """
    if options.grid is not None:
        options = _with_file(options, Path(options.grid))
    recovery = "repair" if options.repair and has_data else "none"
    defaults: dict[str, Any] = {
        "ratios": PAPER_RATIOS,
        "criteria": ("reconstruction", "l2") if has_data else ("l2",),
        "scopes": ("global",),
        "schedules": ("one-shot",),
        "recoveries": (f"epochs={options.epochs}" if options.epochs else recovery,),
    }
    values = {name: getattr(options, name) or value for name, value in defaults.items()}
    values["criteria"] = tuple(resolve(name, has_data=has_data) for name in values["criteria"])
    return replace(options, **values)


def trials_of(options: SweepOptions) -> list[Trial]:
    """Return the trials of a complete grid: the dense original, then seed by seed all others.

    Raises:
        UsageError: Options cannot be meant together.
    """
    return list(dict.fromkeys(_trials(options)))


def dense_of(options: SweepOptions) -> Trial:
    """Return the control of every sweep: the network as it is."""
    return Trial(DENSE, _options(options, criterion="l2", repair=False, epochs=0))


def _trials(options: SweepOptions) -> Iterator[Trial]:
    yield dense_of(options)
    asked = [*product(options.criteria, options.scopes), *CONTROLS]
    seeds = range(options.seed, options.seed + options.seeds)
    settings = list(product(options.schedules, options.recoveries))
    for seed, ratio, (schedule, recovery) in product(seeds, options.ratios, settings):
        way = {"ratio": ratio, "seed": seed, **recovery_of(recovery, options.epochs)}
        for criterion, scope in asked:
            own = {"criterion": criterion, "scope": scope, **schedule_of(schedule)}
            yield Trial(STRUCTURED, _options(options, **way, **own), schedule, recovery)
        if options.reference:
            own = {"criterion": "l2", "layer_ratio": (), "sparsity_epochs": 0}
            chosen = _options(options, **{**way, **own})
            yield Trial(UNSTRUCTURED, chosen, schedule, recovery)


def _options(sweep: SweepOptions, **own: Any) -> Options:
    """Build one trial's options from the shared ones, without those that do not apply."""
    values = {**sweep.shared, **own}
    if not values["epochs"]:
        values |= {"step_epochs": 0, "sparsity_epochs": 0, "validation": ()}
    if values.get("steps", 1) == 1:
        values["step_epochs"] = 0
    if values.get("scope", "global") != "global":
        values["use"] = None
    if values.get("policy", "continue") != "rewind-weights":
        values["rewind_to"] = None
    return Options(**values)


def _with_file(options: SweepOptions, path: Path) -> SweepOptions:
    grid = _read(path)
    defaults = {name: SweepOptions.__dataclass_fields__[name].default for name in AXES}
    for name in grid:
        if name not in AXES:
            near = difflib.get_close_matches(str(name), AXES, n=1) or AXES
            raise _unusable(path, f"a grid has no {name!r}", f"nearest: {', '.join(near)}")
        if getattr(options, name) != defaults[name]:
            raise _unusable(path, f"{flag(name)} is given, too", "say it in one of the two places")
    lists = {n: _as_kind_of(defaults[n], value) for n, value in grid.items()}
    try:
        return replace(options, **lists)
    except UsageError as error:
        next_step = error.next_step or "the lists hold what the options of these names take"
        what = f"{error.where.removeprefix('--')}: {error.what}"
        raise _unusable(path, what, next_step) from None


def _read(path: Path) -> dict[str, Any]:
    yaml = extras.load("yaml", f"--grid {path}", "say the lists as options: --ratios 0.5,0.75")
    example = "for example: 'ratios: [0.5, 0.75]' and below it 'criteria: [l2, random]'"
    try:
        grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _unusable(path, f"the grid cannot be read: {reason}", example) from None
    except yaml.YAMLError as error:
        raise _unusable(path, f"this is no YAML: {' '.join(str(error).split())}", example) from None
    if not isinstance(grid, dict) or not grid:
        raise _unusable(path, "a grid is a mapping of names to lists", example)
    return grid


def _as_kind_of(default: Any, value: Any) -> Any:
    if not isinstance(default, tuple):
        return value
    return tuple(value) if isinstance(value, list) else (value,)


def _unusable(path: Path, what: str, next_step: str) -> UsageError:
    return UsageError(
        what, where=f"--grid {path}", consequence="nothing was loaded", next_step=next_step
    )
