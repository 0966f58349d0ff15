"""Turn what is to be timed (an ONNX file, a program, an export folder, any MODEL) into files that a
process of its own can run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import CompressorError, UsageError
from compressor.files.folder import is_result
from compressor.files.integrity import check_files
from compressor.options import ModelOptions

ONNX_SUFFIX = ".onnx"


@dataclass(frozen=True)
class Entrant:
    """A network that is timed, by its files.

    Attributes:
        name: As the command line names it.
        onnx: The ONNX file; None where there is none.
        program: The .pt2 program; None where only an ONNX file was given.
    """

    name: str
    onnx: Path | None
    program: Path | None

    def file_for(self, backend: str) -> Path:
        """Return the file that the backend runs.

        Raises:
            UsageError: There is no file that it can run.
        """
        if backend == "onnxruntime":
            if self.onnx is None:
                raise UsageError(
                    "there is no ONNX file of this network",
                    where=self.name,
                    consequence="nothing was timed",
                    next_step="time it as PyTorch runs it: --backend torch",
                )
            return self.onnx
        if self.program is None:
            raise UsageError(
                "PyTorch runs no ONNX files",
                where=self.name,
                consequence="nothing was timed",
                next_step="give the export folder or the .pt2 program instead, or leave out "
                f"--backend {backend}",
            )
        return self.program


def opened(
    model: str, folder: Path, options: ModelOptions, backends: Collection[str] = ("onnxruntime",)
) -> Entrant:
    """Find or make the files of what the command line names.

    Args:
        model: An `.onnx` file, a folder that `compress` wrote, or a MODEL.
        folder: Where files are written that are not there yet.
        options: How a MODEL is opened.
        backends: What is to run it; without ONNX Runtime a network that has no ONNX form will do.

    Raises:
        UsageError: There is no such file or model.
        CompressorError: The model cannot be opened or exported.
    """
    path = Path(model)
    if path.is_dir() and is_result(path):
        check_files(path, ("model.onnx", "model.onnx.data", "model.pt2"))
        onnx, program = (
            file if file.exists() else None for file in (path / "model.onnx", path / "model.pt2")
        )
        return Entrant(model, onnx, program)
    if path.suffix == ONNX_SUFFIX:
        if not path.is_file():
            raise UsageError(
                f"there is no file {path}",
                consequence="nothing was timed",
                next_step="give an .onnx file, a folder that compress wrote, or a MODEL",
            )
        return Entrant(model, path, None)
    return _exported(model, folder, options, backends)


def _exported(
    model: str, folder: Path, options: ModelOptions, backends: Collection[str]
) -> Entrant:
    from compressor.formats import export_onnx, save_program
    from compressor.graph.trace import trace
    from compressor.loading import find_examples
    from compressor.run.loaded import open_model

    loaded = open_model(model, options)
    traced = trace(loaded.module, find_examples(loaded, options.input, None))
    folder.mkdir(parents=True, exist_ok=True)
    save_program(traced.program, folder / "model.pt2")
    onnx: Path | None = folder / "model.onnx"
    try:
        export_onnx(traced.program, folder / "model.onnx", batch_symbol=traced.batch_symbol)
    except CompressorError:
        if "onnxruntime" in backends:
            raise
        onnx = None
    return Entrant(model, onnx, folder / "model.pt2")
