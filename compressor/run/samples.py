"""Open a run's samples and example inputs, which match one another, and share them out by use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from compressor.calls import Call
from compressor.choose.budget import is_found_by_trying
from compressor.errors import UsageError
from compressor.loading import find_examples, like_sample, normalise_examples
from compressor.loading.data import (
    Binding,
    Data,
    Forward,
    Language,
    Reading,
    data_of,
    hold_out,
    load_data,
)
from compressor.loading.examples import copy_to_try, try_inputs
from compressor.options import Options, ScoringOptions
from compressor.records import ExampleInputs, LoadedModel
from compressor.recover import task_of
from compressor.run.subject import Subject, measure_of
from compressor.score import needs_data, needs_loss

HELD_OUT = 0.1
"""The share of the training data that is held out where no other data is given."""


@dataclass(frozen=True)
class Samples:
    """The samples of a run, by their use.

    Attributes:
        train: Calibrates and trains.
        test: Is only evaluated on.
        evaluated_on: In words, what the metrics are measured on, or why there are none.
        validation: Sizes (--max-drop) and epochs of training are compared on it.
    """

    train: Data | None
    test: Data | None
    evaluated_on: str
    validation: Data | None = None

    @property
    def each(self) -> list[Data]:
        """Return all data that there are."""
        parts = (self.train, self.test, self.validation)
        return [data for data in parts if data is not None]

    def bind(self, binding: Binding) -> Samples:
        """Return the same samples, with the inputs that the network takes."""
        parts: dict[str, Any] = {
            name: data.bind(binding) if isinstance(data, Data) else data
            for name, data in vars(self).items()
        }
        return Samples(**parts)


def open_inputs(
    loaded: LoadedModel, subject: Subject, options: ScoringOptions
) -> tuple[ExampleInputs, Samples]:
    """Find the example inputs, and open samples whose inputs match them.

    Known inputs tell the size that images of a folder get; where nobody gave any, they are drawn
    like the first sample.
    """
    if subject.example_inputs is not None:
        loaded = replace(loaded, examples=normalise_examples(subject.example_inputs))
    known = None
    if options.input or loaded.examples is not None:
        known = find_examples(loaded, options.input, options.seed)
    is_given = known is not None and not known.has_free_sizes
    binding = Binding(
        Forward.of(loaded.module),
        Call.of(known) if is_given else None,
        by_name=known is not None and bool(known.kwargs),
        widens=bool(loaded.types),
    )
    like = None if known is None else Call.of(known)
    task = task_of(loaded.module)
    reading = replace(
        Reading.of(options, binding, like),
        language=Language.of(loaded.module, task, options),
        accepts=lambda call: _is_accepted(loaded, call),
        is_free=known is not None and known.has_free_sizes,
    )
    samples = open_samples(subject, options, reading)
    if not is_given and samples.each:
        longest = max((data.longest_sample for data in samples.each), key=_size)
        loaded = replace(loaded, examples=like_sample(longest, options.seed))
        known = None
    examples = known or find_examples(loaded, (), options.seed)
    return examples, samples.bind(replace(binding, examples=Call.of(examples)))


def open_samples(
    subject: Subject,
    options: ScoringOptions,
    reading: Reading,
) -> Samples:
    """Open training and test data; without test data a tenth of the training data is held out.

    Args:
        subject: Datasets that are given as objects.
        options: Name the data otherwise.
        reading: How files are read, and which of a sample's inputs the network takes.

    Raises:
        UsageError: Data or labels are missing that the options need.
    """
    opener = _Opener(reading)
    train = opener(subject.data, options.data)
    test = opener(subject.test, options.test)
    if train is None:
        _refuse_without_data(options)
    elif needs_loss(options.criterion) and not (train.labelled or subject.loss or options.loss):
        raise UsageError(
            f"the criterion {options.criterion} needs labels, or a loss that does without",
            where=train.name,
            consequence="nothing was done",
            next_step="give labelled --data, a --loss, or another --criterion",
        )
    validation = None
    if isinstance(options, Options) and (is_found_by_trying(options) or options.trains):
        train, validation = _validation(train, options, opener)
    return _with_test(train, test, validation, subject, options)


def _validation(
    train: Data | None, options: Options, opener: _Opener
) -> tuple[Data | None, Data | None]:
    """Return the training data, and what sizes and epochs are compared on.

    That is the data given for it, or a tenth that is taken off the training data.
    """
    validation = opener(None, options.validation)
    if validation is None:
        if train is None:
            raise UsageError(
                "--max-drop needs data to measure the drop on",
                where="--validation",
                consequence="nothing was done",
                next_step="give --validation DATA, or --data TRAIN",
            )
        train, validation = hold_out(train, HELD_OUT, options.seed)
    return train, validation


def _with_test(
    train: Data | None,
    test: Data | None,
    validation: Data | None,
    subject: Subject,
    options: ScoringOptions,
) -> Samples:
    if test is None and train is None:
        return Samples(None, None, "no data was given", validation=validation)
    if test is None:
        assert train is not None
        train, test = hold_out(train, HELD_OUT, options.seed)
        evaluated_on = f"a tenth of the training data, held out ({len(test)} samples)"
    else:
        evaluated_on = f"the test data ({len(test)} samples)"
    if measure_of(subject, options, test).is_beside_original:
        evaluated_on += ", against the original's outputs"
    return Samples(train, test, evaluated_on, validation=validation)


@dataclass(frozen=True)
class _Opener:
    """A function that opens data from what the user gives: a dataset, or specs of one."""

    reading: Reading

    def __call__(self, given: Any, specs: tuple[str, ...]) -> Data | None:
        if given is not None and specs:
            raise UsageError(
                "data is given twice, as an object and by name",
                where="compress",
                next_step="leave one of the two out",
            )
        if given is not None:
            return self._bound(self._ready(given))
        return self._bound(load_data(specs, self.reading)) if specs else None

    def _bound(self, data: Data) -> Data:
        task = self.reading.language.task if self.reading.language is not None else data.task
        return replace(data, task=task).bind(self.reading.binding)

    def _ready(self, given: Any) -> Data:
        return given if isinstance(given, Data) else data_of(given, type(given).__name__)


def _size(call: Call) -> int:
    return sum(leaf.numel() for leaf in call.leaves if isinstance(leaf, Tensor))


def _refuse_without_data(options: ScoringOptions) -> None:
    needs = {
        "training (--epochs)": isinstance(options, Options) and options.trains,
        f"the criterion {options.criterion}": needs_data(options.criterion),
    }
    for what, wanted in needs.items():
        if wanted:
            raise UsageError(
                f"{what} needs training data",
                where="--data",
                consequence="nothing was done",
                next_step="give --data TRAIN",
            )


def _is_accepted(loaded: LoadedModel, call: Call) -> bool:
    """Return whether the network can be run on a call, which is tried on a copy."""
    model = copy_to_try(loaded).eval()
    return try_inputs(model, ExampleInputs(call.args, call.kwargs)) is None
