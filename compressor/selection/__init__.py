"""Select the channels that each group keeps, from scores and a budget."""

from compressor.selection.candidates import LEAST_SHARE, least, prunable
from compressor.selection.choosing import FAR, Choice, Keep, Last, best, select
from compressor.selection.ranking import Clock
from compressor.selection.reasons import reason_of
from compressor.selection.refusals import DEFAULT_ROLES, OutOfReachError
from compressor.selection.scopes import SCOPES, Scores

__all__ = [
    "DEFAULT_ROLES",
    "FAR",
    "LEAST_SHARE",
    "SCOPES",
    "Choice",
    "Clock",
    "Keep",
    "Last",
    "OutOfReachError",
    "Scores",
    "best",
    "least",
    "prunable",
    "reason_of",
    "select",
]
