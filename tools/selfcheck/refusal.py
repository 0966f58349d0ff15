"""A bad input: what lies there, what is typed, and what the answer must say."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from compressor.cli import main
from tools.tiny import SIDE, write_model, write_samples

FAILURE, USAGE = 1, 2
INPUT = ("--input", f"1x3x{SIDE}x{SIDE}")
OVER = ("--out", "out", "--force")
"""Over the earlier result that lies there."""

Snapshot = dict[str, str]
Run = Callable[[Sequence[str]], tuple[int, str, str]]
"""Types a command in the current folder: its exit code, standard output and error output."""


def _nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True)
class BadInput:
    """`make` writes files beside an honest `net.pt`, `data.npz` and the earlier result `out`."""

    name: str
    arguments: tuple[str, ...]
    says: tuple[str, ...]
    make: Callable[[Path], object] = _nothing
    code: int = FAILURE
    largest_file: int | None = None
    """A disk that is full: no file can be larger, in bytes."""
    is_odd: bool = False
    """It may be done as well as refused, as long as it is whole or clear."""


def problems_of(case: BadInput, folder: Path, run: Run) -> list[str]:
    """What is wrong with how the command answers to it in an empty folder."""
    write_model(folder / "net.pt")
    write_samples(folder / "data.npz")
    (folder / "out").mkdir()
    (folder / "out" / "plan.json").write_text("earlier", encoding="utf-8")
    case.make(folder)
    before = snapshot(folder)
    with _full_beyond(case.largest_file):
        code, shown, said = run(case.arguments)
    after = snapshot(folder)
    if case.is_odd and code == 0:
        return _incomplete(shown + said, before, after)
    is_known = code == case.code or (case.is_odd and code in (FAILURE, USAGE))
    found = [] if is_known else [f"exit status {code}, and not {case.code}"]
    if "written to" in shown:
        found.append("it says that something was written")
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [*found, *unclear(said, case.says), *(f"changed: {name}" for name in changed)]


def _incomplete(said: str, before: Snapshot, after: Snapshot) -> list[str]:
    """What is wrong with a run that ended well: half a result, or files elsewhere."""
    found = ["a traceback"] if "Traceback" in said else []
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    results = {name.partition("/")[0] for name in changed}
    if results - {"out", "new"}:
        found.append(f"changed: {sorted(results)}")
    whole = "report.json" in {name.partition("/")[2] for name in after}
    return found if whole or not results & {"out"} else [*found, "it is half a result"]


@contextmanager
def _full_beyond(size: int | None) -> Iterator[None]:
    if size is None:
        yield
        return
    import resource

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def typed(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run the command in this process."""
    shown, said = io.StringIO(), io.StringIO()
    with redirect_stdout(shown), redirect_stderr(said):
        code = main(list(arguments))
    return code, shown.getvalue(), said.getvalue()


def unclear(said: str, wanted: Sequence[str] = ()) -> list[str]:
    """What an error message lacks: one error with a consequence and a next step, no traceback."""
    error = said[said.index("error: ") :] if "error: " in said else ""
    found = [f"it does not say {text!r}" for text in wanted if text not in error]
    if error.count("error: ") != 1:
        found.append("it is not one error")
    if "Traceback" in said:
        found.append("a traceback")
    if "COMPRESSOR_DEBUG" in error:
        found.append("it is taken by surprise")
    found += [f"no {part!r}" for part in ("consequence: ", "next: ") if part not in error]
    return [f"{problem}: {said[-600:]}" for problem in found]


def snapshot(folder: Path) -> Snapshot:
    """What lies in a folder, at any depth; Python's own caches don't count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if "__pycache__" not in path.parts:
            name = str(path.relative_to(folder))
            is_file = path.is_file() and os.access(path, os.R_OK)
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else ""
    return found
