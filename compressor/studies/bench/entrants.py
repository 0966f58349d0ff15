"""Turn what is to be timed (an ONNX file, a result's folder, any MODEL) into the formats' files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compressor.errors import CompressorError, UsageError
from compressor.files.format_table import FORMATS, ONNX, format_of, titles_of_backends
from compressor.files.integrity import check_files
from compressor.loading.given import ModelSpec, OnnxFile, ResultFolder, RuntimeFile, recognise
from compressor.options import ModelOptions


@dataclass(frozen=True)
class Entrant:
    """A network that is timed, by its files.

    Attributes:
        name: As the command line names it.
        files: The file of each format in which there is one; at least one.
        refusals: Why there is none of others in which one was to be written.
    """

    name: str
    files: Mapping[str, Path]
    refusals: Mapping[str, CompressorError] = field(default_factory=dict)

    def file_for(self, backend: str) -> Path:
        """Return the file that the backend runs.

        Raises:
            CompressorError: It does not take the network.
            UsageError: There is no file that it can run.
        """
        wanted = format_of(backend)
        if wanted in self.files:
            return self.files[wanted]
        if wanted in self.refusals:
            raise self.refusals[wanted]
        title, label = titles_of_backends()[backend], FORMATS[wanted].label
        runs = [word for name in self.files for word in FORMATS[name].backends]
        raise UsageError(
            f"there is no {label} of this network, which {title} runs",
            where=self.name,
            consequence="nothing was timed",
            next_step=f"give the folder of a result that has one, or --backend {runs[0]}"
            if runs
            else "give the folder of a result that has one",
        )


def open_entrant(
    model: str, folder: Path, options: ModelOptions, backends: Collection[str] = ("onnxruntime",)
) -> Entrant:
    """Find or make the files of what the command line names.

    Args:
        model: A file of a runtime, a folder that `compress` wrote, or a MODEL, as its content
            tells.
        folder: Where files are written that are not there yet.
        options: How a MODEL is opened.
        backends: What is to run it; without ONNX Runtime a network that has no ONNX form will do.

    Raises:
        UsageError: There is no such file or model.
        CompressorError: The model cannot be opened or exported, or a file of a result was changed.
    """
    match recognise(model):
        case ResultFolder(path, files):
            check_files(path, (name for row in FORMATS.values() for name in row.files))
            return Entrant(model, files)
        case OnnxFile(path):
            return Entrant(model, {ONNX: path})
        case RuntimeFile(path, name):
            return Entrant(model, {name: path})
        case ModelSpec(spec):
            return Entrant(model, *_write_files(spec, folder, options, backends))


def _write_files(
    spec: str, folder: Path, options: ModelOptions, backends: Collection[str]
) -> tuple[dict[str, Path], dict[str, CompressorError]]:
    """Write a MODEL in the formats that the backends run, and as ONNX, where it can be.

    Returns:
        The files, and why there are no others.

    Raises:
        CompressorError: There is none.
    """
    from compressor.formats.job import methods_of
    from compressor.graph.trace import trace
    from compressor.loading import find_examples
    from compressor.run.loaded import open_model

    loaded = open_model(spec, options)
    traced = trace(loaded.module, find_examples(loaded, options.input))
    folder.mkdir(parents=True, exist_ok=True)
    needed = {format_of(backend) for backend in backends}
    files: dict[str, Path] = {}
    refusals: dict[str, CompressorError] = {}
    for name, row in FORMATS.items():
        if name in needed or name == ONNX:  # whose operators are timed one by one
            try:
                methods_of(name).attempt(traced, folder)
            except CompressorError as error:
                refusals[name] = error
            else:
                files[name] = folder / row.file
    if not files:
        raise next(iter(refusals.values()))
    return files, refusals
