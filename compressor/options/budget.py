"""Options of how much is removed of a network, and where."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from cyclopts import Parameter

from compressor.errors import UsageError
from compressor.options.checks import at_least, count_of, glob_and_share, refusal
from compressor.options.recovery import TrainingOptions
from compressor.options.spelling import (
    BUDGET,
    CHOICE,
    flag,
    named_in,
    option,
    repeated,
    switch,
)

DEFAULT_RATIO = 0.5

Quantity = Literal["macs", "params", "channels", "latency"]
Scope = Literal["global", "layer", "isomorphic"]


@dataclass(frozen=True)
class Limit:
    """At most `most` of a unit, as the option of that name says; latency in milliseconds."""

    option: str
    unit: Quantity
    most: float


LIMITS: Mapping[str, Quantity] = {
    "max_macs": "macs",
    "max_params": "params",
    "max_latency_ms": "latency",
}


_MAKING_STEPS = ("steps", "step_epochs", "sparsity_epochs")
"""Options of recovery after which channels are chosen."""


@Parameter(name="*")
@dataclass(frozen=True)
class BudgetOptions(TrainingOptions):
    """How much goes, and where; raises UsageError for a value that cannot be meant."""

    ratio: Annotated[float | None, option(BUDGET, "SHARE")] = None
    """Share to remove of the whole network's total, between 0 and 1; default 0.5, or what \
--layer-ratio removes where that is given."""

    max_macs: Annotated[str | None, option(BUDGET, "N")] = None
    """Instead of --ratio: at most so many multiply-adds for one sample, e.g. 2G or 350M."""

    max_params: Annotated[str | None, option(BUDGET, "N")] = None
    """Instead of --ratio: at most so many parameters, e.g. 5M."""

    max_latency_ms: Annotated[float | None, option(BUDGET, "MS")] = None
    """Instead of --ratio: at most so many milliseconds for one call."""

    max_drop: Annotated[float | None, option(BUDGET, "POINTS")] = None
    """Instead of --ratio: the smallest network, in what --of says, that loses at most so many \
points of accuracy (of perplexity, per cent) on --validation, with the recovery asked for."""

    of: Annotated[Quantity, option(BUDGET)] = "macs"
    """What the share is of: multiply-adds, parameters, channels, or the time of one call, which \
is measured (see --latency-on)."""

    plan: Annotated[str | None, option(BUDGET, "FILE")] = None
    """The plan.json of an earlier run: other weights of the same network are cut by it, and \
nothing is chosen."""

    scope: Annotated[Scope, option(BUDGET)] = "global"
    """Compare channels across the whole network, or take the same share of each layer, or of all \
layers of one shape."""

    layer_ratio: Annotated[tuple[str, ...], repeated(BUDGET, "GLOB=SHARE")] = ()
    """Share of its channels that each matching module loses, e.g. 'blocks.*=0.3'; 0 keeps all. \
The other modules make up --ratio. Repeatable; of several that match, the last one counts."""

    round_to: Annotated[int | Literal["auto"], option(BUDGET, "N")] = "auto"
    """Keep numbers of channels that are multiples of N. auto: of what kernels on this machine run \
well, which is measured once; 1: any number, so that the budget is met to within one channel."""

    use: Annotated[str | None, option(BUDGET, "FILE")] = None
    """The sensitivity.json of `compress sensitivity`: each layer is cut as far as it bears, so \
that --ratio is met at the smallest loss that any layer has on its own."""

    search: Annotated[int | Literal["auto"], option(BUDGET, "N")] = "auto"
    """Make so many smaller networks on a part of --calibration, and take the one whose outputs \
are nearest to the original's on other samples: with other blocks taken out, where those may go, \
and other shares of each layer. auto: 12 where blocks may go; 3 where channels are chosen by \
reconstruction and repaired: by the layers' errors as they are, by what the outputs have at \
stake, and the same share of each layer; none where one would take minutes. 0: none."""

    keep_class: Annotated[bool, switch(BUDGET)] = False
    """Prune only what your own class can follow as it is written (equal halves of a chunk, no \
layer replaced by its traced operators)."""

    uniform: Annotated[
        bool | None, Parameter(group=BUDGET, negative="--no-uniform", show_default=False)
    ] = None
    """Keep only widths that the configuration of a transformers model has numbers for, the same \
in all layers that share one, so that from_pretrained loads the result. Default: where the format \
hf is written."""

    keep_parametrisations: Annotated[bool, switch(BUDGET)] = False
    """Put weight norm and pruning masks back on the result, whose class must then follow as with \
--keep-class. Default: weights that are computed become plain ones."""

    best_effort: Annotated[bool, switch(BUDGET)] = False
    """Take what is reachable where the budget is not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_parametrisations:
            object.__setattr__(self, "keep_class", True)
        if self.plan is not None:
            _check_plan(self)
        if self.limit is not None:
            _check_alone(self)
            object.__setattr__(self, "of", self.limit.unit)
        elif (
            self.ratio is None
            and self.plan is None
            and self.max_drop is None
            and not (self.layer_ratios and self.use is None)
        ):
            object.__setattr__(self, "ratio", DEFAULT_RATIO)
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UsageError(
                f"the ratio is the share to remove, between 0 and 1, not {self.ratio:g}",
                where="--ratio",
                consequence="nothing was loaded",
                next_step="for half of the multiply-adds: --ratio 0.5",
            )
        if self.round_to != "auto":
            at_least(self, round_to=1)
        if self.search != "auto":
            at_least(self, search=0)
        if self.max_drop is not None:
            _check_drop(self)
        if self.use is not None and self.scope != "global":
            raise refusal("use", "the measured losses rank the layers, so --scope has no say")

    @property
    def scores(self) -> bool:
        """Return whether channels are scored: not where a plan is given."""
        return self.plan is None

    @property
    def limit(self) -> Limit | None:
        """Return what must not be exceeded; None where a ratio is given instead."""
        for name, unit in LIMITS.items():
            given = getattr(self, name)
            if given is not None:
                return Limit(name, unit, _most(name, given))
        return None

    @property
    def layer_ratios(self) -> tuple[tuple[str, float], ...]:
        """Return `layer_ratio` as pairs of a glob and the share that is removed there."""
        return tuple(map(glob_and_share, self.layer_ratio))


def _most(option: str, given: str | float) -> float:
    if isinstance(given, str):
        return count_of(option, given)
    if not 0 < given < math.inf:
        raise refusal(option, f"{given:g} is no time in milliseconds")
    return given


def _check_drop(options: BudgetOptions) -> None:
    assert options.max_drop is not None
    if not 0 < options.max_drop < 100:
        raise refusal("max_drop", f"{options.max_drop:g} is no number of points between 0 and 100")
    others = [n for n in ("ratio", *LIMITS) if getattr(options, n) is not None]
    if others:
        raise refusal("max_drop", f"give one of {flag(others[0])} and --max-drop, not both")


def _check_plan(options: BudgetOptions) -> None:
    """Refuse, beside a plan, options that choose channels: they would have no say."""
    deciding = {*named_in(type(options), BUDGET, CHOICE), *_MAKING_STEPS} - {"plan", "uniform"}
    for field in fields(options):
        if field.name in deciding and getattr(options, field.name) != field.default:
            raise refusal(field.name, "--plan has chosen already; give one of the two")


def _check_alone(options: BudgetOptions) -> None:
    given = [name for name in ("ratio", *LIMITS) if getattr(options, name) is not None]
    assert options.limit is not None
    if len(given) > 1:
        raise refusal(given[1], f"give one of {' and '.join(map(flag, given))}, not both")
    if options.of not in ("macs", options.limit.unit):
        raise refusal("of", f"{flag(options.limit.option)} is of the {options.limit.unit}")
