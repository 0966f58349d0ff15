"""List what files `compress export` makes of a network's ONNX form, and what runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from compressor.agreement import FLOAT16, INT8, Tolerance
from compressor.agreement import ONNX as EXACT
from compressor.files.claimed import temporary_folder
from compressor.files.format_table import FORMATS, ONNX, OPENVINO
from compressor.formats import OnnxModule, write_half, write_int8
from compressor.formats.openvino_format import OpenVinoModule, convert, verify_openvino
from compressor.formats.provenance import provenance_of
from compressor.latency.networks import Timed, measure_turns
from compressor.options import ExportOptions
from compressor.run.format_timing import time_files
from compressor.studies.export.source import Source
from compressor.studies.export.survival import runs_here


@dataclass(frozen=True)
class Conversion:
    """A way to make a file from the ONNX file with 32 bits.

    Attributes:
        suffix: Ends the stem of the file's name.
        stage: What the progress display says meanwhile.
        tolerance: Beyond it the file computes something else than the network.
        is_asked: Returns whether the options ask for it.
        write: Writes it, from the source and the ONNX file with 32 bits, to a path.
    """

    suffix: str
    stage: str
    tolerance: Tolerance
    is_asked: Callable[[ExportOptions], bool]
    write: Callable[[Source, Path, Path], None]


@dataclass(frozen=True)
class Exported:
    """A format that `compress export` writes, and what runs its files.

    Attributes:
        conversions: The files that are made from the ONNX file with 32 bits.
        compared: Options of `compare_file` for these.
        module: Opens a file to be called as a module, with the names of the network's inputs.
        time: Times files against each other, and is called like `measure_turns`.
        survives: Returns whether the runtime calls a file without ending its process.
    """

    conversions: tuple[Conversion, ...]
    compared: Mapping[str, Any]
    module: Callable[[Path, tuple[str, ...]], nn.Module]
    time: Callable[..., dict[str, Timed]]
    survives: Callable[[Path], bool] = field(default=lambda path: True)


def _write_half(source: Source, whole: Path, target: Path) -> None:
    write_half(whole, target, provenance_of(source.folder))


def _write_int8(source: Source, whole: Path, target: Path) -> None:
    write_int8(whole, target, source.feeds(), provenance_of(source.folder))


def _to_openvino(source: Source, whole: Path, target: Path, *, half: bool = False) -> None:
    convert(whole, target, provenance_of(source.folder), half=half)


def _to_openvino_int8(source: Source, whole: Path, target: Path) -> None:
    """Write the 8 bits of the ONNX file, which OpenVINO reads."""
    with temporary_folder() as made:
        _write_int8(source, whole, made / whole.name)
        _to_openvino(source, made / whole.name, target)


def _is_half(options: ExportOptions) -> bool:
    return options.half


def _is_int8(options: ExportOptions) -> bool:
    return options.quantize == "int8"


_HALF = ("_fp16", "convert to 16 bits", FLOAT16, _is_half)
_INT8 = ("_int8", "quantise to 8 bits", INT8, _is_int8)

EXPORTED: Mapping[str, Exported] = {
    ONNX: Exported(
        (Conversion(*_HALF, _write_half), Conversion(*_INT8, _write_int8)),
        {"optimised": False},
        OnnxModule,
        measure_turns,
        runs_here,
    ),
    OPENVINO: Exported(
        (
            Conversion("", "convert to OpenVINO", EXACT, lambda options: True, _to_openvino),
            Conversion(*_HALF, partial(_to_openvino, half=True)),
            Conversion(*_INT8, _to_openvino_int8),
        ),
        {"verified": verify_openvino},
        OpenVinoModule,
        partial(time_files, OPENVINO, device="cpu"),
    ),
}
"""Formats by the word that --format takes."""


def names_of(options: ExportOptions) -> list[str]:
    """Return the names of the files that the options ask for, the one with 32 bits first."""
    smaller = [each for each in EXPORTED[options.format].conversions if each.suffix]
    asked = [each.suffix for each in smaller if each.is_asked(options)]
    whole = [] if asked and not options.special else [""]
    return [name_of(options, suffix) for suffix in (*whole, *asked)]


def name_of(options: ExportOptions, suffix: str = "", format: str | None = None) -> str:
    """Return the name of a file: the usual one, with what is special before its ending.

    Args:
        options: Say what is special, and the format.
        suffix: Of a conversion.
        format: Another format than that of the options.
    """
    usual = Path(FORMATS[format or options.format].file)
    return f"{usual.stem}{options.special}{suffix}{usual.suffix}"
