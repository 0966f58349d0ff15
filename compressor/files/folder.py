"""Write a folder that appears complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from compressor.errors import CompressorError, UsageError
from compressor.files.claimed import (
    END,
    MARK,
    find_abandoned,
    new_folder,
    open_up,
    temporary_folder,
)
from compressor.files.format_table import FORMATS, names_of_files

WEIGHTS, PLAN, REPORT = "model.safetensors", "plan.json", "report.json"
"""What every result has, whatever its formats are."""

SCRIPT, LAYERS, TRAINING = "bench.py", "layers.json.gz", "training.svg"
"""What times the networks elsewhere, the layers that it times, and the picture of a training."""

EXPORTS = "exports.json"
"""The file that says what `compress export` has written."""

_PAGES = ("report.md", "report.html")


def files_of_a_result() -> tuple[str, ...]:
    """Return what a result's folder may hold, as patterns.

    --force replaces a folder of these files and no other.
    """
    rows = FORMATS.values()
    others = [name for row in rows for name in (row.original, *row.variants) if name]
    always = (WEIGHTS, PLAN, REPORT, *_PAGES, SCRIPT, LAYERS, TRAINING, EXPORTS)
    return (*always, *names_of_files(), *others, f".{MARK}*{END}")


SENSITIVITY_FILES = ("sensitivity.json", "sensitivity.svg")
"""What a folder that `compress sensitivity` writes may hold; --force replaces such a folder."""


def name_of(model: str) -> str:
    """Return a folder's name for a MODEL: the file's stem, or the factory's callable."""
    path = Path(model)
    is_factory = ":" in model and not path.exists()
    return (model.rpartition(":")[2] if is_factory else path.stem) or "model"


def is_result(folder: Path) -> bool:
    """Return whether the folder is one that compress wrote, whole or not."""
    return any((folder / name).is_file() for name in (REPORT, *names_of_files()))


def files_under(folder: Path, name: str) -> list[str]:
    """Return the names of the files, from the folder on, that a name of a format stands for.

    That is the file itself, all files of a folder, or none where it is not there.
    """
    path = folder / name
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file.relative_to(folder).as_posix() for file in files if file.is_file()]


def size_of(file: Path) -> int:
    """Return the bytes of a format's file with those of what lies beside it; 0 without it."""
    return sum(part.stat().st_size for part in parts_of(file))


WEIGHTS_OF = {".xml": ".bin", ".param": ".bin"}
"""Ending of a file that says what is computed -> ending of the one with its weights."""


def parts_of(file: Path) -> list[Path]:
    """Return a format's file, and files beside it with its weights.

    These have its name with something added, or another ending.
    """
    parts = sorted(file.parent.glob(f"{escape(file.name)}*"))
    weights = file.with_suffix(WEIGHTS_OF.get(file.suffix, file.suffix))
    return [*parts, weights] if weights not in parts and weights.exists() else parts


def check_target(folder: Path, *, force: bool, files: Collection[str] | None = None) -> None:
    """Check, before any work is done, that `folder` can be written at the end.

    A result that a killed process had finished, but not yet moved there, is put there first.

    Args:
        folder: Where the result will be.
        force: A folder that holds `files` and no other may be replaced.
        files: The patterns of what an earlier result may hold; default those of `compress`.

    Raises:
        UsageError: It exists and `force` is off, or holds files that are not a result's.
        CompressorError: The place cannot be written.
    """
    _finish_swap(folder.absolute())
    _check_writable(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(
            "the output folder is the name of something that is no folder",
            where=str(folder),
            consequence="nothing was done; it is untouched",
            next_step="give another folder with --out",
        )
    if folder.is_dir() and any(folder.iterdir()):
        known = files_of_a_result() if files is None else files
        _check_replaceable(folder, force=force, files=known)


def _check_replaceable(folder: Path, *, force: bool, files: Collection[str]) -> None:
    names = sorted(entry.name for entry in folder.iterdir())
    foreign = [name for name in names if not any(fnmatchcase(name, known) for known in files)]
    if foreign:
        raise UsageError(
            f"the output folder holds what is no earlier result: {', '.join(foreign[:5])}",
            where=str(folder),
            consequence="nothing was done; the folder is untouched, --force would not replace it",
            next_step="give another folder with --out",
        )
    if not force:
        raise UsageError(
            "the output folder exists",
            where=str(folder),
            consequence="nothing was done; the earlier result is untouched",
            next_step="replace it with --force, or give another folder with --out",
        )


def _check_writable(folder: Path) -> None:
    try:
        ancestor = _nearest_existing(folder.absolute().parent)
        _, remove = new_folder(ancestor, _hidden(folder))
        remove()
    except OSError as error:
        raise CompressorError(
            f"the output folder cannot be written: {error.strerror or error}",
            where=str(folder),
            consequence="nothing was done",
            next_step="give another folder with --out",
        ) from None


def _nearest_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


@contextmanager
def all_or_nothing(
    folder: Path, *, force: bool = False, files: Collection[str] | None = None
) -> Iterator[Path]:
    """Yield a hidden folder beside `folder`; it becomes `folder` when the block succeeds.

    If the block fails or is interrupted, what `folder` held before is untouched and the hidden
    folder is gone, as are parents that were made for it.

    Args:
        folder: Where the result will be.
        force: Replace an earlier result.
        files: The patterns of what an earlier result may hold; default those of `compress`.

    Raises:
        UsageError: See `check_target`.
        CompressorError: See `check_target`.
    """
    check_target(folder, force=force, files=files)
    folder = folder.absolute()
    lasting = _nearest_existing(folder.parent)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, _hidden(folder)) as hidden:
            staged = hidden / "new"
            staged.mkdir()
            yield staged
            _swap(staged, folder, aside=hidden / "old")
    except BaseException:
        _remove_empty(folder.parent, up_to=lasting)
        raise


def _swap(staged: Path, folder: Path, *, aside: Path) -> None:
    if folder.exists():
        folder.rename(aside)
    try:
        staged.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise


def _hidden(folder: Path) -> str:
    return f".{folder.name}."


def _finish_swap(folder: Path) -> None:
    """Finish the swap of a process that was killed between its two renames, if there is one."""
    for hidden in find_abandoned(folder.parent, _hidden(folder)):
        if (hidden / "old").exists() and (hidden / "new").exists() and not folder.exists():
            (hidden / "new").rename(folder)


def _remove_empty(path: Path, *, up_to: Path) -> None:
    while path != up_to and path.is_dir() and not os.listdir(path):  # noqa: PTH208
        path.rmdir()
        path = path.parent


def copy_into(source: Path, staged: Path, *, may_link: bool = False) -> None:
    """Copy the files of one folder, and of folders in it, into another.

    They have the permissions of new files, whatever those of the others are.

    Args:
        source: The one folder.
        staged: The other one, which is empty.
        may_link: Whether a copy may be the same file under another name, where both folders are on
            one device: then nobody may change either.
    """
    copy = _link if may_link else shutil.copyfile
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            shutil.copytree(entry, staged / entry.name, copy_function=copy)
        else:
            copy(entry, staged / entry.name)


def _link(file: str | Path, target: str | Path) -> None:
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
    else:
        open_up(Path(target))
