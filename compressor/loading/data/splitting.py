"""Hold out a part of the samples, and check their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from compressor.errors import CompressorError, UsageError
from compressor.loading.data.dataset import Data
from compressor.recover.evaluation import IGNORED

_LOOKED_AT = 256  # samples of a dataset that does not say its labels


def hold_out(data: Data, fraction: float = 0.1, seed: int = 0) -> tuple[Data, Data]:
    """Split data at random into (rest, held): disjoint, complete, at least one sample in each.

    Args:
        data: Not changed.
        fraction: The share of the samples that is held out.
        seed: Seed of the choice.

    Raises:
        UsageError: The fraction is not between 0 and 1.
        CompressorError: There is only one sample.
    """
    if not 0 < fraction < 1:
        raise UsageError(
            f"the share to hold out must lie between 0 and 1, not {fraction}",
            next_step="give a share such as 0.1",
        )
    if len(data) < 2:
        raise CompressorError(
            "one sample cannot be split into training and test data",
            where=data.name,
            next_step="give more data, or separate test data",
        )
    order = np.random.default_rng(seed).permutation(len(data)).tolist()
    held = min(len(data) - 1, max(1, round(fraction * len(data))))
    order, held = _keep_sources_whole(data, order, held)
    return (
        replace(data, dataset=Subset(data.dataset, sorted(order[held:]))),
        replace(
            data,
            name=f"{data.name} (held out)",
            dataset=Subset(data.dataset, sorted(order[:held])),
        ),
    )


def _keep_sources_whole(data: Data, order: list[int], held: int) -> tuple[list[int], int]:
    """Move samples of one recording together, and the border to between two recordings.

    Its pieces are much alike: what is held out would not be new otherwise.
    """
    dataset, numbers = data.base
    sources = getattr(dataset, "sources", None)
    if sources is None:
        return order, held
    source = [sources[numbers[index]] for index in range(len(data))]
    ranks: dict[int, int] = {}
    for index in order:
        ranks.setdefault(source[index], len(ranks))
    order = sorted(order, key=lambda index: ranks[source[index]])
    borders = [i for i in range(1, len(order)) if source[order[i - 1]] != source[order[i]]]
    return order, min(borders, key=lambda border: abs(border - held), default=held)


def check_labels(data: Data, classes: int) -> None:
    """Check that labels are classes of a network that has this many: from 0 below `classes`.

    All labels of arrays and folders are looked at; of other datasets, 256 samples spread evenly.
    Labels that are no integers pass, and positions that are filled up.

    Raises:
        CompressorError: A label is out of range; it names the first such sample and its label.
    """
    if not data.labelled:
        return
    for labels, indices in _labels(data):
        if labels.is_floating_point() or labels.is_complex():
            return
        wrong = (((labels < 0) & (labels != IGNORED)) | (labels >= classes)).nonzero()
        if len(wrong):
            first = tuple(wrong[0].tolist())
            raise CompressorError(
                f"the label of sample {indices[first[0]]} is {int(labels[first])}, "
                f"but the network has {classes} classes (0 to {classes - 1})",
                where=data.name,
                next_step="give the data that the network was trained for, or repair its labels",
            )


def _labels(data: Data) -> Iterator[tuple[Tensor, Sequence[int]]]:
    """Yield labels, and the indices of the samples that they belong to."""
    dataset, numbers = data.base
    labels = getattr(dataset, "labels", None)
    if isinstance(labels, Tensor):
        yield labels[torch.from_numpy(numbers)], range(len(data))
        return
    indices = range(0, len(data), max(1, len(data) // _LOOKED_AT))
    for some in [[index] for index in indices] if data.is_ragged else [indices]:
        yield torch.as_tensor(data.fetch(some).target), some
