"""Read labelled or unlabelled samples from what people have: arrays, folders, datasets."""

from compressor.loading.data.batching import Batches, batches
from compressor.loading.data.binding import Binding, Forward
from compressor.loading.data.dataset import Data
from compressor.loading.data.language import Language
from compressor.loading.data.objects import data_of
from compressor.loading.data.reading import Reading
from compressor.loading.data.sources import load_data
from compressor.loading.data.splitting import check_labels, hold_out

__all__ = [
    "Batches",
    "Binding",
    "Data",
    "Forward",
    "Language",
    "Reading",
    "batches",
    "check_labels",
    "data_of",
    "hold_out",
    "load_data",
]
