"""What a user may choose: dataclasses for the command line and for Python, checked once.

Every field is plain data (numbers, texts), so that a report can repeat it.
"""

from compressor.options.bench import BenchOptions
from compressor.options.budget import DEFAULT_RATIO, LIMITS, Limit, Quantity, Scope
from compressor.options.checks import MOST
from compressor.options.compression import Options, Schedule, Target
from compressor.options.export import ExportOptions
from compressor.options.inspection import InspectOptions
from compressor.options.model_and_data import (
    CriterionName,
    DataOptions,
    ModelOptions,
    NormalisationName,
    ReductionName,
    ScoringOptions,
)
from compressor.options.recovery import TrainingOptions
from compressor.options.sensitivity import SensitivityOptions
from compressor.options.spelling import flag
from compressor.options.sweep import AXES, PAPER_RATIOS, SweepOptions, recovery_of, schedule_of

__all__ = [
    "AXES",
    "DEFAULT_RATIO",
    "LIMITS",
    "MOST",
    "PAPER_RATIOS",
    "BenchOptions",
    "CriterionName",
    "DataOptions",
    "ExportOptions",
    "InspectOptions",
    "Limit",
    "ModelOptions",
    "NormalisationName",
    "Options",
    "Quantity",
    "ReductionName",
    "Schedule",
    "Scope",
    "ScoringOptions",
    "SensitivityOptions",
    "SweepOptions",
    "Target",
    "TrainingOptions",
    "flag",
    "recovery_of",
    "schedule_of",
]
