"""Write the files that are asked for, each compared with the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compressor.agreement import FLOAT16, INT8, Tolerance
from compressor.files.format_table import FORMATS, ONNX
from compressor.formats import ROUTES, Route, export_onnx, routes_of, write_half, write_int8
from compressor.formats.own_routes import finish_like_file, own_routes
from compressor.formats.provenance import provenance_of
from compressor.formats.verifying import compare_file, cut_to_one, real_inputs, write_and_verify
from compressor.options import ExportOptions
from compressor.records import ExampleInputs
from compressor.slicing import variants
from compressor.studies.export.source import Source
from compressor.watch import Stopwatch


@dataclass(frozen=True)
class Conversion:
    """A way to make a file with fewer bits from the one with 32 bits.

    Attributes:
        suffix: Ends the stem of the file's name.
        stage: What the progress display says meanwhile.
        tolerance: Beyond it the file computes something else than the network.
        is_asked: Returns whether the options ask for it.
        write: Writes it, from the source and the file with 32 bits, to a path.
    """

    suffix: str
    stage: str
    tolerance: Tolerance
    is_asked: Callable[[ExportOptions], bool]
    write: Callable[[Source, Path, Path], None]


CONVERSIONS = (
    Conversion(
        "_fp16",
        "convert to 16 bits",
        FLOAT16,
        lambda options: options.half,
        lambda source, whole, target: write_half(whole, target, provenance_of(source.folder)),
    ),
    Conversion(
        "_int8",
        "quantise to 8 bits",
        INT8,
        lambda options: options.quantize == "int8",
        lambda source, whole, target: write_int8(
            whole, target, source.feeds(), provenance_of(source.folder)
        ),
    ),
)


def names_of(options: ExportOptions) -> list[str]:
    """Return the names of the files that the options ask for, the one with 32 bits first."""
    asked = [conversion.suffix for conversion in CONVERSIONS if conversion.is_asked(options)]
    whole = [] if asked and not options.special else [""]
    return [_name_of(options, suffix) for suffix in (*whole, *asked)]


def _name_of(options: ExportOptions, suffix: str) -> str:
    """Return the name of a file: the usual one, with what is special before its ending."""
    usual = Path(FORMATS[ONNX].file)
    return f"{usual.stem}{options.special}{suffix}{usual.suffix}"


def write_files(
    source: Source, folder: Path, stopwatch: Stopwatch
) -> tuple[dict[str, Path], dict[str, float]]:
    """Write the files that the options ask for into a folder, and compare each with the network.

    The one with 32 bits is always made, since the others are made from it.

    Returns:
        The files, and the largest relative difference of each, by name.
    """
    options, traced = source.options, source.traced
    whole = folder / _name_of(options, "")
    with stopwatch.stage("export and verify"):
        difference, route = write_and_verify(
            *(traced.program, whole, traced, _routes_of(source)),
            real=real_inputs(source.train or source.test, traced),
            metadata=provenance_of(source.folder),
            opset=options.opset,
        )
    is_usual = route.exporter == ROUTES[0].exporter
    if not (route.is_own or (is_usual and (route.free_batch or not traced.batch_symbol))):
        stopwatch.note(f"{whole.name} is written by {route.words}")
    files, differences = {whole.name: whole}, {whole.name: difference}
    for conversion in CONVERSIONS:
        if conversion.is_asked(options):
            path = folder / _name_of(options, conversion.suffix)
            with stopwatch.stage(conversion.stage):
                conversion.write(source, whole, path)
                differences[path.name] = _difference(source, conversion, path, route)
            files[path.name] = path
    return files, differences


def _routes_of(source: Source) -> tuple[Route, ...]:
    """Return the routes to write the file with 32 bits.

    A network that came from an ONNX file keeps that file's graph, unless other sizes are asked for
    or its own floats are narrow and are to be converted; its names it keeps anyway.
    """
    options, origin = source.options, source.origin
    usual = routes_of(source.traced.batch_symbol, options.opset)
    is_resized = options.batch is not None or options.size is not None
    is_narrow = origin is not None and origin.source.narrow is not None
    is_converted = any(conversion.is_asked(options) for conversion in CONVERSIONS)
    own = () if is_resized or (is_narrow and is_converted) else own_routes(origin, options.opset)
    return (*own, *finish_like_file(usual, origin))


def _difference(source: Source, conversion: Conversion, path: Path, route: Route) -> float:
    """Compare a converted file with the network, on the user's samples where there are some."""
    traced, inputs = source.traced, _inputs(source)
    if traced.batch_symbol is not None and not route.free_batch:
        inputs = [cut_to_one(each) for each in inputs]

    def write(target: Path) -> None:
        whole, opset = target.with_name(f"whole{target.suffix}"), source.options.opset
        symbol = traced.batch_symbol
        export_onnx(traced.program, whole, batch_symbol=symbol, opset=opset, routes=(route,))
        conversion.write(source, whole, target)

    return compare_file(
        *(traced.program, inputs, path, write, conversion.tolerance),
        optimised=False,
    )


def _inputs(source: Source) -> list[ExampleInputs]:
    real = real_inputs(source.train or source.test, source.traced)
    if real is None:
        return variants(source.traced)
    others = real.map(lambda x: x.flip(0) if x.dim() else x)
    return [ExampleInputs(call.args, call.kwargs) for call in (real, others)]
