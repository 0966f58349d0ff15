"""Options of `compress sweep`: those of one compression, and lists of some."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter

from compressor.errors import UsageError
from compressor.options.budget import Quantity, Scope
from compressor.options.checks import at_least, check_choice, check_kind, refusal
from compressor.options.compression import Options, Schedule
from compressor.options.model_and_data import CriterionName
from compressor.options.recovery import Policy
from compressor.options.spelling import BUDGET, GRID, RUN, flag, listed_numbers, option, texts

PAPER_RATIOS = (0.5, 0.75, 0.875, 0.9375, 0.96875)
"""2, 4, 8, 16 and 32 times smaller, as Blalock et al. 2020 ask for."""

AXES = ("ratios", "criteria", "scopes", "schedules", "recoveries", "seeds", "reference")
"""What a grid file may say."""

_NOT_HERE = Parameter(parse=False)
"""Of one compression; a sweep has a list in its place, or no use for it."""

RECOVERIES: Mapping[str, Mapping[str, Any]] = {
    "none": {"repair": False},
    "repair": {"repair": True},
    "epochs": {"policy": "continue"},
    "rewind-rate": {"policy": "rewind-rate"},
    "rewind-weights": {"policy": "rewind-weights"},
    "reinitialise": {"policy": "reinitialise"},
}
"""What a recovery's name stands for; the last four train."""

SCHEDULES: tuple[Schedule, ...] = ("one-shot", "linear", "geometric", "cubic", "cosine")


def _list(metavar: str) -> Parameter:
    return listed_numbers(GRID, metavar, texts)


@Parameter(name="*")
@dataclass(frozen=True)
class SweepOptions(Options):
    """The choices of a sweep; raises UsageError for a value that cannot be meant."""

    grid: Annotated[str | None, option(GRID, "FILE.yaml")] = None
    """A file that says some of the lists below, under their names: ratios, criteria, scopes, \
schedules, recoveries, seeds, reference."""

    ratios: Annotated[tuple[float, ...], listed_numbers(GRID, "SHARE,…")] = ()
    """Shares to remove; default 0.5,0.75,0.875,0.9375,0.96875: 2, 4, 8, 16 and 32 times smaller."""

    criteria: Annotated[tuple[CriterionName, ...], _list("NAME,…")] = ()
    """Criteria to compare (--list-criteria); default reconstruction and l2, without --data l2. \
Random channels, and l2 with the same share of each layer, are always compared with."""

    scopes: Annotated[tuple[Scope, ...], _list("SCOPE,…")] = ()
    """Scopes for each criterion: global, layer, isomorphic; default global."""

    schedules: Annotated[tuple[str, ...], _list("NAME=STEPS,…")] = ()
    """one-shot, or linear, geometric, cubic, cosine with a number of steps: cubic=3; default \
one-shot."""

    recoveries: Annotated[tuple[str, ...], _list("NAME=EPOCHS,…")] = ()
    """none, repair, epochs=5, or with a policy rewind-rate=5, rewind-weights=5, reinitialise=5 \
(from scratch: the control); default what --epochs and --no-repair say."""

    seeds: Annotated[int, option(GRID, "N")] = 3
    """How many seeds each is repeated with, from --seed on."""

    reference: Annotated[bool, Parameter(group=GRID, negative="--no-reference")] = True
    """Also zero single weights by magnitude, as a reference: zeros, not smaller."""

    jobs: Annotated[int, option(RUN, "N")] = 1
    """Trials at once, each in a process of its own; they share the processors."""

    ray: Annotated[str | None, option(RUN, "ADDRESS")] = None
    """Run trials on a Ray cluster, --jobs of them at once; local: start one here."""

    of: Annotated[Quantity, option(BUDGET)] = "params"
    """What the ratios are of: parameters (as in the paper), multiply-adds, channels, latency."""

    round_to: Annotated[int | Literal["auto"], option(BUDGET, "N")] = 1
    """Keep numbers of channels that are multiples of N; 1: ratios are met to within one channel, \
so that methods compare; auto: what kernels on this machine run well."""

    ratio: Annotated[float | None, _NOT_HERE] = None
    max_macs: Annotated[str | None, _NOT_HERE] = None
    max_params: Annotated[str | None, _NOT_HERE] = None
    max_latency_ms: Annotated[float | None, _NOT_HERE] = None
    max_drop: Annotated[float | None, _NOT_HERE] = None
    plan: Annotated[str | None, _NOT_HERE] = None
    on: Annotated[str | None, _NOT_HERE] = None
    on_python: Annotated[str | None, _NOT_HERE] = None
    criterion: Annotated[CriterionName, _NOT_HERE] = "auto"
    scope: Annotated[Scope, _NOT_HERE] = "global"
    steps: Annotated[int, _NOT_HERE] = 1
    schedule: Annotated[Schedule, _NOT_HERE] = "geometric"
    policy: Annotated[Policy, _NOT_HERE] = "continue"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            check_kind(name, getattr(self, name), hint)
        for field in fields(self):
            if field.name in _HIDDEN and getattr(self, field.name) != field.default:
                raise refusal(field.name, "a sweep has a list in its place, or no use for it")
        if any(not 0 < ratio < 1 for ratio in self.ratios):
            raise UsageError(
                "the ratios are shares to remove, between 0 and 1",
                where="--ratios",
                consequence="nothing was loaded",
                next_step="for 2 and 4 times smaller: --ratios 0.5,0.75",
            )
        at_least(self, seeds=1, jobs=1)
        for text in self.schedules:
            schedule_of(text)
        for text in self.recoveries:
            recovery_of(text, self.epochs)
        self._check_disturbed()

    def _check_disturbed(self) -> None:
        """Refuse options that time networks within a trial while other trials run beside it."""
        together = self.jobs > 1 or self.ray is not None
        for name, value in (("of", "latency"), ("round_to", "auto")):
            if together and getattr(self, name) == value:
                raise UsageError(
                    "it is timed within each trial, which others running at once disturb",
                    where=f"{flag(name)} {value}",
                    consequence="nothing was loaded",
                    next_step="leave --jobs and --ray out, or give a --latency-table and a number "
                    "to --round-to",
                )

    @property
    def shared(self) -> dict[str, Any]:
        """Return the options that all trials share, by name."""
        names = {field.name for field in fields(Options)} - set(_HIDDEN)
        return {name: getattr(self, name) for name in names}


_HIDDEN = (
    *("ratio", "max_macs", "max_params", "max_latency_ms", "max_drop", "plan"),
    *("criterion", "scope", "steps", "schedule", "policy"),
)


def schedule_of(text: str) -> dict[str, Any]:
    """Return the options, by name, that a schedule such as "cubic=3" stands for.

    Raises:
        UsageError: There is no such schedule, or its number of steps cannot be meant.
    """
    name, steps = _name_and_count(text, "schedules", "cubic=3")
    check_choice("schedules", name, SCHEDULES)
    if name == "one-shot":
        if steps not in (None, 1):
            raise refusal("schedules", f"{text}: one-shot has one step")
        return {"steps": 1}
    if steps is None or steps < 2:
        raise refusal("schedules", f"{text!r} lacks a number of steps from 2 on, e.g. {name}=3")
    return {"schedule": name, "steps": steps}


def recovery_of(text: str, epochs: int = 0) -> dict[str, Any]:
    """Return the options, by name, that a recovery such as "epochs=5" stands for.

    Args:
        text: The recovery, with its number of epochs after "=" where it says one.
        epochs: The number of epochs where it says none.

    Raises:
        UsageError: There is no such recovery, or its number of epochs cannot be meant.
    """
    name, given = _name_and_count(text, "recoveries", "epochs=5")
    check_choice("recoveries", name, tuple(RECOVERIES))
    recovery = RECOVERIES[name]
    if "policy" not in recovery:
        if given is not None:
            raise refusal("recoveries", f"{text}: {name} trains nothing")
        return {**recovery, "epochs": 0}
    count = epochs if given is None else given
    if count < 1:
        raise refusal("recoveries", f"{text!r} lacks a number of epochs, e.g. {name}=5")
    return {**recovery, "epochs": count}


def _name_and_count(text: str, option: str, example: str) -> tuple[str, int | None]:
    name, sign, count = text.partition("=")
    if not sign:
        return name, None
    if not count.isdecimal():
        raise refusal(option, f"{text!r} is no name with a whole number, such as {example}")
    return name, int(count)
