"""Select the channels that each group keeps, from scores and a budget."""

from compressor.choose.budget import (
    FAR,
    LATENCY,
    UNITS,
    Amount,
    AtMost,
    Budget,
    ByPlan,
    Clock,
    Goal,
    LayersAlone,
    Share,
    WithinDrop,
    budget_of,
    goal_of,
)
from compressor.choose.explanations import reason_of
from compressor.choose.kinds import KINDS
from compressor.choose.refusals import OutOfReachError
from compressor.choose.scopes import SCOPES, Scores
from compressor.choose.selection import Choice, Keep, Last, Ranking, select
from compressor.choose.units import (
    LEAST_SHARE,
    Bounds,
    Unit,
    best,
    least,
    prunable,
    units_of,
)

__all__ = [
    "FAR",
    "KINDS",
    "LATENCY",
    "LEAST_SHARE",
    "SCOPES",
    "UNITS",
    "Amount",
    "AtMost",
    "Bounds",
    "Budget",
    "ByPlan",
    "Choice",
    "Clock",
    "Goal",
    "Keep",
    "Last",
    "LayersAlone",
    "OutOfReachError",
    "Ranking",
    "Scores",
    "Share",
    "Unit",
    "WithinDrop",
    "best",
    "budget_of",
    "goal_of",
    "least",
    "prunable",
    "reason_of",
    "select",
    "units_of",
]
