"""Load MODEL, whatever it is: a file judged by its content, a transformers folder or a factory."""

from pathlib import Path
from typing import Any

from compressor.errors import UsageError
from compressor.loading.factories import (
    SPEC_FORMS,
)
from compressor.loading.factory_models import ANY_MODEL, load_factory
from compressor.loading.finite import refuse_non_finite
from compressor.loading.given import require_model
from compressor.loading.hugging_face import is_hugging_face, load_hugging_face
from compressor.loading.model_files import read_model
from compressor.loading.wanted import Wanted, refuse_options_of_weights
from compressor.loading.wording import cut_list, did_you_mean
from compressor.records import LoadedModel


def load_model(spec: str, **wanted: Any) -> LoadedModel:
    """Load MODEL on the CPU.

    Args:
        spec: A file, judged by its content, a transformers folder, or a factory spec.
        wanted: The fields of `Wanted` by name.

    Raises:
        UsageError: The arguments do not go together, or nothing is found under the spec.
        CompressorError: The file cannot be read or trusted, the factory fails, or the weights do
            not fit or are not finite.
    """
    loaded = _load(spec, Wanted(**wanted))
    refuse_non_finite(loaded.module)
    return loaded


def _load(spec: str, wanted: Wanted) -> LoadedModel:
    path = Path(spec).expanduser()
    require_model(spec)
    if path.is_file():
        if wanted.weights or wanted.pretrained:
            option = "--weights" if wanted.weights else "--pretrained"
            raise UsageError(
                f"{option} goes with a factory, and {spec} is a file",
                where=option,
                next_step=f"leave {option} out, or give the factory as MODEL: {SPEC_FORMS}",
            )
        return read_model(path, wanted)
    if not wanted.weights:
        refuse_options_of_weights(
            wanted, f"{spec} is no file with weights, and no --weights are given"
        )
    if path.is_dir() and is_hugging_face(path):
        return load_hugging_face(spec, path)
    if path.is_dir():
        raise UsageError(
            f"{spec} is a folder, not a model", where="MODEL", next_step=_files_in(path)
        )
    if spec.startswith("hf:"):
        return load_hugging_face(spec, Path(spec.removeprefix("hf:")).expanduser())
    if ":" not in spec:
        raise _not_found(spec, path)
    if wanted.factory:
        raise UsageError(
            f"{spec} is a factory itself, so --factory is one too many",
            where="--factory",
            next_step="leave --factory out; its weights are given as --weights FILE",
        )
    return load_factory(spec, wanted)


def _not_found(spec: str, path: Path) -> UsageError:
    folder = path.parent
    siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    hint = did_you_mean(path.name, siblings) if siblings else f" There is no folder {folder}."
    return UsageError(f"there is no file {spec}.{hint}", where="MODEL", next_step=ANY_MODEL)


def _files_in(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    return f"give one of its files: {cut_list(names)}" if names else ANY_MODEL
