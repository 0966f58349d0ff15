"""List the formats that a result is written in: THE table, which needs no torch to be read.

A format is a row here and a file with its code. Whatever names files of a result (the folder and
its hashes, the report, `compress bench` and `export`, --format) goes by these rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ONNX, PROGRAM, OPENVINO = "onnx", "pt2", "openvino"
EXECUTORCH, NCNN, HF = "executorch", "ncnn", "hf"
"""The words of the rows. Other parts of a run build on the first two: ONNX Runtime's times, and a
network without its class."""

TENSORRT = "tensorrt"
"""The backend that is a part of ONNX Runtime, and runs its files on a GPU."""


@dataclass(frozen=True)
class Format:
    """A row of the table.

    Attributes:
        files: The names that it may write, of files or of a folder; the first is what is opened.
        label: What notes and reports call the file.
        home: The module that has its `METHODS` (`compressor.formats.job.Methods`). It is imported
            when they are first needed, since it takes torch and the writer's library.
        runner: The module with `start`, which opens a file to be run in one way on random inputs of
            a seed, and returns a call with the clock for it ("" where nothing does). A process that
            times a file imports it and no more.
        backends: What runs the file, as `compress bench --backend` spells it -> its title.
        original: The name under which the original's file is delivered too, for timing both on
            another machine; "" where it is not.
        variants: Patterns of the files that `compress export` writes beside it.
        begins: What its file begins with, as a regular expression, where no MODEL is read from it.
        needs: The packages without which it cannot be written, keys of `extras.EXTRAS`; the first
            one runs it.
    """

    files: tuple[str, ...]
    label: str
    home: str
    runner: str = ""
    backends: Mapping[str, str] = field(default_factory=dict)
    original: str = ""
    variants: tuple[str, ...] = ()
    begins: bytes = b""
    needs: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of the file that is opened."""
        return self.files[0]


FORMATS: dict[str, Format] = {
    ONNX: Format(
        files=("model.onnx", "model.onnx.data"),
        label="ONNX file",
        home="compressor.formats.onnx_format",
        runner="compressor.runtimes.onnx",
        backends={"onnxruntime": "ONNX Runtime", TENSORRT: "TensorRT, by ONNX Runtime"},
        original="original.onnx",
        variants=("model_*.onnx", "model_*.onnx.data"),
    ),
    PROGRAM: Format(
        files=("model.pt2",),
        label=".pt2 program",
        home="compressor.formats.program_file",
        runner="compressor.formats.program_file",
        backends={
            "torch": "PyTorch, eager",
            "torch-compiled": "PyTorch, compiled",
            "torch-graphs": "PyTorch, CUDA graphs",
        },
    ),
    OPENVINO: Format(
        files=("model.xml", "model.bin"),
        label="OpenVINO model",
        home="compressor.formats.openvino_format",
        runner="compressor.runtimes.openvino",
        backends={"openvino": "OpenVINO"},
        variants=("model_*.xml", "model_*.bin"),
        begins=rb"\s*(<\?xml[^>]*>)?\s*<net\s",
        needs=("openvino",),
    ),
    EXECUTORCH: Format(
        files=("model.pte",),
        label="ExecuTorch program",
        home="compressor.formats.executorch_format",
        runner="compressor.runtimes.executorch",
        backends={"executorch": "ExecuTorch"},
        begins=rb"(?s:.{4})ET\d\d",
        needs=("executorch",),
    ),
    NCNN: Format(
        files=("model.ncnn.param", "model.ncnn.bin"),
        label="ncnn model",
        home="compressor.formats.ncnn_format",
        runner="compressor.runtimes.ncnn",
        backends={"ncnn": "ncnn"},
        begins=rb"7767517\s",
        needs=("ncnn", "pnnx"),
    ),
    HF: Format(
        files=("hf",),
        label="transformers folder",
        home="compressor.formats.hf_format",
        needs=("transformers",),
    ),
}
"""All formats, by the word that --format takes."""

TARGETS = (OPENVINO, EXECUTORCH, NCNN)
"""Formats whose runtimes a budget of latency can be for, by the same word (--latency-on)."""


def is_run(names: Iterable[str]) -> bool:
    """Return whether a backend runs any of some formats, by which a network can be timed."""
    return any(FORMATS[name].backends for name in names)


def titles_of_backends() -> dict[str, str]:
    """Return every backend that runs a format's file, with its title."""
    return {word: title for row in FORMATS.values() for word, title in row.backends.items()}


def format_of(backend: str) -> str:
    """Return the word of the format whose file a backend runs."""
    return next(name for name, row in FORMATS.items() if backend in row.backends)


def names_of_files() -> list[str]:
    """Return the names of all files that the formats may write for a result."""
    return [name for row in FORMATS.values() for name in row.files]
