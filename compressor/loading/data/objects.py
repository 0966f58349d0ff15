"""From an object that the user has ready to a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from compressor.errors import CompressorError, UsageError
from compressor.loading.data.dataset import Data

MOST_SAMPLES = 2**31
"""Of a dataset, whose order is an array in memory."""


@dataclass(frozen=True)
class _Columns:
    """Arrays or lists by name, all of one length, as a dataset whose samples are dicts."""

    columns: Mapping[Any, Any]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[Any, Any]:
        return {name: column[index] for name, column in self.columns.items()}


def is_dataset(given: Any) -> bool:
    """Whether an object (not a class) has a length and samples by number."""
    has_samples = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    return has_samples and not isinstance(given, type | str | bytes)


def data_of(given: Any, name: str) -> Data:
    """Data of a dataset, a list of samples, or a dict of columns.

    Args:
        given: What `is_dataset` or else is refused.
        name: What reports call it, and errors say as the place.

    Raises:
        UsageError: it is no dataset.
        CompressorError: it is empty, or says that it has no end, or its columns are uneven.
    """
    if isinstance(given, DataLoader):
        raise UsageError(
            "a DataLoader gives batches, and is no dataset",
            where=name,
            next_step="give its dataset: loader.dataset",
        )
    if not is_dataset(given):
        raise UsageError(
            f"a {type(given).__name__} is no dataset",
            where=name,
            next_step="a dataset has a length, and dataset[i] is one sample: (inputs, target), "
            "the inputs alone, or a dict",
        )
    _refuse_endless(given, name)
    if len(given) == 0:
        raise _refusal("the dataset is empty", name, "give data with at least one sample")
    if isinstance(given, Mapping) and 0 not in given:
        lengths = {key: len(v) if is_dataset(v) else 0 for key, v in given.items()}
        if len(set(lengths.values())) > 1 or not all(lengths.values()):
            raise _refusal(
                "a dict of data holds arrays or lists of one length, and these are: "
                + ", ".join(f"{key} {length}" for key, length in lengths.items()),
                name,
                "give columns of one length, or a list of samples",
            )
        given = _Columns(given)
    return Data(name, given, True, None)


def _refuse_endless(dataset: Any, name: str) -> None:
    """A length that stands for "as long as you like" cannot be shuffled or held out from."""
    try:
        count = len(dataset)
    except OverflowError:  # beyond what len() can say
        count = MOST_SAMPLES + 1
    except TypeError as error:  # a length that exists in name alone
        raise _refusal(f"the dataset has no length: {error}", name, "give it one") from error
    if count > MOST_SAMPLES:
        raise CompressorError(
            f"the dataset says that it has more than {MOST_SAMPLES:,} samples",
            where=name,
            consequence="they can be neither shuffled nor held out from",
            next_step="give it a length of some thousands; so many samples are enough",
        )


def _refusal(what: str, name: str, next_step: str) -> CompressorError:
    return CompressorError(what, where=name, next_step=next_step)
