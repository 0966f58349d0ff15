"""Read samples out of what can only be iterated over, and out of a DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, IterableDataset, default_collate, default_convert

from compressor.errors import CompressorError, UsageError
from compressor.loading.data.collating import is_mapping

MOST_STREAMED = 4096
"""How many samples of a stream are read into memory."""


@dataclass(frozen=True)
class Collated:
    """A dataset whose samples are what a DataLoader makes of each of them alone."""

    dataset: Any
    collate: Callable[[list[Any]], Any]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        batch = self.collate([self.dataset[index]])
        return pytree.tree_map_only(Tensor, _only, _plain(batch))


def _only(tensor: Tensor) -> Tensor:
    if tensor.ndim and len(tensor) != 1:
        raise CompressorError(
            "the collate_fn makes a batch of one sample that has no dimension 0 of size 1",
            where=f"a tensor of shape {'x'.join(map(str, tensor.shape))}",
            next_step="give the dataset instead, with samples that lie side by side along "
            "dimension 0",
        )
    return tensor[0] if tensor.ndim else tensor


def _plain(batch: Any) -> Any:
    """Return dicts of any kind, which are no containers to PyTorch, as plain ones."""
    if not is_mapping(batch):
        return batch
    return {name: _plain(value) for name, value in dict(batch).items()}


def dataset_of(loader: Any, name: str) -> tuple[Any, list[str]]:
    """Return a DataLoader's dataset, whose samples are as its collate_fn makes them, and notes.

    Where the dataset makes the batches itself, they are taken apart; the first samples of one that
    can only be iterated over are read.

    Raises:
        CompressorError: It gives nothing.
    """
    assert isinstance(loader, DataLoader)
    if loader.batch_sampler is None:
        return read_some(_samples_of(loader), name)
    dataset: Any = loader.dataset
    notes = ["batches are made of its dataset, of --batch-size samples"]
    if isinstance(dataset, IterableDataset):
        dataset, notes = read_some(dataset, name)
    if loader.collate_fn not in (default_collate, default_convert):
        dataset = Collated(dataset, loader.collate_fn)
    return dataset, notes


def read_some(samples: Iterable[Any], name: str) -> tuple[list[Any], list[str]]:
    """Read the first samples of what can only be iterated over, and say how many.

    Raises:
        CompressorError: Iterating fails.
    """
    try:
        first = list(islice(samples, MOST_STREAMED))
    except CompressorError:
        raise
    except Exception as error:  # the user's code
        raise CompressorError(
            f"reading samples failed: {type(error).__name__}: {error}",
            where=name,
            next_step="iterating gives one sample after the other: (inputs, target), the inputs "
            "alone, or a dict",
        ) from error
    is_cut = len(first) == MOST_STREAMED
    which = f"its first {len(first):,} samples are" if is_cut else f"its {len(first):,} samples are"
    return first, [f"{name} can only be iterated over: {which} read into memory"]


def _samples_of(batches: Iterable[Any]) -> Iterator[Any]:
    """Take batches apart: every tensor along dimension 0."""
    for batch in batches:
        whole = _plain(batch)
        sizes = {len(x) for x in pytree.tree_leaves(whole) if isinstance(x, Tensor) and x.ndim}
        if len(sizes) != 1:
            raise UsageError(
                f"a batch's tensors have {sorted(sizes)} entries along dimension 0",
                where="a DataLoader with batch_size=None",
                next_step="give a dataset of samples",
            )
        for number in range(sizes.pop()):
            yield pytree.tree_map_only(Tensor, partial(_entry, number), whole)


def _entry(number: int, tensor: Tensor) -> Tensor:
    return tensor[number] if tensor.ndim else tensor
