"""Keep what a long run has reached beside its output folder until the run has finished.

A run that was killed goes on from there (`compress resume FOLDER`).
"""

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
from compressor.files.whole_file import write_whole
from compressor.options import LIMITS, Options
from compressor.processes import rank

SCHEMA = 1
RUN = "run.json"
MADE = "made"
"""Name of the record of the smaller network before it is trained at the end."""


@dataclass(frozen=True)
class Asked:
    """What was asked for, as it is kept for a run that goes on later.

    Attributes:
        model: The MODEL spec.
        options: The options.
        directory: The directory in which the command was called.
        force: Whether existing files may be replaced.
    """

    model: str
    options: Options
    directory: str
    force: bool


class Journal:
    """Records of a run by name, each of them whole or absent.

    Attributes:
        folder: Where they are kept; None keeps nothing.
        made: The folders around it that did not exist before, innermost first.
    """

    def __init__(self, folder: Path | None = None, made: Sequence[Path] = ()) -> None:
        self.folder, self.made = folder, made

    def keep(self, name: str, record: Mapping[str, Any]) -> None:
        """Store a record of plain containers and tensors, replacing an earlier one of that name."""
        if self.folder is not None and rank() == 0:
            with write_whole(self.folder / f"{name}.pt") as temporary:
                torch.save(dict(record), temporary)

    def find_record(self, name: str) -> dict[str, Any] | None:
        """Return the record of that name, or None if there is none.

        Raises:
            CompressorError: It cannot be read.
        """
        path = None if self.folder is None else self.folder / f"{name}.pt"
        if path is None or not path.exists():
            return None
        try:
            record: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise CompressorError(
                f"what an unfinished run had reached cannot be read: {type(error).__name__}",
                where=str(path),
                consequence="nothing was written",
                next_step=f"remove {path.parent} and start the run anew",
            ) from None
        return record

    @property
    def has_records(self) -> bool:
        """Return whether anything has been reached."""
        return self.folder is not None and any(self.folder.glob("*.pt"))

    def close(self) -> None:
        """Remove all records, and the folders made for them, after the run has finished."""
        if self.folder is not None and rank() == 0:
            # renamed first, so that all of it is gone at once, even if we are killed meanwhile
            beside = self.folder.parent, f".{self.folder.stem}."
            with suppress(OSError), temporary_folder(*beside) as hidden:
                self.folder.rename(hidden / self.folder.name)
            for parent in self.made:
                with suppress(OSError):  # it holds the result, or others
                    parent.rmdir()


def home_of(folder: Path) -> Path:
    """Return the folder in which the run that will write `folder` keeps its records."""
    folder = folder.absolute()
    return folder.parent / f"{folder.name}.unfinished"


def start_journal(folder: Path, run: Asked) -> Journal:
    """Start the journal of a new run that will write `folder`.

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
        with write_whole(home / RUN) as temporary:
            temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return Journal(home, made)


def find_unfinished(folder: Path) -> tuple[Asked, Journal]:
    """Return the unfinished run that was to write `folder`, and its journal.

    Raises:
        UsageError: There is none.
    """
    home = home_of(folder)
    try:
        stored = json.loads((home / RUN).read_text(encoding="utf-8"))
        if stored.pop("schema") != SCHEMA:
            raise ValueError("of another version")
        options = {n: tuple(v) if isinstance(v, list) else v for n, v in stored["options"].items()}
        run = Asked(**{**stored, "options": restore_options(options)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "there is no unfinished run of this folder",
            where=f"{home / RUN}: {error}",
            consequence="nothing was done",
            next_step="name the folder that was to be written (--out), or start the run anew",
        ) from None
    return run, Journal(home)


def restore_options(options: Mapping[str, Any]) -> Options:
    """Build options from their stored fields."""
    # a limit sets --of by itself
    is_limited = any(options.get(name) is not None for name in LIMITS)
    return Options(**{n: v for n, v in options.items() if not (n == "of" and is_limited)})
