"""Hold a dataset with what is known of it, and read it a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.loading.data.binding import Binding
from compressor.loading.data.collating import Stacked, UnequalShapesError, sample_of, side_by_side


class Batch(NamedTuple):
    """Samples side by side, as the network is called with them, and targets if there are any."""

    inputs: Call
    target: Any


@dataclass(frozen=True)
class Data:
    """A dataset, and what is known of it.

    Attributes:
        name: For messages.
        dataset: `dataset[i]` is one sample: a pair (inputs, target), the inputs alone, or a dict
            with the target under a name of `TARGETS`. Arrays and folders give a float tensor
            [channels, height, width], normalised, and an integer class or None.
        labelled: Whether samples have targets.
        classes: The number of classes; None where only the dataset itself knows.
        binding: Which of a sample's inputs the network takes.
    """

    name: str
    dataset: Dataset[Any]
    labelled: bool
    classes: int | None
    binding: Binding = field(default_factory=Binding)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def first_sample(self) -> Call:
        """The network's inputs for the first sample, as a batch of one."""
        return self.fetch([0]).inputs

    @property
    def left_out(self) -> list[str]:
        """Names of what the first sample has and the network is not given."""
        read = self._read([0])
        return [] if isinstance(read, Stacked) else self.binding.left_out(read[0][0])

    def bind(self, binding: Binding) -> Data:
        """Return the same data, of which the network takes what `binding` says."""
        found = replace(self, binding=binding)
        return replace(found, labelled=self.labelled and found.fetch([0]).target is not None)

    def fetch(self, indices: Sequence[int] | Tensor) -> Batch:
        """Read these samples as one batch; a tensor of indices is for datasets on a device.

        Raises:
            CompressorError: The dataset fails, its samples have other forms or unequal shapes, or
                lack an input of the network.
        """
        try:
            samples = self._read(indices)
            if isinstance(samples, Stacked):
                return Batch(self.binding((samples.inputs,)), samples.target)
            calls = [self.binding(inputs) for inputs, _ in samples]
            targets = [target for _, target in samples]
            return Batch(side_by_side(calls), side_by_side(targets))
        except CompressorError:
            raise
        except UnequalShapesError as error:
            raise CompressorError(
                f"samples that are to lie side by side have different shapes: {error}",
                where=self._place(indices),
                next_step="pad or cut them to one shape inside the dataset",
            ) from error
        except Exception as error:  # the dataset is the user's code
            raise self._failure(error, indices) from error

    def _read(self, indices: Sequence[int] | Tensor) -> Any:
        """Read samples as pairs of inputs and target, or several that are stacked already."""
        many = getattr(self.dataset, "__getitems__", None)
        samples = many(_list(indices)) if many else [self.dataset[i] for i in indices]
        if isinstance(samples, Stacked):
            return samples
        return [sample_of(sample, self.binding.takes) for sample in samples]

    def _place(self, indices: Sequence[int] | Tensor) -> str:
        if len(indices) == 1:
            return f"{self.name}, sample {indices[0]}"
        return f"{self.name}, samples {indices[0]} to {indices[-1]}"

    def _failure(self, error: Exception, indices: Sequence[int] | Tensor) -> CompressorError:
        return CompressorError(
            f"reading samples failed: {type(error).__name__}: {error}",
            where=self._place(indices),
            next_step="each sample must be (inputs, target), the inputs alone, or a dict",
        )


def _list(indices: Sequence[int] | Tensor) -> Any:
    return indices if isinstance(indices, Tensor) else list(indices)
