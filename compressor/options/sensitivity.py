"""Options of `compress sensitivity`."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from compressor.errors import UsageError
from compressor.options.checks import at_least
from compressor.options.model_and_data import ScoringOptions
from compressor.options.spelling import BUDGET, DATA, listed_numbers, option


@Parameter(name="*")
@dataclass(frozen=True)
class SensitivityOptions(ScoringOptions):
    """The choices of one measurement of sensitivity; raises UsageError for a value that cannot be
    meant."""

    ratios: Annotated[tuple[float, ...], listed_numbers(BUDGET, "SHARE,…")] = (
        0.1,
        0.3,
        0.5,
        0.7,
        0.9,
    )
    """Shares of its channels that each group loses, one after the other; default \
0.1,0.3,0.5,0.7,0.9."""

    samples: Annotated[int, option(DATA, "N")] = 256
    """Samples that each cut is measured on: of --test, else of a tenth of --data that is held \
out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, samples=1)
        if not self.ratios or any(not 0 < ratio < 1 for ratio in self.ratios):
            raise UsageError(
                "the ratios are shares between 0 and 1",
                where="--ratios",
                consequence="nothing was loaded",
                next_step="for example: --ratios 0.1,0.3,0.5,0.7,0.9",
            )
