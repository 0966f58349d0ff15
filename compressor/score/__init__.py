"""Score the channels of each group: one number per channel, high where the channel matters."""

from compressor.score.averages import Average
from compressor.score.criteria import CRITERIA
from compressor.score.criterion import Calibration, Criterion, Material, Rows, Scores
from compressor.score.gradients import saliency_gradients
from compressor.score.normalisations import NORMALISATIONS
from compressor.score.reductions import REDUCTIONS
from compressor.score.scoring import needs_data, needs_loss, score

__all__ = [
    "CRITERIA",
    "NORMALISATIONS",
    "REDUCTIONS",
    "Average",
    "Calibration",
    "Criterion",
    "Material",
    "Rows",
    "Scores",
    "needs_data",
    "needs_loss",
    "saliency_gradients",
    "score",
]
