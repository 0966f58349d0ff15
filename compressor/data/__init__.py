"""Labelled or unlabelled samples from what people have: arrays, folders, datasets."""

from compressor.data.batching import Batches, batches, check_labels, hold_out
from compressor.data.dataset import Data
from compressor.data.sources import load_data

__all__ = ["Batches", "Data", "batches", "check_labels", "hold_out", "load_data"]
