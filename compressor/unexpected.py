"""Turn exceptions that nobody foresaw into errors that say where they happened and what to do.

Whatever is not a `CompressorError` becomes one: at the command line's end, and at the functions
that Python's users call. The original stays chained to it.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from compressor.errors import CompressorError

DEBUG = "COMPRESSOR_DEBUG"
"""The environment variable with which the command line shows tracebacks and warnings."""

LONGEST = 500
"""The most characters of an exception's own text that are shown."""

_STAGE = "stage: "
_PACKAGE = Path(__file__).parent


def is_debugging() -> bool:
    """Return whether the user wants to see tracebacks."""
    return bool(os.environ.get(DEBUG))


def note_stage(error: BaseException, name: str) -> None:
    """Store in an exception, in place, the innermost stage that it left."""
    if not _stage_of(error):
        error.add_note(_STAGE + name)


class Explaining:
    """A `with` block that turns unforeseen exceptions into a `CompressorError`.

    Interruptions and exits pass.
    """

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        passing = CompressorError | KeyboardInterrupt | SystemExit | GeneratorExit
        if error is not None and not isinstance(error, passing):
            raise explain_unexpected(error) from error


def explain_unexpected(error: BaseException) -> CompressorError:
    """Return an exception as an error with what, where, consequence and next step."""
    kind = next(kind for kind in _KINDS if kind.applies(error))
    return CompressorError(
        kind.what(error),
        where=", ".join(_places(error)),
        next_step=kind.next_step,
    )


# -- what it is ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """A kind of exceptions that mean one thing, whoever raises them.

    Attributes:
        applies: Whether an exception is of this kind.
        what: Says what happened, in words.
        next_step: What the user can do.
    """

    applies: Callable[[BaseException], bool]
    what: Callable[[BaseException], str]
    next_step: str


_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad allocation",
              "bad_alloc", "failed to allocate memory")  # fmt: skip
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_SPACE = ("no space left on device", "disk quota exceeded", "file too large")


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:LONGEST]


def _named(error: BaseException) -> str:
    """Return the exception's class, and its text."""
    return ": ".join(filter(None, (type(error).__name__, _text(error))))


def _says(error: BaseException, some: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(words in text for words in some)


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or _says(error, _NO_MEMORY)


def _is_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in _FULL) or _says(error, _NO_SPACE)


def _of_file(words: str) -> Callable[[BaseException], str]:
    """Return a function that joins these words with an exception's file name and reason."""

    def what(error: BaseException) -> str:
        name = getattr(error, "filename", None)
        return ": ".join(filter(None, (words, os.fsdecode(name) if name else "", _reason(error))))

    return what


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or _text(error)


_KINDS = (
    _Kind(
        _is_memory,
        lambda error: f"memory ran out: {_text(error) or type(error).__name__}",
        "close other programs, give a smaller --batch-size or --calibration, or take a machine "
        "with more memory; with --device cuda, --device cpu may have more",
    ),
    _Kind(
        _is_full,
        _of_file("the disk is full"),
        "make room there, or have TMPDIR (temporary files) and --out on another disk",
    ),
    _Kind(
        lambda error: isinstance(error, RecursionError),
        lambda error: f"calls are nested deeper than Python allows: {_text(error)}",
        "look for a forward, a property or a factory that calls itself without end; where the "
        "network is that deep, raise sys.setrecursionlimit in the file that builds it",
    ),
    _Kind(
        lambda error: isinstance(error, OSError) and error.errno == errno.EMFILE,
        _of_file("too many files are open"),
        "raise the limit of open files (ulimit -n), or give a smaller --batch-size",
    ),
    _Kind(
        lambda error: isinstance(error, OSError) and error.filename is not None,
        _of_file("a file cannot be used"),
        "check that it is there, and that it may be read and written",
    ),
    _Kind(
        lambda error: True,
        lambda error: f"compressor did not expect this: {_named(error)}",
        f"please report it with these lines; {DEBUG}=1 in the environment shows the traceback",
    ),
)


# -- where it is -----------------------------------------------------------------------------------


def _places(error: BaseException) -> Iterator[str]:
    """Yield the stage, the network's layer, our innermost line, and the raising line."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    lines = traceback.extract_tb(error.__traceback__)
    if stage := _stage_of(error):
        yield f"stage '{stage}'"
    if layer := next(filter(None, map(_layer_of, reversed(frames))), ""):
        yield f"layer {layer}"
    ours = list(filter(_is_ours, lines))
    for line in ours[-1:]:
        inside = Path(line.filename).relative_to(_PACKAGE.parent)
        yield f"{inside}:{line.lineno} in {line.name}"
    if lines and lines[-1:] != ours[-1:]:
        yield f"raised at {'/'.join(Path(lines[-1].filename).parts[-3:])}:{lines[-1].lineno}"


def _stage_of(error: BaseException) -> str:
    notes = getattr(error, "__notes__", [])
    stages = (note.removeprefix(_STAGE) for note in notes if note.startswith(_STAGE))
    return next(stages, "")


def _is_ours(line: traceback.FrameSummary) -> bool:
    return Path(line.filename).is_relative_to(_PACKAGE)


def _layer_of(frame: FrameType) -> str:
    """Return the layer that a function is working on, or "".

    It is that of a program's node or of a group among the function's variables.
    """
    if "torch" not in sys.modules or not Path(frame.f_code.co_filename).is_relative_to(_PACKAGE):
        return ""
    from torch.fx import Node

    from compressor.records import Group
    from compressor.source_lines import place_of

    for value in frame.f_locals.values():
        if isinstance(value, Node):
            return place_of(value)
        if isinstance(value, Group):
            return value.layer
    return ""
