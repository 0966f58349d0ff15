"""Run networks on ONNX Runtime: the one place that opens sessions, and that reads their record."""

from __future__ import annotations

import json
import keyword
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import CompressorError
from compressor.onnx_providers import PROVIDERS

Feeds = Mapping[str, np.ndarray[Any, Any]]
"""Inputs by name."""


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


def draw_inputs(session: Any, batch: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Draw random data for all inputs of a session, by name, with `batch` for symbolic sizes.

    Where the file says which sizes it was made with (`SIZES`), these stand for all but the first.

    Raises:
        CompressorError: An input is of a type that cannot be drawn.
    """
    rng = np.random.default_rng(seed)
    usual = usual_sizes(session.get_modelmeta().custom_metadata_map)
    return {
        spec.name: draw_input(spec, batch, rng, usual.get(spec.name, ()))
        for spec in session.get_inputs()
    }


SIZES = "compress.sizes"
"""Name under which a file says the sizes of the inputs that it was compressed with."""


def usual_sizes(said: Mapping[str, str]) -> dict[str, list[int]]:
    """Return the sizes of inputs, by name, that a file says it was compressed with, if any."""
    try:
        found = json.loads(said.get(SIZES, "{}"))
        return {str(name): [int(size) for size in sizes] for name, sizes in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def fill_sizes(sizes: Sequence[Any], batch: int, usual: Sequence[int] = ()) -> list[int]:
    """Return sizes with `batch` in place of symbolic ones, or with the usual ones after the
    first."""
    own = [size if isinstance(size, int) and size > 0 else 0 for size in sizes]
    known = usual if len(usual) == len(own) else [0] * len(own)
    return [size or (known[i] if i else 0) or batch for i, size in enumerate(own)]


def draw_input(
    spec: Any, batch: int, rng: np.random.Generator, usual: Sequence[int] = ()
) -> np.ndarray[Any, Any]:
    """Draw random data for an ONNX input, with `batch` or usual sizes in place of symbolic ones.

    Integers are ones: the only index that is nearly always valid and not zero.

    Raises:
        CompressorError: The input is of another type.
    """
    kind = _FLOATS.get(spec.type) or _INTEGERS.get(spec.type)
    if kind is None:
        raise CompressorError(
            f"no random data for the input {spec.name!r} of type {spec.type}",
            next_step="give inputs of your own: such a type cannot be drawn",
        )
    return draw_array(fill_sizes(spec.shape, batch, usual), kind, rng)


def draw_array(shape: Sequence[int], kind: Any, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Draw random numbers of a type of NumPy's; integers are ones."""
    if np.issubdtype(kind, np.floating):
        return rng.standard_normal(shape).astype(kind)
    return np.ones(shape, kind)


_FLOATS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_INTEGERS: dict[str, Any] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def words_of(names: Iterable[str]) -> list[str]:
    """Return the names of a file's inputs as words of Python's, all different, in their order."""
    found: list[str] = []
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII) or "unnamed"
        if not word.isidentifier() or keyword.iskeyword(word) or word == "self":
            word = f"_{word}"
        free, count = word, 1
        while free in found:
            count += 1
            free = f"{word}_{count}"
        found.append(free)
    return found


def feeds_for(session: Any, given: Mapping[str, np.ndarray[Any, Any]]) -> Feeds:
    """Return inputs under the session's names and in its types of floats.

    Args:
        session: The session.
        given: Inputs by the session's names, or by these as words of Python's; others are left
            out.
    """
    specs = session.get_inputs()
    words = words_of(spec.name for spec in specs)
    found = {}
    for spec, word in zip(specs, words, strict=True):
        name = spec.name if spec.name in given else word
        if name in given:
            array = given[name]
            is_float = array.dtype.kind == "f" and spec.type in _FLOATS
            found[spec.name] = array.astype(_FLOATS[spec.type], copy=False) if is_float else array
    return found


def feeds_by_position(session: Any, given: Sequence[np.ndarray[Any, Any]]) -> Feeds:
    """Return inputs, given in the session's order, under its names and in its types of floats."""
    names = [spec.name for spec in session.get_inputs()]
    return feeds_for(session, dict(zip(names, given, strict=True)))


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _call_once(path: Path) -> None:
    """Open a file and call it on drawn inputs, as `python -m compressor.onnx_runtime FILE` does."""
    session = open_session(path, 1)
    session.run(None, draw_inputs(session, 1))


if __name__ == "__main__":
    _call_once(Path(sys.argv[1]))
