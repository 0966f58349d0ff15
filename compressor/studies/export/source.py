"""Load a result's program as the files are to have it, with the user's samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.errors import CompressorError, UsageError
from compressor.files.folder import PLAN, REPORT
from compressor.files.format_table import FORMATS, ONNX, PROGRAM
from compressor.files.integrity import check_files
from compressor.graph.trace import trace, trace_of
from compressor.loading import load_model, load_program_file
from compressor.loading.data import (
    Binding,
    Data,
    Forward,
    Reading,
    batches,
    hold_out,
    load_data,
)
from compressor.loading.given import ResultFolder
from compressor.loading.onnx import OnnxNetwork
from compressor.loading.other_sizes import has_other_sizes
from compressor.loading.sniff import FileKind
from compressor.options import DataOptions, ExportOptions
from compressor.records import ExampleInputs, Trace
from compressor.run.samples import HELD_OUT
from compressor.slicing import as_module
from compressor.watch import Stopwatch

_OF_DATA = ("mean", "std", "sample_rate", "window", "metric", "tokenizer")
"""Options that say how samples are read and measured."""


@dataclass(frozen=True)
class Source:
    """What exported files are written from.

    Attributes:
        folder: The result's.
        traced: Its program, with the batch and the size that are asked for.
        train: The user's training samples, where there are some.
        test: The user's test samples, where they have what a metric needs.
        options: The options, completed by what the report knows of the data.
        origin: Where the network came from an ONNX file, what was read from the result's own.
    """

    folder: Path
    traced: Trace
    train: Data | None
    test: Data | None
    options: ExportOptions
    origin: OnnxNetwork | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of the network's inputs."""
        return tuple(map(str, self.traced.program.graph_signature.user_inputs))

    @property
    def batch(self) -> int | None:
        """Return the fixed number of samples in a call; None where the batch is free."""
        return self.traced.batch if self.traced.batch_symbol is None else None

    def feeds(self) -> Iterator[dict[str, Any]]:
        """Yield batches of training samples, for calibration, as arrays by the inputs' names."""
        assert self.train is not None
        size, options = self.batch or self.options.batch_size, self.options
        some = batches(
            self.train,
            size,
            seed=options.seed,
            limit=max(size, options.calibration),
            drop_last=True,
        )
        for inputs, _ in some:
            yield {n: x.numpy() for n, x in zip(self.inputs, inputs.leaves, strict=True)}


def open_source(result: ResultFolder, options: ExportOptions, stopwatch: Stopwatch) -> Source:
    """Open a result's folder: load its program, with the sizes that are asked for, and data.

    Raises:
        UsageError: It has no program, or the network or the file cannot take the sizes.
        CompressorError: A file of it was changed, or data cannot be read.
    """
    folder, name = result.path, FORMATS[PROGRAM].file
    if PROGRAM not in result.files:
        raise UsageError(
            f"this result has no {name}, from which files are written",
            where=str(folder),
            consequence="nothing was written",
            next_step=f"compress again with --format {ONNX},{PROGRAM}; the report may say why not",
        )
    check_files(folder, (name, PLAN))
    program = load_program_file(result.files[PROGRAM])
    traced = trace_of(program, as_module(program))
    if options.batch is not None or options.size is not None:
        traced = _resize(traced, options)
    options = _as_reported(folder, options, stopwatch)
    binding = Binding(Forward.of(traced.module), Call.of(traced.examples))
    train, test = (
        data.bind(binding) if data is not None else None
        for data in _samples(options, Reading.of(options, binding, Call.of(traced.examples)))
    )
    for data in filter(None, (train, test)):
        _check_sizes(data, traced)
    origin = _origin_of(result, stopwatch) if _came_from_onnx(folder) else None
    return Source(folder, traced, train, test, options, origin)


def _came_from_onnx(folder: Path) -> bool:
    """Return whether the network was read from an ONNX file when it was compressed."""
    try:
        told = json.loads((folder / REPORT).read_text(encoding="utf-8"))["model"]["recognised"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return str(told).startswith(FileKind.ONNX)


def _origin_of(result: ResultFolder, stopwatch: Stopwatch) -> OnnxNetwork | None:
    """Read the result's ONNX file, which has the names and types of the one that came in."""
    why = f"the result has no {FORMATS[ONNX].file}"
    if ONNX in result.files:
        try:
            module = load_model(str(result.files[ONNX])).module
        except CompressorError as error:
            why = error.what
        else:
            assert isinstance(module, OnnxNetwork)
            return module
    stopwatch.note(f"inputs and outputs have the program's names, not the first file's: {why}")
    return None


def _check_sizes(data: Data, traced: Trace) -> None:
    if has_other_sizes(data, traced):
        samples = [data.fetch([index]).inputs for index in data.extremes]
        given, wanted = (
            " to ".join(dict.fromkeys(map(_sizes, calls)))
            for calls in (samples, [Call.of(traced.examples)])
        )
        raise UsageError(
            f"the samples are of {given}, and the file takes {wanted}",
            where=data.name,
            consequence="nothing was written",
            next_step="give the data that the network was trained for, or --image-size",
        )


def _sizes(call: Call) -> str:
    return " and ".join("x".join(map(str, x.shape[1:])) for x in call.leaves if x.dim())


def _as_reported(folder: Path, options: ExportOptions, stopwatch: Stopwatch) -> ExportOptions:
    """Complete the options by what was said of the data when the network was compressed."""
    try:
        told = json.loads((folder / REPORT).read_text(encoding="utf-8"))["options"]
    except (OSError, ValueError, KeyError, TypeError):
        return options
    if not (options.data or options.test) or not isinstance(told, Mapping):
        return options
    known = {name: told.get(name) for name in _OF_DATA}
    known = {n: v for n, v in known.items() if v and not getattr(options, n)}
    if known:
        stopwatch.note(f"as when the network was compressed: {', '.join(known)}")
    same: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in known.items()}
    return replace(options, **same)


def _resize(traced: Trace, options: ExportOptions) -> Trace:
    """Trace the network anew, with example inputs of the batch and size that are asked for."""
    generator = torch.Generator().manual_seed(options.seed)
    images = 0

    def changed(leaf: Any) -> Any:
        nonlocal images
        if not isinstance(leaf, Tensor) or not leaf.dim():
            return leaf
        if options.batch is not None:
            leaf = leaf[:1].repeat(options.batch, *[1] * (leaf.dim() - 1))
        if options.size is not None and leaf.dim() == 4 and leaf.is_floating_point():
            images += 1
            shape = (*leaf.shape[:2], *options.size)
            leaf = torch.randn(shape, generator=generator, dtype=leaf.dtype)
        return leaf

    args, kwargs = pytree.tree_map(changed, (traced.examples.args, dict(traced.examples.kwargs)))
    if options.size is not None and not images:
        raise UsageError(
            "none of the network's inputs is a batch of images",
            where="--image-size",
            consequence="nothing was written",
            next_step="leave --image-size out",
        )
    examples = ExampleInputs(args, kwargs, "the options'")
    free = options.batch is None and traced.batch_symbol is not None
    try:
        return trace(traced.module, examples, free_batch=free)
    except CompressorError as error:
        raise UsageError(
            f"the network cannot take such inputs: {error.where or error}",
            where="--image-size" if options.size is not None else "--batch",
            consequence="nothing was written",
            next_step="sizes that were fixed when the network was traced cannot be changed; "
            "compress it again with --input of that size",
        ) from error


def _samples(options: DataOptions, reading: Reading) -> tuple[Data | None, Data | None]:
    """Load training and test data; without test data a tenth of the former is held out."""
    train, test = (
        load_data(specs, reading) if specs else None for specs in (options.data, options.test)
    )
    if train is not None and test is None:
        train, test = hold_out(train, HELD_OUT, options.seed)
    return train, test
