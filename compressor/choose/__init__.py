"""Select the channels that each group keeps, from scores and a budget."""

from compressor.choose.candidates import LEAST_SHARE, least, prunable
from compressor.choose.choosing import FAR, Choice, Keep, Last, best, select
from compressor.choose.ranking import Clock
from compressor.choose.reasons import reason_of
from compressor.choose.refusals import DEFAULT_ROLES, OutOfReachError
from compressor.choose.scopes import SCOPES, Scores

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
