"""Hold a dataset with what is known of it, and read it a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Subset

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.loading.data.binding import Binding
from compressor.loading.data.collating import Stacked, UnequalShapesError, sample_of, side_by_side
from compressor.loading.data.lengths import Form, can_be_filled, fill, form_of
from compressor.padding import MASK
from compressor.recover.tasks import USUAL, Task

_LOOKED_AT = 32
"""How many samples tell whether all have one form."""

_MOST_LENGTHS = 10_000
"""How many samples the longest is looked for among."""


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
        notes: What the user should know of how they are read.
        task: What the network's outputs are for, which the targets belong to.
        is_ragged: Whether samples have different shapes, and batches have one shape each.
        is_filled: Whether samples of different lengths are filled up, since they have a mask.
    """

    name: str
    dataset: Dataset[Any]
    labelled: bool
    classes: int | None
    binding: Binding = field(default_factory=Binding)
    notes: tuple[str, ...] = ()
    task: Task = USUAL
    is_ragged: bool = False
    is_filled: bool = False
    _forms: dict[int, Form] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def first_sample(self) -> Call:
        """The network's inputs for the first sample, as a batch of one."""
        return self.fetch([0]).inputs

    @property
    def left_out(self) -> list[str]:
        """Names of what the first sample has and the network is not given."""
        return self.binding.left_out(self._first_inputs)

    @property
    def _first_inputs(self) -> Any:
        read = self._read([0])
        samples = self._split(read.batch) if isinstance(read, Stacked) else read[0]
        return samples[0]

    def bind(self, binding: Binding) -> Data:
        """Return the same data, of which the network takes what `binding` says.

        Some samples are looked at, which tell whether their lengths differ.
        """
        bound = replace(self, binding=binding, is_ragged=False, is_filled=False, _forms={})
        bound = replace(bound, labelled=self.labelled and bound.fetch([0]).target is not None)
        if isinstance(bound._read([0]), Stacked):
            return bound
        forms = {bound.form(index) for index in bound._look_at(_LOOKED_AT)}
        if len(forms) == 1 and bound._is_like_examples(*forms):
            return bound
        if bound._can_be_filled([*forms]):
            return replace(bound, is_filled=True)
        if MASK in binding.forward.known and not binding.makes_mask:
            filled = self.bind(replace(binding, makes_mask=True))
            if filled.is_filled:
                return filled
        return replace(bound, is_ragged=len(forms) > 1)

    def _look_at(self, most: int) -> Sequence[int]:
        """Return about so many indices whose samples tell what lengths there are.

        They are the shortest and the longest one, where the dataset knows the `lengths` of all.
        """
        dataset, numbers = self.base
        known = getattr(dataset, "lengths", None)
        if known is None:
            return _spread(len(self), most)
        own = known[numbers]
        return [int(own.argmin()), int(own.argmax())]

    @property
    def _traced_form(self) -> Form | None:
        """The shapes of a sample's inputs that the network is traced with, where they are known."""
        if self.binding.examples is None:
            return None
        leaves = self.binding.examples.leaves
        return form_of([x[0] if isinstance(x, Tensor) and x.dim() else x for x in leaves])

    def _is_like_examples(self, form: Form) -> bool:
        wanted = self._traced_form
        return wanted is None or form[: len(wanted)] == wanted

    def _can_be_filled(self, forms: Sequence[Form]) -> bool:
        """Return whether samples of these forms can be filled up, to the examples' where known."""
        call, target = self._sample(0)
        forward, wanted = self.binding.forward, self._traced_form
        if not can_be_filled(call, target, forms, forward):
            return False
        pair = () if wanted is None else (forms[0][: len(wanted)], wanted)
        return wanted is None or can_be_filled(call, None, pair, forward)

    @property
    def base(self) -> tuple[Any, np.ndarray[Any, Any]]:
        """The dataset that these samples were taken from, and their numbers in it."""
        dataset: Any = self.dataset
        numbers = np.arange(len(self))
        while isinstance(dataset, Subset):
            dataset, numbers = dataset.dataset, np.asarray(dataset.indices)[numbers]
        return dataset, numbers

    def form(self, index: int) -> Form:
        """Return the shapes of a sample, which is read for them once."""
        number, dataset = index, self.dataset
        while isinstance(dataset, Subset):
            number, dataset = dataset.indices[number], dataset.dataset
        if number not in self._forms:
            self._forms[number] = form_of(self._sample(index))
        return self._forms[number]

    def alike(self, count: int, index: int = 0) -> Sequence[int]:
        """Return the indices of so many samples that can lie side by side: the first ones.

        Where shapes differ, it is one sample several times, the one at `index`.
        """
        return [index] * count if self.is_ragged else range(count)

    @property
    def longest_sample(self) -> Call:
        """The inputs of the longest sample where all are filled up to it, else of the first."""
        if not self.is_filled:
            return self.first_sample
        some = self._look_at(_MOST_LENGTHS)
        longest = max(some, key=lambda index: sum(map(math.prod, self.form(index))))
        return self.fetch([longest]).inputs

    @property
    def extremes(self) -> list[int]:
        """The smallest and the largest of samples of different shapes; the first if all are one."""
        if not self.is_ragged:
            return [0]
        some = _spread(len(self), _LOOKED_AT)
        by_size = sorted(some, key=lambda index: sum(map(math.prod, self.form(index))))
        return [by_size[0], by_size[-1]]

    def _sample(self, index: int) -> tuple[Call, Any]:
        """Return the inputs and the target of one sample, as they are."""
        try:
            [(inputs, target)] = self._read([index])
            return self.binding(inputs), target
        except CompressorError:
            raise
        except Exception as error:  # the dataset is the user's code
            raise self._failure(error, [index]) from error

    def fetch(self, indices: Sequence[int] | Tensor) -> Batch:
        """Read these samples as one batch; a tensor of indices is for datasets on a device.

        Raises:
            CompressorError: The dataset fails, its samples have other forms or unequal shapes, or
                lack an input of the network.
        """
        try:
            samples = self._read(indices)
            if isinstance(samples, Stacked):
                inputs, target = self._split(samples.batch)
                return Batch(self.binding(inputs), target)
            pairs = [self._fill(self.binding(inputs), target) for inputs, target in samples]
            calls, targets = zip(*pairs, strict=True)
            return Batch(side_by_side(calls), side_by_side(targets))
        except CompressorError as error:
            error.where = error.where or self._place(indices)
            raise
        except UnequalShapesError as error:
            raise CompressorError(
                f"samples that are to lie side by side have different shapes: {error}",
                where=self._place(indices),
                next_step="pad or cut them to one shape inside the dataset: those looked at first "
                "had one shape",
            ) from error
        except Exception as error:  # the dataset is the user's code
            raise self._failure(error, indices) from error

    def _fill(self, call: Call, target: Any) -> tuple[Call, Any]:
        if not self.is_filled or self.binding.examples is None:
            return call, target
        fillers = getattr(self.base[0], "fillers", {})
        return fill(call, target, self.binding.examples, self.binding.forward, fillers)

    def _read(self, indices: Sequence[int] | Tensor) -> Any:
        """Read samples as pairs of inputs and target, or several that are stacked already."""
        many = getattr(self.dataset, "__getitems__", None)
        samples = many(_list(indices)) if many else [self.dataset[i] for i in indices]
        return samples if isinstance(samples, Stacked) else list(map(self._split, samples))

    def _split(self, sample: Any) -> tuple[Any, Any]:
        inputs, target = sample_of(sample, self.binding.takes)
        return inputs, self.task.complete(inputs, target)

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


def _spread(count: int, most: int) -> range:
    """Return about so many indices, evenly spread."""
    return range(0, count, max(1, count // most))


def _list(indices: Sequence[int] | Tensor) -> Any:
    return indices if isinstance(indices, Tensor) else list(indices)
