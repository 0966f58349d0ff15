"""Write the files that are asked for, each compared with the network."""

from __future__ import annotations

from pathlib import Path

from compressor.files.claimed import temporary_folder
from compressor.files.format_table import ONNX
from compressor.formats import ROUTES, Route, export_onnx, routes_of
from compressor.formats.own_routes import finish_like_file, own_routes
from compressor.formats.provenance import provenance_of
from compressor.formats.verifying import compare_file, cut_to_one, real_inputs, write_and_verify
from compressor.records import ExampleInputs
from compressor.slicing import variants
from compressor.studies.export.conversions import EXPORTED, Conversion, name_of
from compressor.studies.export.source import Source
from compressor.watch import Stopwatch


def write_files(
    source: Source, folder: Path, stopwatch: Stopwatch
) -> tuple[dict[str, Path], dict[str, float]]:
    """Write the files that the options ask for into a folder, and compare each with the network.

    The one with 32 bits is always made, since the others are compared with it.

    Returns:
        The files, and the largest relative difference of each, by name.
    """
    options, traced = source.options, source.traced
    files: dict[str, Path] = {}
    differences: dict[str, float] = {}
    with temporary_folder() as aside:
        is_onnx = options.format == ONNX
        whole = (folder if is_onnx else aside) / name_of(options, format=ONNX)
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
        if is_onnx:
            files[whole.name], differences[whole.name] = whole, difference
        for conversion in EXPORTED[options.format].conversions:
            if conversion.is_asked(options):
                path = folder / name_of(options, conversion.suffix)
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
    asked = (each for each in EXPORTED[options.format].conversions if each.is_asked(options))
    is_converted = any(asked)
    own = () if is_resized or (is_narrow and is_converted) else own_routes(origin, options.opset)
    return (*own, *finish_like_file(usual, origin))


def _difference(source: Source, conversion: Conversion, path: Path, route: Route) -> float:
    """Compare a converted file with the network, on the user's samples where there are some."""
    traced, inputs = source.traced, _inputs(source)
    if traced.batch_symbol is not None and not route.free_batch:
        inputs = [cut_to_one(each) for each in inputs]

    def write(target: Path) -> None:
        whole, opset = target.with_name("whole.onnx"), source.options.opset
        symbol = traced.batch_symbol
        export_onnx(traced.program, whole, batch_symbol=symbol, opset=opset, routes=(route,))
        conversion.write(source, whole, target)

    how = EXPORTED[source.options.format].compared
    return compare_file(traced.program, inputs, path, write, conversion.tolerance, **how)


def _inputs(source: Source) -> list[ExampleInputs]:
    real = real_inputs(source.train or source.test, source.traced)
    if real is None:
        return variants(source.traced)
    others = real.map(lambda x: x.flip(0) if x.dim() else x)
    return [ExampleInputs(call.args, call.kwargs) for call in (real, others)]
