"""Choice and repair by one quantity: what least squares on the consumers cannot make up for."""

from compressor.reconstruction.choice import reconstruction_scores
from compressor.reconstruction.repair import Refit, refit

__all__ = ["Refit", "reconstruction_scores", "refit"]
