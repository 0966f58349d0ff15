"""A dataset with what is known of it, read a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.utils.data import Dataset, default_collate

from compressor.errors import CompressorError
from compressor.plain import widened


class Batch(NamedTuple):
    """Samples that already lie side by side: positional inputs, and targets if there are any."""

    inputs: tuple[Any, ...]
    target: Any


@dataclass(frozen=True)
class Data:
    """A dataset of (inputs, target), and what is known of it.

    `dataset[i]` is one sample: a float tensor C×H×W, normalised (for a callable's dataset,
    whatever that gives), and an integer class or None. `classes` is None where only the
    dataset itself knows. `widens`: inputs in half or double precision are given in float32, for a
    network that is computed in it.
    """

    name: str
    dataset: Dataset[Any]
    labelled: bool
    classes: int | None
    widens: bool = False

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def first_sample(self) -> tuple[Any, ...]:
        """The network's positional inputs for the first sample, as a batch of one."""
        return self.fetch([0]).inputs

    def fetch(self, indices: Sequence[int]) -> Batch:
        """These samples as one batch.

        Raises:
            CompressorError: the dataset fails, or its samples have other forms or unequal shapes.
        """
        try:
            many = getattr(self.dataset, "__getitems__", None)
            samples = many(list(indices)) if many else [self.dataset[i] for i in indices]
            batch = samples if isinstance(samples, Batch) else _collate(samples)
            return Batch(widened(batch.inputs), batch.target) if self.widens else batch
        except CompressorError:
            raise
        except Exception as error:  # the dataset is the user's code
            raise CompressorError(
                f"Reading samples failed: {type(error).__name__}: {error}",
                where=f"{self.name}, samples {indices[0]} to {indices[-1]}",
                next_step="Each sample must be (inputs, target), with inputs of one shape.",
            ) from error


def _collate(samples: Sequence[Any]) -> Batch:
    for sample in samples:
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise TypeError(f"a sample is a {type(sample).__name__}, not a pair (inputs, target)")
    inputs = default_collate([sample[0] for sample in samples])
    if isinstance(inputs, dict):
        raise TypeError("inputs are a dict; give a tensor or a tuple of positional inputs")
    targets = [sample[1] for sample in samples]
    target = None if targets[0] is None else default_collate(targets)
    return Batch(tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,), target)
