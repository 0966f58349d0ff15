"""A network as the analysis takes it, and the way back: weights that act stand in it as plain
parameters, and its numbers are float32."""

from compressor.plain.computed import Computed
from compressor.plain.making import Plain, made_plain, put_all_back, require_kept
from compressor.plain.number_types import (
    Types,
    give_back_types,
    name_of,
    named_types,
    narrowed,
    round_to,
    types_of,
    widened,
    work_in_float32,
)

__all__ = [
    "Computed",
    "Plain",
    "Types",
    "give_back_types",
    "made_plain",
    "name_of",
    "named_types",
    "narrowed",
    "put_all_back",
    "require_kept",
    "round_to",
    "types_of",
    "widened",
    "work_in_float32",
]
