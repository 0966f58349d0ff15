"""Run the command line: `compress MODEL`, and sub-commands.

A sub-command is a function with `@app.command` in a file of this package; torch is imported inside,
so that `--help` is quick. Sub-command names win over files of the same name: write `./demo` for
such a file.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import CycloptsError
from rich.console import Console

from compressor.cli import (
    bench_command,
    compare_command,
    compress_command,
    export_command,
    looking_commands,
    sweep_command,
)
from compressor.cli.app import app
from compressor.cli.help_examples import EXAMPLES, epilogue
from compressor.cli.terminal import Terminal
from compressor.errors import CompressorError, UsageError
from compressor.unexpected import explain_unexpected, is_debugging

__all__ = [
    "app",
    "bench_command",
    "compare_command",
    "compress_command",
    "export_command",
    "looking_commands",
    "main",
    "sweep_command",
]

INTERRUPTED = 130

for _name in EXAMPLES.keys() - {""}:
    app[_name].help_epilogue = epilogue(_name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code: 0 done, 1 failure, 2 usage, 130 interrupted.

    Args:
        argv: The arguments, without the program's name; default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with _terminate_like_interrupt(), _quiet():
            app(
                arguments,
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
    except KeyboardInterrupt as interruption:
        stopped = CompressorError(
            "interrupted",
            consequence=str(interruption),
            next_step="give the same command again, or compress resume where a run was kept",
        )
        return _fail(stopped, INTERRUPTED)
    except CycloptsError as error:
        return _fail(_misuse(error), UsageError.exit_code)
    except CompressorError as error:
        return _fail(error, error.exit_code)
    except BaseException as error:  # a model's or a library's code: anything may come
        if _reader_went_away(error):
            return CompressorError.exit_code
        if is_debugging():
            raise
        return _fail(explain_unexpected(error), CompressorError.exit_code)
    return 0


def _reader_went_away(error: BaseException) -> bool:
    """Return whether nobody reads our output any more, as `| head` does.

    If so, standard output is redirected to nowhere, since Python would complain when it empties its
    buffers at the end.
    """
    if isinstance(error, SystemExit):  # so rich says it
        return isinstance(error.__context__, BrokenPipeError)
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _fail(error: CompressorError, code: int) -> int:
    Terminal(Console(stderr=True)).error(error)
    return code


def _misuse(error: CycloptsError) -> UsageError:
    return UsageError(
        " ".join(str(error).split()),
        consequence="nothing was done",
        next_step="compress --help lists the arguments and options",
    )


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt in the block, so that hidden folders are removed."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep libraries' warnings and logs off the terminal in the block, except when debugging."""
    if is_debugging():
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
