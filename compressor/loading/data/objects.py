"""From an object that the user has ready to a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from compressor.errors import CompressorError, UsageError
from compressor.loading.data.collating import is_mapping
from compressor.loading.data.dataset import Data
from compressor.loading.data.loaders import dataset_of, read_some

MOST_SAMPLES = 2**31
"""Of a dataset, whose order is an array in memory."""


@dataclass(frozen=True)
class _Columns:
    """Arrays or lists by name, all of one length, as a dataset whose samples are dicts.

    In place of an array there may be a dict of arrays.
    """

    columns: Mapping[Any, Any]

    def __len__(self) -> int:
        return next(length for _, length in _lengths(self.columns))

    def __getitem__(self, index: int) -> dict[Any, Any]:
        return {
            name: _Columns(column)[index] if is_mapping(column) else column[index]
            for name, column in dict(self.columns).items()
        }


def _lengths(columns: Mapping[Any, Any]) -> Iterator[tuple[str, int]]:
    """Yield the name and length of each column; 0 of what has none."""
    for name, column in dict(columns).items():
        if is_mapping(column):
            yield from ((f"{name}.{inner}", length) for inner, length in _lengths(column))
        else:
            yield str(name), len(column) if is_dataset(column) else 0


def is_dataset(given: Any) -> bool:
    """Whether an object (not a class) has a length and samples by number."""
    has_samples = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    return has_samples and not isinstance(given, type | str | bytes | IterableDataset)


def _is_stream(given: Any) -> bool:
    is_iterable = isinstance(given, Iterable) and not isinstance(given, type | str | bytes)
    return is_iterable and not is_dataset(given)


def data_of(given: Any, name: str) -> Data:
    """Data of a dataset, a list of samples, a dict of columns, a stream of samples or a DataLoader.

    Args:
        given: What `is_dataset`, or what can be iterated over, of which the first samples are read;
            else it is refused.
        name: What reports call it, and errors say as the place.

    Raises:
        UsageError: it is no dataset.
        CompressorError: it is empty, or says that it has no end, or its columns are uneven.
    """
    notes: list[str] = []
    if isinstance(given, DataLoader):
        given, notes = dataset_of(given, name)
    elif _is_stream(given):
        given, notes = read_some(given, name)
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
    if is_mapping(given) and 0 not in given:
        lengths = dict(_lengths(given))
        if len(set(lengths.values())) > 1 or not all(lengths.values()):
            raise _refusal(
                "a dict of data holds arrays or lists of one length, and these are: "
                + ", ".join(f"{key} {length}" for key, length in lengths.items()),
                name,
                "give columns of one length, or a list of samples: list(samples.values()), or one "
                'of its parts: parts["train"]',
            )
        given = _Columns(given)
    return Data(name, given, True, None, notes=tuple(notes))


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
