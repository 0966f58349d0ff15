"""The command killed at any moment: what is there is whole, and going on ends as if it had not
been killed."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compressor.errors import CompressorError
from compressor.files.claimed import MARK
from compressor.run.journal import home_of
from tools.selfcheck.contents import Contents, of_result, of_sweep, trials_of
from tools.selfcheck.launching import Death, Ended, launch
from tools.selfcheck.refusal import INPUT
from tools.tiny import write_model, write_samples

OUT = "out"
_NET = ("net.pt", *INPUT, "--round-to", "1")
_TUNED = (
    *("--data", "data.npz", "--test", "data.npz", "--epochs", "12", "--batch-size", "8"),
    *("--seed", "3"),
)
_SWEEP = (
    *("sweep", "net.pt", *INPUT, "--data", "data.npz", "--test", "data.npz"),
    *("--ratios", "0.2,0.4", "--criteria", "l2", "--seeds", "1", "--recoveries", "none"),
)


@dataclass(frozen=True)
class Scenario:
    """A command, and how one goes on after it was killed. `over`: a command that has written an
    earlier result, which is there until the new one is. `grows`: its folder is there from the
    beginning, and each trial in it once it is whole."""

    command: tuple[str, ...]
    again: tuple[str, ...]
    over: tuple[str, ...] = ()
    trains: bool = False
    grows: bool = False

    def contents(self, folder: Path) -> Contents:
        """What of it must be the same every time."""
        return (of_sweep if self.grows else of_result)(folder)


SCENARIOS = {
    "compress": Scenario((*_NET, "--out", OUT), (*_NET, "--out", OUT)),
    "compress --force": Scenario(
        (*_NET, "--out", OUT, "--force"),
        (*_NET, "--out", OUT, "--force"),
        over=(*_NET, "--ratio", "0.3", "--out", OUT),
    ),
    "fine-tuning": Scenario((*_NET, *_TUNED, "--out", OUT), ("resume", OUT), trains=True),
    "steps": Scenario(
        (*_NET, *_TUNED, "--steps", "2", "--step-epochs", "6", "--out", OUT),
        ("resume", OUT),
        trains=True,
    ),
    "sweep": Scenario((*_SWEEP, "--out", OUT), (*_SWEEP, "--out", OUT), grows=True),
}
"""What is killed. A further command is an entry here: what it writes is `OUT`."""


@dataclass(frozen=True)
class Whole:
    """What a run that nobody kills gives, in how many seconds and changes of files; `earlier` is
    what it replaces."""

    result: Contents
    seconds: float
    changes: int
    earlier: Contents | None


def unharmed(scenario: Scenario) -> Whole:
    """The scenario without a kill; a first run of anything is slower."""
    with _place(scenario) as place:
        place.run(("--version",))
        earlier = place.result() if scenario.over else None
        ended = place.run(scenario.command)
        if ended.code:
            raise CompressorError(f"the run fails by itself: {ended.said[-2000:]}")
        return Whole(place.result(), ended.seconds, ended.changes, earlier)


def deaths(whole: Whole, count: int, seed: int) -> list[Death]:
    """At random moments of the run, uniformly."""
    rng = random.Random(seed)
    return [Death(seconds=rng.uniform(0, whole.seconds)) for _ in range(count)]


def killed(scenario: Scenario, whole: Whole, death: Death) -> dict[str, Any]:
    """Kill once, look, go on, look again."""
    with _place(scenario) as place:
        ended = place.run(scenario.command, death)
        problems = [*_after_the_kill(place, whole)] if ended.was_killed else []
        reached, trials = place.reached(), trials_of(place.folder / OUT)
        if not ended.was_killed and ended.code:
            problems.append(f"it failed by itself: {ended.said[-500:]}")
        problems += _going_on(place, scenario, reached)
        again = trials_of(place.folder / OUT)
        lost = [name for name, seconds in trials.items() if again.get(name) != seconds]
        problems += [f"a trial is lost: {name}" for name in lost]
        problems += [f"after going on: {problem}" for problem in _at_the_end(place, whole)]
        if place.abandoned():
            later = scenario.again if scenario.grows else (*_NET, "--out", OUT, "--force")
            place.run(later)
            problems += [f"left after a later run: {name}" for name in place.abandoned()]
    if scenario.grows:
        reached = {"trials": len(trials)}
    return {"killed": ended.was_killed, "seconds": ended.seconds, **reached, "problems": problems}


def _after_the_kill(place: Place, whole: Whole) -> Iterator[str]:
    if (place.folder / OUT).exists():
        known = [whole.result, *([whole.earlier] if whole.earlier else [])]
        found = place.result()
        grows = place.scenario.grows
        if not any(found.items() <= each.items() if grows else found == each for each in known):
            yield f"half a result: {sorted(found)}"
    ours = {OUT, home_of(Path(OUT)).name}
    for name in place.added():
        if name not in ours and not name.startswith(f".{OUT}.{MARK}"):
            yield f"left behind: {name}"


def _going_on(place: Place, scenario: Scenario, reached: dict[str, Any]) -> Iterator[str]:
    is_unfinished = home_of(place.folder / OUT).is_dir()
    is_there = (place.folder / OUT).exists() and not scenario.grows
    if is_there and not is_unfinished and not scenario.over:
        return  # it had finished
    again = place.run(scenario.again)
    if again.code and scenario.trains and "no unfinished run" in again.said:
        again = place.run(scenario.command)  # nothing had begun
    if again.code:
        yield f"going on fails: {again.said[-800:]}"
    epoch = reached.get("epoch")
    if epoch is not None and f"training goes on after epoch {epoch}" not in again.said:
        yield f"epochs are lost: {epoch} were reached"


def _at_the_end(place: Place, whole: Whole) -> Iterator[str]:
    found = place.result() if (place.folder / OUT).exists() else {}
    if found != whole.result:
        names = sorted(found.keys() | whole.result.keys())
        changed = [name for name in names if found.get(name) != whole.result.get(name)]
        yield f"another result: {changed}"
    for name in place.added():
        if name != OUT and MARK not in name:
            yield f"left behind: {name}"


class Place:
    """A folder with what the scenarios need, one for temporary files, and what was added."""

    def __init__(self, home: Path, scenario: Scenario) -> None:
        self.scenario = scenario
        self.folder, self.temporary = home / "work", home / "temporary"
        self.folder.mkdir()
        self.temporary.mkdir()
        write_model(self.folder / "net.pt")
        write_samples(self.folder / "data.npz", 96)

    def run(self, arguments: tuple[str, ...], death: Death | None = None) -> Ended:
        return launch(arguments, self.folder, self.temporary, death)

    def added(self) -> list[str]:
        known = {"net.pt", "data.npz", "__pycache__"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in known)

    def abandoned(self) -> list[str]:
        """What a killed process held, which the next one of that name removes."""
        places = (self.folder, self.temporary)
        return sorted(p.name for place in places for p in place.iterdir() if MARK in p.name)

    def result(self) -> Contents:
        """What must be the same of what was written."""
        return self.scenario.contents(self.folder / OUT)

    def reached(self) -> dict[str, Any]:
        """What a resumed run begins with: the epoch of the training at the end."""
        record = home_of(self.folder / OUT) / "training.pt"
        if not record.exists() or (self.folder / OUT).exists():
            return {}
        return {"epoch": torch.load(record, weights_only=True)["epoch"]}


@contextmanager
def _place(scenario: Scenario) -> Iterator[Place]:
    home = Path(tempfile.mkdtemp(prefix="selfcheck-"))
    try:
        place = Place(home, scenario)
        if scenario.over:
            earlier = place.run(scenario.over)
            assert earlier.code == 0, earlier.said
        yield place
    finally:
        shutil.rmtree(home, ignore_errors=True)
