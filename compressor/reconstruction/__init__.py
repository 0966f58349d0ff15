"""Choose and repair by one quantity: what least squares on the consumers cannot make up for."""

from compressor.reconstruction.choice import reconstruction_scores
from compressor.reconstruction.memory import Memory
from compressor.reconstruction.repair import Refit, refit
from compressor.reconstruction.walk import Script

__all__ = ["Memory", "Refit", "Script", "reconstruction_scores", "refit"]
