"""Load models and example inputs from whatever people have, judged by content, not by extension.

Nothing here runs code out of a file unless the caller trusts it (`trust_pickle`). The package is
not called `load`, since that is a function of `compressor`.
"""

from compressor.loading.examples import find_examples, like_sample
from compressor.loading.finite import refuse_non_finite
from compressor.loading.inputs import normalise_examples, parse_inputs
from compressor.loading.model import load_model
from compressor.loading.programs import inspect_program, load_program_file
from compressor.loading.retrained import read_retrained
from compressor.loading.state_dicts import load_strictly
from compressor.loading.weight_files import read_safetensors, read_weights

__all__ = [
    "find_examples",
    "inspect_program",
    "like_sample",
    "load_model",
    "load_program_file",
    "load_strictly",
    "normalise_examples",
    "parse_inputs",
    "read_retrained",
    "read_safetensors",
    "read_weights",
    "refuse_non_finite",
]
