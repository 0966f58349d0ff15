"""Hold the command line's root, and what its commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter
from rich.console import Console
from rich.table import Table

from compressor.cli.help_examples import epilogue
from compressor.cli.terminal import Terminal
from compressor.errors import UsageError

OUTPUT = Group("Output", sort_key=7)
Flag = Annotated[bool, Parameter(group=OUTPUT, negative=(), show_default=False)]
Folder = Annotated[Path | None, Parameter(group=OUTPUT, metavar="FOLDER")]

app = App(
    name="compress",
    help="A trained PyTorch network goes in, a genuinely smaller dense network comes out.",
    usage="Usage: compress MODEL [OPTIONS]\n       compress COMMAND [OPTIONS]\n",
    help_format="plaintext",
    help_epilogue=epilogue(""),
    version_flags=["--version"],
    version=lambda: _version(),
    suppress_keyboard_interrupt=False,
)


app.register_install_completion_command(
    help="Let this shell complete commands and options; adds a line to its start-up file."
)


def _version() -> str:
    from importlib.metadata import version

    return version("compressor")


def watch_of_the_run() -> Terminal:
    """Return the terminal that shows progress on standard error, in the first process only."""
    return Terminal(Console(stderr=True, quiet=not is_first()))


def is_first() -> bool:
    """Return whether this is, of several processes that a launcher started, the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def check_file(path: Path, suffix: str, *, force: bool) -> None:
    """Check, before any work is done, that an output file can be written under its name.

    Raises:
        UsageError: The suffix is another one, or a folder, or (without `force`) a file is there.
    """
    if path.suffix != suffix:
        problem, next_step = f"the file is no {suffix} file", f"give a name that ends with {suffix}"
    elif path.is_dir():
        problem, next_step = "the file's name is that of a folder", "give another name"
    elif path.exists() and not force:
        problem, next_step = "the output file exists", "replace it with --force, or give another"
    else:
        return
    raise UsageError(problem, where=str(path), consequence="nothing was done", next_step=next_step)


def show_file(path: Path) -> None:
    """Print where a file or folder was written."""
    Console().print(f"written to {path}", highlight=False, markup=False, soft_wrap=True)


def show_written(folder: Path, *tables: Table) -> None:
    """Print the tables of a result, then where its folder was written."""
    for table in tables:
        Console().print(table)
    show_file(folder)
