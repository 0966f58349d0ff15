"""Open sessions of ONNX Runtime that are timed: their options, devices and calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from compressor.errors import CompressorError, UsageError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Name of a device, as options spell it -> the runtime's execution provider."""


def has_provider(device: str) -> bool:
    """Return whether the installed runtime runs on the device."""
    import onnxruntime as ort

    return PROVIDERS.get(device) in ort.get_available_providers()


def check_provider(device: str) -> None:
    """Check that the installed runtime runs on the device.

    Raises:
        UsageError: It does not.
    """
    if not has_provider(device):
        raise UsageError(
            f"this ONNX Runtime does not run on {device!r}",
            where="--latency-on",
            consequence="nothing was timed",
            next_step="install onnxruntime-gpu, or give --latency-on cpu"
            if device in PROVIDERS
            else f"give one of {', '.join(PROVIDERS)}",
        )


def options_of(threads: int) -> Any:
    """Return session options: so many threads in an operator, operators in sequence."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # A waiting network's threads must not take the cores from the one whose turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def bound_call(
    session: Any, feeds: Mapping[str, np.ndarray[Any, Any]], device: str
) -> Callable[[], None]:
    """Return a call with inputs and results on the device, which waits for the results."""
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


def random_input(spec: Any, batch: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Draw random data for an ONNX input, with `batch` in place of symbolic sizes.

    Integers are ones: the only index that is nearly always valid and not zero.

    Raises:
        CompressorError: The input is of another type.
    """
    shape = [size if isinstance(size, int) else batch for size in spec.shape]
    if spec.type in _FLOATS:
        return rng.standard_normal(shape).astype(_FLOATS[spec.type])
    if spec.type in _INTEGERS:
        return np.ones(shape, _INTEGERS[spec.type])
    raise CompressorError(
        f"no random data for the input {spec.name!r} of type {spec.type}",
        next_step="give inputs of your own: such a type cannot be drawn",
    )


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


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
