"""Choose and repair by one quantity: what least squares on the consumers cannot make up for."""

from compressor.least_squares.choice import reconstruction_scores
from compressor.least_squares.memory import Memory, Workspace
from compressor.least_squares.repair import Refit, refit
from compressor.least_squares.walk import Script

__all__ = ["Memory", "Refit", "Script", "Workspace", "reconstruction_scores", "refit"]
