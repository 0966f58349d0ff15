"""Make temporary folders and files that are held while their maker lives.

A process that was killed removes nothing; whoever makes the next one of that name removes what
nobody holds any more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is held, and so nothing is removed for others
    fcntl = None  # type: ignore[assignment]  # is asked for before use

MARK = "compressor-"
"""Ends the part of a temporary name that is chosen; what follows is drawn at random."""

END = ".temporary"
"""Ends a temporary name.

Only what has both is taken for a folder or file of ours: nobody's own `compressor-results` among
the temporary folders is.
"""


@contextmanager
def temporary_folder(folder: Path | None = None, prefix: str = "") -> Iterator[Path]:
    """Yield a new folder that is removed at the end of the block.

    Args:
        folder: Where it is made; default among the system's temporary folders.
        prefix: Begins its name.
    """
    path, release = new_folder(folder, prefix)
    try:
        yield path
    finally:
        release()


def new_folder(folder: Path | None = None, prefix: str = "") -> tuple[Path, Callable[[], None]]:
    """Make a temporary folder, and return it with a function that removes it."""
    home, start = folder or Path(tempfile.gettempdir()), prefix + MARK
    return _claim(home, start, lambda: Path(tempfile.mkdtemp(END, start, home)))


def new_file(folder: Path, prefix: str) -> tuple[Path, Callable[[], None]]:
    """Make a temporary file, and return it with a function that removes it.

    If it was renamed meanwhile, it stays.
    """

    def make() -> Path:
        handle, name = tempfile.mkstemp(END, prefix + MARK, folder)
        os.close(handle)
        open_up(Path(name))
        return Path(name)

    return _claim(folder, prefix + MARK, make)


def open_up(file: Path) -> None:
    """Give a file the permissions of any file that is made; temporary ones are private."""
    file.chmod(0o666 & ~_umask())


def _umask() -> int:
    """Return the process's mask of file modes, which the system tells only to whoever sets it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def find_abandoned(folder: Path, prefix: str) -> Iterator[Path]:
    """Yield what processes that no longer live have left, each held while it is looked at."""
    for path in sorted(folder.glob(f"{escape(prefix + MARK)}*{END}")):
        handle = _hold(path)
        if handle is not None:
            try:
                yield path
            finally:
                os.close(handle)


def _claim(home: Path, start: str, make: Callable[[], Path]) -> tuple[Path, Callable[[], None]]:
    for path in find_abandoned(home, start.removesuffix(MARK)):
        _remove(path)
    while True:
        path = make()
        handle = _hold(path, wait=True)
        if path.exists():  # else it was taken for abandoned before we held it
            break

    def release() -> None:
        _remove(path)
        if handle is not None:
            with suppress(OSError):
                os.close(handle)

    return path, release


def _hold(path: Path, *, wait: bool = False) -> int | None:
    """Hold a file or folder against other processes.

    Returns:
        A handle; None where another process holds it, or files cannot be held here.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        is_ours = os.fstat(handle).st_uid == os.geteuid()
        if is_ours:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
