"""Evaluate a network, re-estimate its batch norms, fine-tune it: the class or the program alike."""

from compressor.recover.batch_norm import has_running_statistics, recalibrate_batch_norm
from compressor.recover.beginnings import reinitialise
from compressor.recover.distance import Distance
from compressor.recover.evaluation import (
    Batches,
    Metric,
    Progress,
    evaluate,
    primary_output,
    top1,
    top5,
    why_no_classes,
)
from compressor.recover.falling import Course
from compressor.recover.fidelity import BesideOriginal, Nearness, fidelity, measure_nearness
from compressor.recover.fine_tuning import Hooks, fine_tune
from compressor.recover.measures import COUNTS, Measure
from compressor.recover.objective import DISTILL, Loss, Objective, Step
from compressor.recover.recipe import (
    FIRST_LEARNING_RATES,
    LEARNING_RATES,
    OPTIMIZERS,
    Recipe,
    optimizer_for,
)
from compressor.recover.rehearsal import rehearse, settle_form
from compressor.recover.sparsity import GroupSparsity
from compressor.recover.tasks import USUAL, Task, cross_entropy, task_of, why_not
from compressor.recover.training_state import EpochResult, Schedule, TrainingState

__all__ = [
    "COUNTS",
    "DISTILL",
    "FIRST_LEARNING_RATES",
    "LEARNING_RATES",
    "OPTIMIZERS",
    "USUAL",
    "Batches",
    "BesideOriginal",
    "Course",
    "Distance",
    "EpochResult",
    "GroupSparsity",
    "Hooks",
    "Loss",
    "Measure",
    "Metric",
    "Nearness",
    "Objective",
    "Progress",
    "Recipe",
    "Schedule",
    "Step",
    "Task",
    "TrainingState",
    "cross_entropy",
    "evaluate",
    "fidelity",
    "fine_tune",
    "has_running_statistics",
    "measure_nearness",
    "optimizer_for",
    "primary_output",
    "recalibrate_batch_norm",
    "rehearse",
    "reinitialise",
    "settle_form",
    "task_of",
    "top1",
    "top5",
    "why_no_classes",
    "why_not",
]
