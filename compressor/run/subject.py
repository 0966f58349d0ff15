"""Open what a run starts from: the model, its example inputs, the samples, losses and metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.choose.budget import is_found_by_trying
from compressor.errors import CompressorError, UsageError
from compressor.files.integrity import check_files
from compressor.graph.trace import copied_to_cpu
from compressor.loading import (
    FROM_CONFIGURATION,
    find_examples,
    like_sample,
    load_model,
    load_strictly,
    normalise_examples,
    read_weights,
    refuse_non_finite,
)
from compressor.loading.callables import function
from compressor.loading.data import (
    Binding,
    Data,
    Forward,
    check_labels,
    data_of,
    hold_out,
    load_data,
)
from compressor.loading.plain import Types, made_plain, name_of, types_of, work_in_float32
from compressor.modules import unwrapped
from compressor.options import ModelOptions, Options, ScoringOptions, TrainingOptions
from compressor.records import ExampleInputs, LoadedModel
from compressor.recover import primary_output, top1, why_no_classes
from compressor.score import needs_data, needs_loss
from compressor.score.criteria import CRITERIA

HELD_OUT = 0.1


@dataclass(frozen=True)
class Subject:
    """The objects that a run starts from; what is plain data is in `Options` instead.

    Attributes:
        model: A module, or a MODEL spec.
        example_inputs: As `compressor.compress` takes them.
        data: The training dataset; None if the options name it.
        test: The test dataset; None if the options name it.
        loss: Callable of (outputs, target); None if the options name it.
        metric: Callable of (outputs, target); None if the options name it.
    """

    model: nn.Module | str
    example_inputs: Any = None
    data: Any = None
    test: Any = None
    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True)
class Samples:
    """The samples of a run, by their use.

    Attributes:
        train: Calibrates and trains.
        test: Is only evaluated on.
        evaluated_on: In words, what the metrics are measured on, or why there are none.
        unlabelled: Stands in for `test` where there are no labels to compare with.
        validation: Sizes (--max-drop) and epochs of training are compared on it.
    """

    train: Data | None
    test: Data | None
    evaluated_on: str
    unlabelled: Data | None = None
    validation: Data | None = None

    @property
    def each(self) -> list[Data]:
        """Return all data that there are."""
        parts = (self.train, self.test, self.unlabelled, self.validation)
        return [data for data in parts if data is not None]

    def bound(self, binding: Binding) -> Samples:
        """Return the same samples, with the inputs that the network takes."""
        parts: dict[str, Any] = {
            name: data.bound(binding) if isinstance(data, Data) else data
            for name, data in vars(self).items()
        }
        return Samples(**parts)


def open_model(model: nn.Module | str, options: ModelOptions) -> LoadedModel:
    """Load the model in the form that is worked on: plain weights in float32, with a hash.

    A module that is given is not changed.

    Raises:
        UsageError: The options do not go together, or nothing is found under the spec.
        CompressorError: The model cannot be loaded, its weights are not finite, or are computed in
            an unknown way.
    """
    loaded = _as_it_came(model, options)
    plain = made_plain(loaded.module, copied_to_cpu)
    worked, types = plain.module, types_of(plain.module)
    if types:
        worked = copied_to_cpu(worked) if worked is loaded.module else worked
        work_in_float32(worked)
    stored = {n: t for n, t in loaded.stored.items() if n in worked.state_dict()}
    return replace(
        loaded,
        module=worked,
        given=loaded.module,
        types=types,
        stored=stored | types,
        notes=(*loaded.notes, *plain.notes, *_on_types(types, stored)),
        computed=plain.computed,
    )


def _on_types(types: Types, stored: Types) -> list[str]:
    where = "model.onnx and model.pt2 are in float32 (compress export --half writes another file)"
    if types:
        name = name_of(types)
        return [f"{name} is computed in float32 and given back in {name}; {where}"]
    if stored:
        name = name_of(stored)
        return [f"the weights were stored in {name}, and are again; {where}"]
    return []


def _as_it_came(model: nn.Module | str, options: ModelOptions) -> LoadedModel:
    if isinstance(model, nn.Module):
        inner, notes = unwrapped(model)
        refuse_non_finite(inner)
        return LoadedModel(
            module=inner,
            name=type(inner).__name__,
            recognised=f"a module in Python, {type(inner).__qualname__}",
            weights="given",
            sha256=tensors_sha256(inner),
            notes=notes,
        )
    for file in (model, options.weights):
        if file is not None:
            check_files(Path(file).parent, (Path(file).name,))
    loaded = load_model(
        model,
        factory=options.factory,
        factory_args=options.factory_arg,
        weights=options.weights,
        weights_key=options.weights_key,
        ignore_unexpected=options.ignore_unexpected,
        pretrained=options.pretrained,
        trust_pickle=options.trust_pickle,
    )
    return replace(loaded, sha256=loaded.sha256 or tensors_sha256(loaded.module))


def tensors_sha256(module: nn.Module) -> str:
    """Return a hash of the names, types, shapes and values of parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    """Return a tensor's values as bytes in row-major order, for any type."""
    values = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    # copied, since a tensor of one element or none may count as contiguous and still have strides
    # that a view by bytes refuses
    flat = torch.empty(values.numel(), dtype=values.dtype)
    flat.copy_(values.reshape(-1))
    return flat.view(torch.uint8).numpy().tobytes()


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
        known = find_examples(loaded, options.input, None, options.seed)
    is_given = known is not None and known.origin != FROM_CONFIGURATION
    binding = Binding(
        Forward.of(loaded.module),
        Call.of(known) if is_given else None,
        by_name=known is not None and bool(known.kwargs),
        widens=bool(loaded.types),
    )
    samples = open_samples(subject, options, _image_size(known), binding)
    first = samples.train or samples.test or samples.unlabelled
    if not is_given and first is not None:
        loaded = replace(loaded, examples=like_sample(first.first_sample, options.seed))
        known = None
    examples = known or find_examples(loaded, (), None, options.seed)
    return examples, samples.bound(replace(binding, examples=Call.of(examples)))


def open_samples(
    subject: Subject,
    options: ScoringOptions,
    input_size: tuple[int, int] | None,
    binding: Binding,
) -> Samples:
    """Open training and test data; without test data a tenth of the training data is held out.

    Args:
        subject: Datasets that are given as objects.
        options: Name the data otherwise.
        input_size: Height and width that images get, if known.
        binding: Says which of a sample's inputs the network takes.

    Raises:
        UsageError: Data or labels are missing that the options need.
    """
    opener = _Opener(options, input_size, binding)
    train = opener(subject.data, options.data)
    test = opener(subject.test, options.test)
    if train is None:
        _refuse_without_data(options)
    elif needs_loss(options.criterion, CRITERIA) and not (
        train.labelled or subject.loss or options.loss
    ):
        raise UsageError(
            f"the criterion {options.criterion} needs labels, or a loss that does without",
            where=train.name,
            consequence="nothing was done",
            next_step="give labelled --data, a --loss, or another --criterion",
        )
    validation = None
    if isinstance(options, Options) and (is_found_by_trying(options) or options.trains):
        train, validation = _validation(train, subject, options, opener)
    return _with_test(train, test, validation, subject, options)


def _validation(
    train: Data | None, subject: Subject, options: Options, opener: _Opener
) -> tuple[Data | None, Data | None]:
    """Return the training data, and what sizes and epochs are compared on.

    That is the data given for it, or a tenth that is taken off the training data. Without labels or
    a metric, epochs are not compared.
    """
    validation = opener(None, options.validation)
    if validation is None and not is_found_by_trying(options):
        assert train is not None
        has_metric = train.labelled or subject.metric or options.metric
        return hold_out(train, HELD_OUT, options.seed) if has_metric else (train, None)
    if validation is None:
        if train is None:
            raise UsageError(
                "--max-drop needs data to measure the drop on",
                where="--validation",
                consequence="nothing was done",
                next_step="give labelled --validation DATA, or --data TRAIN",
            )
        train, validation = hold_out(train, HELD_OUT, options.seed)
    if not validation.labelled and not (subject.metric or options.metric):
        asks = "--max-drop" if is_found_by_trying(options) else "--validation"
        raise UsageError(
            f"{asks} needs labels, or a metric that does without",
            where=validation.name,
            consequence="nothing was done",
            next_step="give labelled --validation DATA, or --metric",
        )
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
    if not test.labelled and not (subject.metric or options.metric):
        return Samples(train, None, "the data has no labels", test, validation)
    return Samples(train, test, evaluated_on, validation=validation)


@dataclass(frozen=True)
class _Opener:
    """A function that opens data from what the user gives: a dataset, or specs of one."""

    options: ScoringOptions
    input_size: tuple[int, int] | None
    binding: Binding

    def __call__(self, given: Any, specs: tuple[str, ...]) -> Data | None:
        if given is not None and specs:
            raise UsageError(
                "data is given twice, as an object and by name",
                where="compress",
                next_step="leave one of the two out",
            )
        if given is not None:
            return self._ready(given).bound(self.binding)
        if not specs:
            return None
        mean, std = self.options.mean or None, self.options.std or None
        opened = load_data(specs, mean=mean, std=std, input_size=self.input_size)
        return opened.bound(self.binding)

    def _ready(self, given: Any) -> Data:
        return given if isinstance(given, Data) else data_of(given, type(given).__name__)


def _refuse_without_data(options: ScoringOptions) -> None:
    needs = {
        "training (--epochs)": isinstance(options, Options) and options.trains,
        f"the criterion {options.criterion}": needs_data(options.criterion, CRITERIA),
    }
    for what, wanted in needs.items():
        if wanted:
            raise UsageError(
                f"{what} needs training data",
                where="--data",
                consequence="nothing was done",
                next_step="give --data TRAIN",
            )


def _image_size(examples: ExampleInputs | None) -> tuple[int, int] | None:
    tensors = pytree.tree_leaves((examples.args, dict(examples.kwargs))) if examples else []
    images = [leaf for leaf in tensors if isinstance(leaf, Tensor) and leaf.ndim == 4]
    return (int(images[0].shape[2]), int(images[0].shape[3])) if images else None


@dataclass(frozen=True)
class _Default:
    """A default loss or metric, which can only judge classes, with words for messages about it."""

    words: str
    option: str


_METRIC = _Default("top-1 accuracy, the default metric,", "--metric")
_LOSS = _Default("cross-entropy, the default loss,", "--loss")


def check_fit(
    module: nn.Module, samples: Samples, subject: Subject, options: ScoringOptions
) -> None:
    """Run one batch, and check that the default loss and metric, where used, can judge its outputs.

    This is done before anything long.

    Raises:
        CompressorError: The samples do not fit the network, or labels lie out of range.
        UsageError: The default loss or metric cannot judge such outputs or targets.
    """
    metric = None if subject.metric or options.metric else _METRIC
    loss = None if subject.loss or options.loss or not _uses_loss(options) else _LOSS
    uses = [
        (samples.test, metric),
        (samples.validation, metric),
        (samples.train, loss),
        (samples.unlabelled, None),
    ]
    for data, default in uses:
        if data is None:
            continue
        batch = data.fetch(range(min(2, len(data))))
        try:
            with torch.no_grad():
                outputs = batch.inputs.to(module)
        except Exception as error:  # whatever the model's code raises
            raise CompressorError(
                f"the samples do not fit the network: {' '.join(str(error).split())[:300]}",
                where=f"{data.name}, two samples: {batch.inputs.shapes}",
                consequence="nothing was done",
                next_step="give the data that the network was trained for",
            ) from None
        if data.labelled and default is not None:
            _check_classes(default, outputs, batch.target, data)
            check_labels(data, primary_output(outputs).shape[1])


def _uses_loss(options: ScoringOptions) -> bool:
    """Return whether anything needs the loss on labels."""
    trains = isinstance(options, Options) and options.trains and options.train is None
    return trains or needs_loss(options.criterion, CRITERIA)


def _check_classes(default: _Default, outputs: Any, target: Any, data: Data) -> None:
    why = why_no_classes(outputs, target)
    if why:
        raise UsageError(
            f"{default.words} cannot judge this: {why}",
            where=data.name,
            consequence="nothing was done",
            next_step=f"name your own, {default.option} own.py:function, called with (outputs, "
            "target); or give the data without targets",
        )


def metric_of(subject: Subject, options: ScoringOptions) -> tuple[str, Callable[[Any, Any], Any]]:
    """Return the name and the callable of the run's metric."""
    if subject.metric is not None:
        return getattr(subject.metric, "__name__", "metric"), subject.metric
    return metric_named(options.metric)


def metric_named(spec: str | None) -> tuple[str, Callable[[Any, Any], Any]]:
    """Return the name and the callable of the metric that a spec names, or of the default one."""
    return ("top1", top1) if spec is None else (spec.rpartition(":")[2], function(spec))


def earlier_weights(loaded: LoadedModel, options: TrainingOptions) -> nn.Module:
    """Return a copy of the network, as it is worked on, with the weights of --rewind-to.

    Raises:
        CompressorError: They cannot be read, or are of another network.
    """
    assert options.rewind_to is not None
    earlier, path = copied_to_cpu(loaded.given or loaded.module), Path(options.rewind_to)
    content = read_weights(path, trust_pickle=options.trust_pickle, option="--rewind-to")
    load_strictly(earlier, content, str(path))
    earlier = made_plain(earlier, copied_to_cpu).module.eval()
    work_in_float32(earlier)
    return earlier


def loss_of(subject: Subject, options: ScoringOptions) -> Callable[[Any, Any], Tensor] | None:
    """Return the user's loss, or None for the default."""
    return subject.loss or (function(options.loss) if options.loss else None)


def step_of(options: TrainingOptions) -> Callable[..., Tensor] | None:
    """Return the user's own training step, or None."""
    return function(options.train) if options.train else None


def check_device(device: str) -> None:
    """Check that a device is available.

    Raises:
        UsageError: It is not.
    """
    try:
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError and others
        raise UsageError(
            f"the device {device!r} is not available: {str(error).strip().splitlines()[0]}",
            where="--device",
            consequence="nothing was done",
            next_step="--device cpu works everywhere",
        ) from None
