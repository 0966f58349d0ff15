"""Importing what the user names, from where the user stands."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def importable_from_here(folder: Path | None = None) -> Iterator[None]:
    """Let modules in `folder` (default: the working directory) be imported, as `python` would."""
    entry = str((folder or Path.cwd()).resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
