"""Evaluate a network, re-estimate its batch norms, fine-tune it: the class or the program alike."""

from compressor.recover.batch_norm import recalibrate_batch_norm
from compressor.recover.evaluation import Batches, Metric, Progress, evaluate, primary_output, top1
from compressor.recover.fine_tuning import EpochResult, Loss, distillation, fine_tune

__all__ = [
    "Batches",
    "EpochResult",
    "Loss",
    "Metric",
    "Progress",
    "distillation",
    "evaluate",
    "fine_tune",
    "primary_output",
    "recalibrate_batch_norm",
    "top1",
]
