"""Turn a network into the plain form that the analysis takes, and back.

In the plain form the weights that act are plain parameters, and all numbers are float32.
"""

from compressor.loading.plain.computed import Computed
from compressor.loading.plain.making import Plain, make_plain, put_all_back, require_kept
from compressor.loading.plain.number_types import (
    COMPUTED_IN,
    Types,
    give_back_types,
    name_of,
    narrow,
    round_to,
    types_named,
    types_of,
    waiting_in_float32,
    widen,
    work_in_float32,
)

__all__ = [
    "COMPUTED_IN",
    "Computed",
    "Plain",
    "Types",
    "give_back_types",
    "make_plain",
    "name_of",
    "narrow",
    "put_all_back",
    "require_kept",
    "round_to",
    "types_named",
    "types_of",
    "waiting_in_float32",
    "widen",
    "work_in_float32",
]
