"""Run ONNX files by ONNX Runtime: the one place that opens sessions and reads their record."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.clock import Call, Clock, by_wall
from compressor.errors import CompressorError
from compressor.files.format_table import TENSORRT
from compressor.runtimes.inputs import Feeds, draw_inputs
from compressor.runtimes.providers import PROVIDERS
from compressor.runtimes.ways import Way


def make_options(
    threads: int,
    *,
    optimised: bool = True,
    record: Path | None = None,
    shares_memory: bool = False,
) -> Any:
    """Make session options: so many threads in an operator, operators in sequence.

    Args:
        threads: Threads within one operator.
        optimised: Off: operators run as they stand in the file, none fused with others.
        record: Begins the path of the record of operators that `read_record` reads; None: none.
        shares_memory: Whether the session takes its memory from the pool of the whole process.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # A waiting network's threads must not take the cores from the one whose turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if record is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(record)
    if shares_memory:
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def open_session(
    network: Path | str | bytes, threads: int, device: str = "cpu", **options: Any
) -> Any:
    """Open a network as a session of ONNX Runtime.

    Args:
        network: An ONNX file, or the bytes of one.
        threads: Threads within one operator.
        device: A key of `PROVIDERS`.
        options: As `make_options` takes them.

    Raises:
        Exception: What the runtime raises for a file that it cannot read; its errors share no base.
        CompressorError: The runtime runs it elsewhere, since libraries for the device are missing.
    """
    import onnxruntime as ort

    given = network if isinstance(network, bytes) else str(network)
    made = make_options(threads, **options)
    session = ort.InferenceSession(given, made, providers=list(PROVIDERS[device]))
    if PROVIDERS[device][0] not in session.get_providers():  # it falls back in silence
        raise CompressorError(
            f"ONNX Runtime cannot use {device!r} here: its libraries or the device are missing",
            where=PROVIDERS[device][0],
            consequence="nothing was timed",
            next_step="install what this provider of ONNX Runtime takes, or time it on the CPU",
        )
    return session


def make_call(session: Any, feeds: Feeds, device: str = "cpu") -> Callable[[], object]:
    """Return a call of the session on these inputs, which returns once its results are there.

    On an accelerator inputs and results stay on the device.
    """
    if device == "cpu":
        return lambda: session.run(None, feeds)
    import onnxruntime as ort

    binding = session.io_binding()
    for name, array in feeds.items():
        value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)
        binding.bind_ortvalue_input(name, value)
    for spec in session.get_outputs():
        binding.bind_output(spec.name, device)

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


@dataclass(frozen=True)
class Kernel:
    """One call of one operator, as the runtime records it.

    Attributes:
        name: The runtime's name of the operator.
        kind: Its type, e.g. "Conv".
        ms: The milliseconds that it took.
    """

    name: str
    kind: str
    ms: float


def read_record(session: Any) -> list[Kernel]:
    """End the record of a session's operators, and return their calls in order.

    The session was opened with `record`.
    """
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ending = "_kernel_time"
    return [
        Kernel(
            event["name"].removesuffix(ending),
            event.get("args", {}).get("op_name", ""),
            event["dur"] / 1000,
        )
        for event in events
        if event["cat"] == "Node" and event["name"].endswith(ending)
    ]


def start(path: Path, way: Way, seed: int) -> tuple[Call, Clock]:
    """Open an ONNX file to be run in one way on random inputs of a seed.

    Returns:
        A call, with the clock for it.

    Raises:
        Exception: Whatever the runtime raises.
    """
    by = TENSORRT if way.backend == TENSORRT else way.device
    session = open_session(path, way.threads, by)
    return make_call(session, draw_inputs(session, way.batch, seed), way.device), by_wall


def _call_once(path: Path) -> None:
    """Open a file and call it on drawn inputs: `python -m compressor.runtimes.onnx FILE`."""
    session = open_session(path, 1)
    session.run(None, draw_inputs(session, 1))


if __name__ == "__main__":
    _call_once(Path(sys.argv[1]))
