"""The format ONNX: tried, written and verified, run by ONNX Runtime, counted by its operators."""

from __future__ import annotations

from math import prod
from pathlib import Path

from compressor.errors import CompressorError
from compressor.files.format_table import FORMATS, ONNX
from compressor.formats.job import Counted, Job, Methods, Outcome
from compressor.formats.onnx_file import Route, export_onnx, routes_of, user_inputs
from compressor.formats.own_routes import finish_like_file, own_routes
from compressor.formats.session import call_once
from compressor.formats.verifying import write_and_verify
from compressor.latency.operators import operators_in, read_structure
from compressor.records import Trace


def _attempt(traced: Trace, folder: Path) -> Route:
    path, examples = folder / FORMATS[ONNX].file, traced.examples
    feeds = user_inputs(traced.program, examples.args, examples.kwargs)

    def check(route: Route) -> None:
        samples = None if route.free_batch or traced.batch_symbol is None else 1
        call_once(path, feeds, samples)

    symbol = traced.batch_symbol
    usual = finish_like_file(routes_of(symbol), traced.whole.module)
    routes = (*own_routes(traced.module), *usual)
    return export_onnx(traced.program, path, batch_symbol=symbol, routes=routes, check=check)


def _write(job: Job) -> Outcome:
    symbol = job.traced.batch_symbol
    routes = finish_like_file(routes_of(symbol), job.module, job.traced.whole.module)
    if job.first in routes:
        routes = routes[routes.index(job.first) :]
    else:
        routes = (*own_routes(job.module), *routes)
    worst, route = write_and_verify(
        *(job.program, job.folder / FORMATS[ONNX].file, job.traced, routes),
        real=job.real,
        metadata=job.metadata,
    )
    usual = routes_of(symbol)[0]
    words = [
        "its batch is fixed at one sample" if symbol is not None and not route.free_batch else "",
        f"written by {route.exporter}" if route.exporter != usual.exporter else "",
    ]
    if route.is_own:
        words = []
    elif job.first is not None and job.first.is_own:
        words += ["written anew, and not in the graph of the file that it came from"]
    return Outcome(worst, "; ".join(filter(None, words)))


def _count(path: Path) -> Counted:
    try:
        model = read_structure(path)
        operators = operators_in(model)
    except Exception as error:  # onnx raises protobuf's errors and its own
        raise CompressorError(
            f"the ONNX file cannot be read: {type(error).__name__}",
            where=str(path),
            consequence="nothing was timed",
            next_step="export it again",
        ) from error
    return Counted(
        sum(operator.macs for operator in operators),
        sum(prod(tensor.dims) for tensor in model.graph.initializer),
    )


METHODS = Methods(_attempt, _write, _count)
