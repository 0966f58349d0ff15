"""Choose and repair by one quantity: what least squares on the consumers cannot make up for."""

from compressor.least_squares.at_once import samples_that_fit, samples_to_compare
from compressor.least_squares.choice import price_of, reconstruction_scores
from compressor.least_squares.divergence import Divergence
from compressor.least_squares.head_bases import Turning, turn_heads, with_tensors
from compressor.least_squares.memory import USUAL_ROWS, Memory, RowCount, Workspace
from compressor.least_squares.pairs import Whole
from compressor.least_squares.recording import Recording
from compressor.least_squares.repair import Refit, refit
from compressor.least_squares.salience import stakes
from compressor.least_squares.walk import Script

__all__ = [
    "USUAL_ROWS",
    "Divergence",
    "Memory",
    "Recording",
    "Refit",
    "RowCount",
    "Script",
    "Turning",
    "Whole",
    "Workspace",
    "price_of",
    "reconstruction_scores",
    "refit",
    "samples_that_fit",
    "samples_to_compare",
    "stakes",
    "turn_heads",
    "with_tensors",
]
