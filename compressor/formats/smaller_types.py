"""Convert an ONNX file to one that computes in 16 or 8 bits, by ONNX Runtime's own converters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from compressor.errors import CompressorError
from compressor.files.claimed import temporary_folder
from compressor.formats.onnx_file import write_onnx
from compressor.quiet import silence
from compressor.runtimes.inputs import Feeds, feeds_for
from compressor.runtimes.onnx import open_session


def write_half(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Write a file whose weights and arithmetic are in 16-bit floating point.

    Inputs and outputs keep their types.

    Args:
        source: The ONNX file in float32.
        target: The file that is written.
        metadata: What it says of itself, by name.

    Raises:
        CompressorError: The converter fails, or the file cannot be written.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with _failures_named("in 16 bits"), silence():
        model = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)
        OnnxModel.graph_topological_sort(model.graph)  # the converter appends its casts
    write_onnx(model, target, metadata)


def write_int8(
    source: Path, target: Path, samples: Iterable[Feeds], metadata: Mapping[str, str]
) -> None:
    """Write a file whose weights (by channel) and activations are in 8 bits.

    They are quantised by pairs of QuantizeLinear and DequantizeLinear, which every runtime
    understands.

    Args:
        source: The ONNX file in float32.
        target: The file that is written.
        samples: Inputs by name, or by names as words of Python's, which show the ranges of the
            activations.
        metadata: What the file says of itself, by name.

    Raises:
        CompressorError: The quantizer fails, or the file cannot be written.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with temporary_folder() as folder:
        folded, written = (str(Path(folder) / name) for name in ("folded.onnx", "int8.onnx"))
        with _failures_named("in 8 bits"), silence():
            quant_pre_process(str(source), folded, skip_symbolic_shape=True)
            quantize_static(
                folded,
                written,
                _reader(samples, folded),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                # Weights keep to 7 of their bits: two full products overflow the 16-bit sums of
                # processors without dot products of bytes, and outputs would differ between
                # machines.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        write_onnx(onnx.load(written), target, metadata)


def _reader(samples: Iterable[Feeds], network: str) -> Any:
    """Return what hands the samples to the quantizer, under the names of the file `network`."""
    from onnxruntime.quantization import CalibrationDataReader

    session = open_session(network, 1)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._samples = iter(samples)

        def get_next(self) -> Feeds | None:
            given = next(self._samples, None)
            return None if given is None else feeds_for(session, given)

    return Reader()


@contextmanager
def _failures_named(how: str) -> Iterator[None]:
    """Turn whatever a converter raises into a CompressorError that says what was tried."""
    try:
        yield
    except Exception as error:
        raise CompressorError(
            f"ONNX Runtime cannot write this network {how}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            consequence="nothing was written",
            next_step="deploy the file with 32 bits",
        ) from error
