"""Modules timed against each other by `compress bench`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import compressor
from compressor.cli import main
from compressor.files.claimed import temporary_folder
from compressor.files.format_table import FORMATS, ONNX, format_of
from compressor.formats import user_inputs, write_int8
from compressor.formats.job import methods_of
from compressor.formats.openvino_format import convert
from compressor.graph.trace import trace
from compressor.records import ExampleInputs

Way = dict[str, Any]
"""What `time_modules` returns of a way to run networks."""


def time_modules(
    modules: Mapping[str, nn.Module],
    example: Tensor,
    *,
    batches: Sequence[int] = (1,),
    seconds: float = 8.0,
    backends: Sequence[str] = (),
) -> list[Way]:
    """Time files of the modules, all taking turns, the first one twice.

    Args:
        modules: Name -> module; the first is what the others are compared with.
        example: What they take, [1, ...].
        batches: Numbers of samples in a call.
        seconds: How long each way is measured, all modules together.
        backends: What runs them, in one thread and in all; default ONNX Runtime in one thread.

    Returns:
        Per backend, number of threads and number of samples: these (`backend`, `threads`, `batch`),
        `first_ms` (the median call of the first), `noise` (by what share it differs from itself)
        and `share` (name -> time as a share of the first's). What could not be measured is left
        out.

    Raises:
        RuntimeError: A module cannot be exported or timed; the command's message says why.
    """
    with temporary_folder() as folder:
        files = {name: folder / f"{number}.pt2" for number, name in enumerate(modules)}
        for name, module in modules.items():
            compressor.save(module, example, files[name])
        how = ("--backend", ",".join(backends)) if backends else ("--threads", "1")
        return _bench(files, how, batches, seconds)


def time_smaller(module: nn.Module, smaller: nn.Module, example: Tensor) -> Way:
    """Time a smaller module against the original, in one thread of ONNX Runtime.

    Returns:
        `share` (its time as a share of the original's) and `noise`.
    """
    (timed,) = time_modules({"original": module, "smaller": smaller}, example)
    return {"share": timed["share"]["smaller"], "noise": timed["noise"]}


def time_in_8_bits(
    modules: Mapping[str, nn.Module],
    example: Tensor,
    samples: Sequence[Tensor],
    *,
    backends: Sequence[str],
    batches: Sequence[int] = (1,),
    seconds: float = 8.0,
) -> list[Way]:
    """Time the modules as `time_modules` does, their weights and activations in 8 bits.

    Args:
        modules, example, batches, seconds: As there.
        samples: Batches [n, ...] that the ranges of the activations are found on.
        backends: Formats that `compress export` writes in 8 bits, as their runtimes are called.
    """
    with temporary_folder() as folder:
        files = {
            name: _write_in_8_bits(module, example, samples, folder / str(number))
            for number, (name, module) in enumerate(modules.items())
        }
        found: list[Way] = []
        for backend in backends:
            if backend == "openvino":
                for file in files.values():
                    convert(file, file.with_suffix(".xml"))
            ending = Path(FORMATS[format_of(backend)].file).suffix
            chosen = {name: file.with_suffix(ending) for name, file in files.items()}
            found += _bench(chosen, ("--backend", backend), batches, seconds)
    return [{**way, "precision": "int8"} for way in found]


def _write_in_8_bits(
    module: nn.Module, example: Tensor, samples: Sequence[Tensor], folder: Path
) -> Path:
    """Write a module's ONNX file as `compress export --quantize int8` does; return its path."""
    folder.mkdir()
    traced = trace(module, ExampleInputs((example,)))
    methods_of(ONNX).attempt(traced, folder)
    whole, file = folder / FORMATS[ONNX].file, folder / "int8.onnx"
    given = (user_inputs(traced.program, (some,), {}) for some in samples)
    feeds = ({name: tensor.numpy() for name, tensor in each.items()} for each in given)
    write_int8(whole, file, feeds, {})
    return file


def _bench(
    files: Mapping[str, Path], how: Sequence[str], batches: Sequence[int], seconds: float
) -> list[Way]:
    """Run `compress bench` on files by name, and return the ways that it could measure."""
    with temporary_folder() as folder:
        asked = (*how, "--batch", ",".join(map(str, batches)))
        told = ("--seconds", str(seconds), "--out", str(folder / "times.json"))
        shown = StringIO()
        with redirect_stdout(shown):
            code = main(["bench", *map(str, files.values()), *asked, *told])
        if code:
            raise RuntimeError(f"compress bench ended with {code}: {shown.getvalue()[-300:]}")
        found = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    return [_way(list(files), way) for way in found["ways"] if way["records"]]


def _way(names: Sequence[str], way: Mapping[str, Any]) -> Way:
    first, *others = way["records"]
    return {
        **{name: way[name] for name in ("backend", "threads", "batch")},
        "first_ms": first["ms"]["p50"],
        "noise": abs(1 - first["faster"]["value"]),
        "share": {
            name: 1 / record["faster"]["value"]
            for name, record in zip(names[1:], others, strict=True)
        },
    }
