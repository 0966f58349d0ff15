"""What a run starts from: the model, its example inputs, the samples, losses and metrics."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.callables import resolve
from compressor.data import Data, check_labels, hold_out, load_data
from compressor.errors import CompressorError, UsageError
from compressor.files.integrity import check_files
from compressor.loading import (
    find_examples,
    like_sample,
    load_model,
    load_strictly,
    normalise_examples,
    read_weights,
    refuse_non_finite,
)
from compressor.options import ModelOptions, Options, ScoringOptions, TrainingOptions
from compressor.planning.criteria import CRITERIA
from compressor.records import ExampleInputs, LoadedModel
from compressor.recover import primary_output, top1
from compressor.score import needs_data, needs_loss

HELD_OUT = 0.1
RANDOM = "random weights"


@dataclass(frozen=True)
class Subject:
    """What is not plain data, and so not in `Options`; specs stand for themselves.

    `model` is a module or a MODEL spec; `data` and `test` are datasets, else `options` names them;
    `loss` and `metric` are callables of (outputs, target), else `options` names them.
    """

    model: nn.Module | str
    example_inputs: Any = None
    data: Any = None
    test: Any = None
    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True)
class Samples:
    """`train` calibrates and trains, `test` is only evaluated on; `evaluated_on` says in words
    what the metrics are from, or why there are none. `unlabelled` stands in for `test` where there
    are no labels to compare with; `validation` is what sizes (--max-drop) and epochs of training
    are compared on."""

    train: Data | None
    test: Data | None
    evaluated_on: str
    unlabelled: Data | None = None
    validation: Data | None = None


def open_model(model: nn.Module | str, options: ModelOptions) -> LoadedModel:
    """Load the model, with a hash of what it came from.

    Raises: what `load_model` raises; CompressorError for weights that are not finite.
    """
    if isinstance(model, nn.Module):
        refuse_non_finite(model)
        return LoadedModel(
            module=model,
            name=type(model).__name__,
            recognised=f"a module in Python, {type(model).__qualname__}",
            weights="given",
            sha256=tensors_sha256(model),
        )
    for file in (model, options.weights):
        if file is not None:
            check_files(Path(file).parent, (Path(file).name,))
    loaded = load_model(
        model,
        factory=options.factory,
        weights=options.weights,
        factory_args=options.factory_arg,
        pretrained=options.pretrained,
        trust_pickle=options.trust_pickle,
    )
    return replace(loaded, sha256=loaded.sha256 or tensors_sha256(loaded.module))


def tensors_sha256(module: nn.Module) -> str:
    """Hash of the names, types, shapes and values of parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    """The values in row-major order, of any type; a tensor of one element or none may count as
    contiguous and still have strides that a view by bytes refuses, so they are copied."""
    values = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    flat = torch.empty(values.numel(), dtype=values.dtype)
    flat.copy_(values.reshape(-1))
    return flat.view(torch.uint8).numpy().tobytes()


def open_inputs(
    loaded: LoadedModel, subject: Subject, options: ScoringOptions
) -> tuple[ExampleInputs, Samples]:
    """Example inputs and samples. Inputs that are known give a folder of images its size; where
    none are, the first sample is one."""
    if subject.example_inputs is not None:
        loaded = replace(loaded, examples=normalise_examples(subject.example_inputs))
    known = None
    if options.input or loaded.examples is not None:
        known = find_examples(loaded, options.input, None, options.seed)
    samples = open_samples(subject, options, _image_size(known))
    first = samples.train or samples.test
    if known is None and first is not None:
        loaded = replace(loaded, examples=like_sample(first.first_sample, options.seed))
    return known or find_examples(loaded, (), None, options.seed), samples


def open_samples(
    subject: Subject, options: ScoringOptions, input_size: tuple[int, int] | None
) -> Samples:
    """Training and test data; without test data a tenth of the training data is held out."""
    train = _open(subject.data, options.data, options, input_size)
    test = _open(subject.test, options.test, options, input_size)
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
    if isinstance(options, Options) and (options.max_drop is not None or options.trains):
        train, validation = _validation(train, subject, options, input_size)
    return _with_test(train, test, validation, subject, options)


def _validation(
    train: Data | None, subject: Subject, options: Options, input_size: tuple[int, int] | None
) -> tuple[Data | None, Data | None]:
    """Training data, and what sizes and epochs are compared on: what is given, or a tenth of the
    former. Without labels epochs are not compared."""
    validation = _open(None, options.validation, options, input_size)
    if validation is None and options.max_drop is None:
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
        asks = "--validation" if options.max_drop is None else "--max-drop"
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


def _open(
    given: Any, specs: tuple[str, ...], options: ScoringOptions, input_size: tuple[int, int] | None
) -> Data | None:
    if given is not None and specs:
        raise UsageError("data is given twice, as an object and by name", where="compress")
    if isinstance(given, Data):
        return given
    if given is not None:
        if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")) or not len(given):
            raise UsageError(
                f"{type(given).__name__} is no dataset with samples",
                where="data, test",
                next_step="give a dataset of (inputs, target), or the spec of one",
            )
        opened = Data(type(given).__name__, given, True, None)
        return replace(opened, labelled=opened.fetch([0]).target is not None)
    if not specs:
        return None
    mean, std = options.mean or None, options.std or None
    return load_data(specs, mean=mean, std=std, input_size=input_size)


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


def check_fit(module: nn.Module, samples: Samples, *, own_loss: bool, own_metric: bool) -> None:
    """Run one batch and compare the labels with the number of classes, before anything long.

    Raises:
        CompressorError: the samples do not fit the network, or labels lie out of range.
    """
    uses = [
        (samples.train, own_loss and own_metric),
        (samples.test, own_metric),
        (samples.unlabelled, True),
        (samples.validation, own_metric),
    ]
    for data, own_terms in uses:
        if data is None:
            continue
        batch = data.fetch(range(min(2, len(data))))
        try:
            with torch.no_grad():
                outputs = module(*batch.inputs)
        except Exception as error:  # whatever the model's code raises
            shapes = " and ".join(str(tuple(x.shape)) for x in batch.inputs if hasattr(x, "shape"))
            raise CompressorError(
                f"the samples do not fit the network: {' '.join(str(error).split())[:300]}",
                where=f"{data.name}, two samples: {shapes}",
                consequence="nothing was done",
                next_step="give the data that the network was trained for",
            ) from None
        if data.labelled and not own_terms:
            check_labels(data, primary_output(outputs).shape[1])


def metric_of(subject: Subject, options: ScoringOptions) -> tuple[str, Callable[[Any, Any], Any]]:
    """Name and callable of the metric."""
    if subject.metric is not None:
        return getattr(subject.metric, "__name__", "metric"), subject.metric
    return metric_named(options.metric)


def metric_named(spec: str | None) -> tuple[str, Callable[[Any, Any], Any]]:
    """The metric of a spec, or the default one."""
    return ("top1", top1) if spec is None else (spec.rpartition(":")[2], resolve(spec))


def earlier_weights(module: nn.Module, options: TrainingOptions) -> nn.Module:
    """A copy of the network with the weights of --rewind-to.

    Raises:
        CompressorError: They cannot be read, or are of another network.
    """
    assert options.rewind_to is not None
    earlier, path = copy.deepcopy(module), Path(options.rewind_to)
    load_strictly(earlier, read_weights(path, trust_pickle=options.trust_pickle), str(path))
    return earlier


def loss_of(subject: Subject, options: ScoringOptions) -> Callable[[Any, Any], Tensor] | None:
    """The user's loss, or None for the default."""
    return subject.loss or (resolve(options.loss) if options.loss else None)


def step_of(options: TrainingOptions) -> Callable[..., Tensor] | None:
    """The user's own training step, if there is one."""
    return resolve(options.train) if options.train else None


def check_device(device: str) -> None:
    """Raise UsageError where the device is not there."""
    try:
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError and others
        raise UsageError(
            f"the device {device!r} is not available: {str(error).strip().splitlines()[0]}",
            where="--device",
            consequence="nothing was done",
            next_step="--device cpu works everywhere",
        ) from None
