"""Say what a ratio, a limit, a unit of cost and a schedule mean; only this file reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from compressor.choose.kinds import BLOCK
from compressor.choose.refusals import within_already
from compressor.graph.axes import Axis
from compressor.graph.network import Network
from compressor.options import Options, ScoringOptions

LATENCY = "latency"
UNITS: Mapping[str, str] = {
    "macs": "MACs",
    "params": "parameters",
    "channels": "channels",
    LATENCY: "latency",
}
"""Units of cost -> their names in a sentence. A latency is that of one call, in milliseconds."""

SHORT = 0.005
"""The share of a ratio that may be missing where the next step of widths removes far more."""

FAR = 0.02
"""The share of the whole network that a step of widths may remove beyond the budget."""


CANDIDATES = 12
"""How many smaller networks a search for blocks makes where the options do not say."""

MEASURES = 3
"""How many are made where blocks stay: by errors as they are, by errors weighed by what the
outputs have at stake, and with the same share off each layer."""


class Clock(Protocol):
    """What predicts how long the network takes, layer by layer.

    Attributes:
        layers: The network's layers, named like the program's nodes.
    """

    @property
    def layers(self) -> Sequence[Any]: ...

    def latency_ms(self, sizes: Mapping[Axis, int]) -> float:
        """Return the milliseconds of the whole network, with these sizes of axes."""

    def layers_of(self, axis: Axis) -> tuple[Any, ...]:
        """Return the layers whose time depends on the axis."""

    def layers_ms(self, layers: Sequence[Any], sizes: Mapping[Axis, int]) -> float:
        """Return the milliseconds of some layers, with these sizes of axes."""


# -- how much is to go -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """This share of the network's cost is to be removed, between 0 and 1."""

    ratio: float
    is_limit: ClassVar[bool] = False

    def left_of(self, before: float) -> float:
        """Return what may be left of a network that costs so much."""
        return before * (1 - self.ratio)

    def ratio_of(self, before: float) -> float:
        """Return the share to remove of a network that costs so much."""
        return self.ratio


@dataclass(frozen=True)
class AtMost:
    """This cost may be left.

    Attributes:
        most: The cost, in the budget's unit.
        is_limit: Whether it must never be exceeded; else it may be missed by `SHORT`.
    """

    most: float
    is_limit: bool = False

    def left_of(self, before: float) -> float:
        """Return what may be left of any network."""
        return self.most

    def ratio_of(self, before: float) -> float:
        """Return the share to remove of a network that costs so much."""
        return 1 - self.most / before


@dataclass(frozen=True)
class LayersAlone:
    """What the user's --layer-ratio say is to be removed, and nothing else."""

    is_limit: ClassVar[bool] = False


@dataclass(frozen=True)
class ByPlan:
    """The channels are those of an existing plan file."""

    file: str


@dataclass(frozen=True)
class WithinDrop:
    """As much is to be removed as the metric bears: it may fall by so many points (hundredths)."""

    points: float


Amount = Share | AtMost | LayersAlone
"""How much is to go, where one choice can meet it."""

Goal = Amount | ByPlan | WithinDrop
"""How much is to go, as the user says it."""


@dataclass(frozen=True)
class Budget:
    """How much is to go from a network, in which unit, and how closely that is met.

    Attributes:
        goal: How much is to be removed.
        unit: A key of `UNITS`.
        clock: Predicts latency in milliseconds; only for the unit "latency".
        best_effort: Take what is reachable where the goal is not.
        short: Where widths go in steps, the goal may be missed by this share of it, if what is
            removed is then closer to the goal.
        off_step: One unit may leave its step, where more than `FAR` too much would go otherwise.
    """

    goal: Amount
    unit: str = "macs"
    clock: Clock | None = None
    best_effort: bool = False
    short: float = 0.0
    off_step: bool = False

    def cost(self, network: Network, sizes: Mapping[Axis, int]) -> float:
        """Return what a network costs with these sizes of axes, without running anything."""
        return cost_of(network, self.unit, sizes, self.clock)


def budget_of(
    options: Options,
    goal: Amount,
    clock: Clock | None,
    *,
    best_effort: bool = False,
) -> Budget:
    """Return the budget that a goal makes with the user's options.

    Args:
        options: What was asked for.
        goal: How much is to go in this choice, which may be one of several steps.
        clock: Predicts latency, if anything does.
        best_effort: Take what is reachable, whatever the options say.
    """
    counted = not is_timed(options)
    return Budget(
        goal,
        options.of,
        clock=None if counted else clock,
        best_effort=best_effort or options.best_effort,
        short=SHORT if counted and not goal.is_limit else 0.0,
        off_step=counted and options.round_to == "auto",
    )


def cost_of(
    network: Network, unit: str, sizes: Mapping[Axis, int], clock: Clock | None = None
) -> float:
    """Return what a network costs with these sizes of axes, without running anything.

    Args:
        network: The analysed network.
        unit: A key of `UNITS`.
        sizes: Axis -> its size; other axes have theirs.
        clock: Predicts latency in milliseconds; needed for that unit alone.
    """
    if unit != LATENCY:
        return network.cost.of(unit, sizes)
    assert clock is not None
    return clock.latency_ms(sizes)


# -- what the options say --------------------------------------------------------------------------


def goal_of(options: Options, total: Callable[[str], float]) -> Goal:
    """Return how much is to be removed, as the options say.

    Args:
        options: What was asked for.
        total: Returns what the network costs in a unit.

    Raises:
        UsageError: The network is within the limit already.
    """
    if options.plan is not None:
        return ByPlan(options.plan)
    if options.max_drop is not None:
        return WithinDrop(options.max_drop)
    if options.limit is not None:
        limit, before = options.limit, total(options.limit.unit)
        if before <= limit.most:
            raise within_already(limit, before)
        return AtMost(limit.most, is_limit=True)
    return LayersAlone() if options.ratio is None else Share(options.ratio)


def is_timed(options: Options) -> bool:
    """Return whether the budget is one of latency."""
    return options.of == LATENCY


def is_found_by_trying(options: Options) -> bool:
    """Return whether networks of several sizes are made until one's accuracy is as asked for."""
    return options.max_drop is not None


def blocks_compete(options: Options) -> bool:
    """Return whether whole blocks may go beside channels.

    They do where that is asked for. By the clock they do without, since few thin layers take longer
    than fewer wide ones (docs/results/latency.md).
    """
    others = options.keep_class, options.keep_parametrisations, options.use, options.layer_ratio
    if options.search == 0 or any(others):
        return False
    return BLOCK in options.prune or is_timed(options)


def search_is_asked_for(options: Options) -> bool:
    """Return whether the options ask for a search, which else depends on what it takes."""
    return BLOCK in options.prune or options.search != "auto"


def candidates_of(options: Options) -> int:
    """Return how many smaller networks a search makes, as the options say; 0 for no search."""
    if options.use is not None or options.layer_ratio:
        return 0
    if options.search == "auto":
        if blocks_compete(options):
            return CANDIDATES
        compares = scores_are_errors(options) and options.repair and layers_compete(options)
        return MEASURES if compares else 0
    return options.search


def scores_are_errors(options: Options) -> bool:
    """Return whether channels are scored by errors, of which there are several measures."""
    return options.criterion == "reconstruction"


def layers_compete(options: Options) -> bool:
    """Return whether scores of one layer are weighed against another's, once.

    In steps each step scores anew, and within a layer there is nothing to weigh.
    """
    return options.steps == 1 and options.scope == "global"


def share_of(options: Options) -> float:
    """Return the share that the options ask to remove; 0 where they name none."""
    return options.ratio or 0.0


def weighed_unit(options: ScoringOptions) -> str | None:
    """Return the unit of cost that scores are divided by.

    Returns:
        A unit; "macs" where the options name none. None for latency: there the choice itself weighs
        channels by their milliseconds.
    """
    unit = options.of if isinstance(options, Options) else "macs"
    return None if unit == LATENCY else unit


def times_smaller(ratio: float) -> float:
    """Return how many times smaller a network becomes that loses a share of its cost."""
    return 1 / (1 - ratio)


# -- steps -----------------------------------------------------------------------------------------

SCHEDULES: Mapping[str, Callable[[float, float], float]] = {
    "one-shot": lambda t, left: left,
    "linear": lambda t, left: 1 - (1 - left) * t,
    "geometric": lambda t, left: left**t,
    "cubic": lambda t, left: left + (1 - left) * (1 - t) ** 3,
    "cosine": lambda t, left: 1 - (1 - left) * (1 - math.cos(math.pi * t)) / 2,
}
"""Name of a schedule -> a function of the part `t` of the steps done and the final share `left`,
to the share that is left after them, from 1 to `left`. Cubic: Zhu and Gupta 2017, To prune, or
not to prune, equation 1."""


def targets_of(options: Options, goal: Share | AtMost, total: float) -> list[AtMost]:
    """Return what may be left after each step, by the schedule of the options.

    Args:
        options: What was asked for.
        goal: How much is to be removed over all steps.
        total: What the original costs.
    """
    left, schedule = 1 - goal.ratio_of(total), SCHEDULES[options.schedule]
    shares = [schedule(number / options.steps, left) for number in range(1, options.steps)]
    costs = [*(total * share for share in shares if share > left), total * left]
    return [AtMost(cost, goal.is_limit) for cost in costs]
