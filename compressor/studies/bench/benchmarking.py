"""Run a whole benchmark: open networks, count them, time them in every way, look into layers."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from compressor.errors import CompressorError, UsageError
from compressor.files.claimed import temporary_folder
from compressor.files.folder import size_of
from compressor.files.format_table import TENSORRT, format_of
from compressor.formats.job import check_installed, methods_of
from compressor.hosts import HostError
from compressor.latency.on_host import reach
from compressor.options import BenchOptions
from compressor.report import versions
from compressor.runtimes.providers import check_provider
from compressor.runtimes.ways import Way
from compressor.studies.bench.entrants import Entrant, open_entrant
from compressor.studies.bench.places import Place, place_of
from compressor.studies.bench.slow_layers import fixed_cost, slow_layers
from compressor.torch_calls import check_cuda
from compressor.watch import Stopwatch, Watch

SCHEMA = 1


def benchmark(models: Sequence[str], options: BenchOptions, watch: Watch) -> dict[str, Any]:
    """Time networks against the first of them.

    Returns:
        "networks" (name, macs, params, size_bytes), "ways" (each with a record per network, or why
        it could not be measured), "layers" per network, "slow" and "fixed" per network but the
        first, machine, versions.

    Raises:
        UsageError, CompressorError: A network cannot be opened, or no way works.
    """
    stopwatch = Stopwatch(watch)
    if options.host is not None:
        reach(options.host, stopwatch)  # before anything long is done
    for backend in options.backend:
        check_installed(format_of(backend), f"--backend {backend}", is_written=False)
    if "onnxruntime" in options.backend:
        check_provider(options.device, "--device")
    if TENSORRT in options.backend:
        check_provider(TENSORRT, "--backend", "onnxruntime")
    if options.device != "cpu" and any(b.startswith("torch") for b in options.backend):
        check_cuda("--device")
    with temporary_folder() as folder:
        entrants = []
        for number, model in enumerate(models):
            with stopwatch.stage(f"open {model}"):
                made = folder / str(number)
                entrants.append(open_entrant(model, made, options, options.backend))
        refusals = _refusals(entrants, options.backend, stopwatch)
        with stopwatch.stage("count"):
            networks = [_count(entrant) for entrant in entrants]
        ways = []
        with place_of(entrants, options) as place:
            for way in place.ways(options):
                if way.backend in refusals:
                    ways.append(_failed(way, refusals[way.backend]))
                else:
                    ways.append(_time(place, networks, way, options.seconds, stopwatch))
            _require_one(ways)
            with stopwatch.stage("look into layers"):
                layers = place.profiles()
    return {
        "schema": SCHEMA,
        "networks": networks,
        "ways": ways,
        "layers": [[asdict(operator) for operator in each] for each in layers],
        "slow": [[asdict(s) for s in slow_layers(layers[0], each)] for each in layers[1:]],
        "fixed": [asdict(fixed_cost(layers[0], each)) for each in layers[1:]],
        **place.described(),
        "versions": versions(),
        "date": datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        "seconds": stopwatch.seconds,
    }


def _refusals(
    entrants: Sequence[Entrant], backends: Sequence[str], stopwatch: Stopwatch
) -> dict[str, CompressorError]:
    """Return why some backends run nothing: one of the networks is not taken.

    Raises:
        UsageError: A network is given without a file that a backend runs.
        CompressorError: No backend is left.
    """
    found: dict[str, CompressorError] = {}
    for backend in backends:
        try:
            for entrant in entrants:
                entrant.file_for(backend)
        except UsageError:
            raise
        except CompressorError as error:
            found[backend] = error
    if len(found) == len(backends):
        raise next(iter(found.values()))
    for backend, why in found.items():
        stopwatch.note(f"nothing is timed by {backend}: {why.where} {why}")
    return found


def _count(entrant: Entrant) -> dict[str, Any]:
    """Count what is in the first of a network's files, in the order of the formats' table."""
    name, path = next(iter(entrant.files.items()))
    counted = methods_of(name).count(path)
    return {"name": entrant.name, **asdict(counted), "size_bytes": size_of(path)}


def _time(
    place: Place,
    networks: Sequence[dict[str, Any]],
    way: Way,
    seconds: float,
    stopwatch: Stopwatch,
) -> dict[str, Any]:
    try:
        with stopwatch.stage(way.words) as tick:
            records = place.time(way, seconds, tick)
    except (UsageError, HostError):
        raise
    except CompressorError as error:
        stopwatch.note(f"{way.words}: {error.where} {error}")
        return _failed(way, error)
    for record, network in zip(records, networks, strict=True):
        flop = 2 * network["macs"] * record["samples_per_s"]
        record["gflop_per_s"] = flop / 1e9
    return {**asdict(way), "records": records, "failure": ""}


def _failed(way: Way, error: CompressorError) -> dict[str, Any]:
    return {**asdict(way), "records": [], "failure": f"{error.where}: {error}"}


def _require_one(ways: Sequence[dict[str, Any]]) -> None:
    if not any(way["records"] for way in ways):
        raise CompressorError(
            ways[0]["failure"],
            consequence="nothing was timed",
            next_step="check the file, or give another --backend or --batch",
        )
