"""Import what the user names, from the folder where the user stands."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def importable_from_here(folder: Path | None = None) -> Iterator[None]:
    """Let modules in `folder` be imported inside the context, as `python` would.

    Args:
        folder: The working directory if None.
    """
    entry = str((folder or Path.cwd()).resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
