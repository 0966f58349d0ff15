"""What a long run has reached, kept beside its output folder until it has finished: a run that was
killed goes on from there (`compress resume FOLDER`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from compressor.errors import CompressorError, UsageError
from compressor.files.claimed import temporary_folder
from compressor.files.whole_file import written_whole
from compressor.options import LIMITS, Options
from compressor.processes import rank

SCHEMA = 1
RUN = "run.json"
MADE = "made"
"""The record of the smaller network before it is trained at the end."""


@dataclass(frozen=True)
class Run:
    """What was asked for, in which directory."""

    model: str
    options: Options
    directory: str
    force: bool


class Journal:
    """Records by name, each whole or not there. Without a folder nothing is kept. `made` are the
    folders around it that were not there before, innermost first."""

    def __init__(self, folder: Path | None = None, made: Sequence[Path] = ()) -> None:
        self.folder, self.made = folder, made

    def keep(self, name: str, record: Mapping[str, Any]) -> None:
        """Plain containers and tensors; replaces an earlier record of that name."""
        if self.folder is not None and rank() == 0:
            with written_whole(self.folder / f"{name}.pt") as temporary:
                torch.save(dict(record), temporary)

    def kept(self, name: str) -> dict[str, Any] | None:
        """The record of that name, if there is one.

        Raises:
            CompressorError: It cannot be read.
        """
        path = None if self.folder is None else self.folder / f"{name}.pt"
        if path is None or not path.exists():
            return None
        try:
            found: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise CompressorError(
                f"what an unfinished run had reached cannot be read: {type(error).__name__}",
                where=str(path),
                consequence="nothing was written",
                next_step=f"remove {path.parent} and start the run anew",
            ) from None
        return found

    @property
    def has_records(self) -> bool:
        """Whether anything has been reached."""
        return self.folder is not None and any(self.folder.glob("*.pt"))

    def close(self) -> None:
        """The run has finished: nothing is needed any more. All of it is gone at once, and not
        piece by piece, were we killed meanwhile."""
        if self.folder is not None and rank() == 0:
            beside = self.folder.parent, f".{self.folder.stem}."
            with suppress(OSError), temporary_folder(*beside) as hidden:
                self.folder.rename(hidden / self.folder.name)
            for parent in self.made:
                with suppress(OSError):  # it holds the result, or others
                    parent.rmdir()


def home_of(folder: Path) -> Path:
    """Where the run that will write `folder` is kept meanwhile."""
    folder = folder.absolute()
    return folder.parent / f"{folder.name}.unfinished"


def started(folder: Path, run: Run) -> Journal:
    """A journal of a run that starts anew.

    Raises:
        UsageError: An earlier run of the folder has reached something, and is not to be replaced.
    """
    home = home_of(folder)
    if Journal(home).has_records and not run.force:
        raise UsageError(
            "an unfinished run of this folder is there",
            where=str(home),
            consequence="nothing was done; it is untouched",
            next_step="go on with it by compress resume, or start anew with --force",
        )
    made = [parent for parent in home.parents if not parent.exists()]
    if rank() == 0:
        Journal(home).close()
        home.mkdir(parents=True)
        record = {"schema": SCHEMA, **vars(run), "options": asdict(run.options)}
        with written_whole(home / RUN) as temporary:
            temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return Journal(home, made)


def unfinished(folder: Path) -> tuple[Run, Journal]:
    """The run that was to write `folder`, and its journal.

    Raises:
        UsageError: There is none.
    """
    home = home_of(folder)
    try:
        stored = json.loads((home / RUN).read_text(encoding="utf-8"))
        if stored.pop("schema") != SCHEMA:
            raise ValueError("of another version")
        options = {n: tuple(v) if isinstance(v, list) else v for n, v in stored["options"].items()}
        run = Run(**{**stored, "options": restored(options)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "there is no unfinished run of this folder",
            where=f"{home / RUN}: {error}",
            consequence="nothing was done",
            next_step="name the folder that was to be written (--out), or start the run anew",
        ) from None
    return run, Journal(home)


def restored(options: Mapping[str, Any]) -> Options:
    """Options from their fields; a limit says what --of is by itself."""
    is_limited = any(options.get(name) is not None for name in LIMITS)
    return Options(**{n: v for n, v in options.items() if not (n == "of" and is_limited)})
