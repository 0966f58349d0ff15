"""Which checks there are, and how each is made."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from compressor.run import footprints
from tools.jsonl import key_of
from tools.selfcheck import determinism, fuzzing
from tools.selfcheck.bad_inputs import CASES
from tools.selfcheck.kills import SCENARIOS, Whole, deaths, killed, unharmed
from tools.selfcheck.launching import LATENCY_SECONDS, Death
from tools.selfcheck.refusal import problems_of, typed

SEED = 0
PART = 100
"""So many damaged files are one check."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One line of the file.

    Attributes:
        kind: determinism, kills, changes, refusals or fuzz.
        name: A key of the kind's table.
        number: Which of several of that name.
    """

    kind: str
    name: str
    number: int = 0

    @property
    def key(self) -> str:
        return key_of(self)

    def __str__(self) -> str:
        return " ".join(str(part) for part in asdict(self).values())


def wanted(only: tuple[str, ...], kills: int, damages: int) -> list[Check]:
    """All checks of these kinds; kills are shared out among the scenarios."""
    each = -(-kills // len(SCENARIOS))
    kinds: Mapping[str, Callable[[], Iterator[Check]]] = {
        "determinism": lambda: (Check("determinism", name) for name in determinism.COMMANDS),
        "refusals": lambda: (Check("refusals", name) for name in CASES),
        "fuzz": lambda: (
            Check("fuzz", name, n) for name in fuzzing.TARGETS for n in range(damages // PART)
        ),
        "kills": lambda: (Check("kills", name, n) for name in SCENARIOS for n in range(each)),
        "changes": lambda: (
            Check("changes", name, n) for name in SCENARIOS for n in range(_whole(name).changes)
        ),
    }
    return [check for kind, found in kinds.items() if not only or kind in only for check in found()]


def made(check: Check) -> Record:
    """What the check found: `problems`, none if all is well."""
    begin = time.perf_counter()
    found = KINDS[check.kind](check)
    return {**found, "took_s": round(time.perf_counter() - begin, 2)}


@cache
def _whole(name: str) -> Whole:
    return unharmed(SCENARIOS[name])


def _determinism(check: Check) -> Record:
    return {"problems": determinism.differences(determinism.COMMANDS[check.name])}


def _refusal(check: Check) -> Record:
    footprints.LATENCY_SECONDS = LATENCY_SECONDS
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="selfcheck-") as folder:
        os.chdir(folder)
        try:
            return {"problems": problems_of(CASES[check.name], Path(folder), typed)}
        finally:
            os.chdir(here)


def _fuzz(check: Check) -> Record:
    target = fuzzing.TARGETS[check.name]
    seeds = range(check.number * PART, (check.number + 1) * PART)
    found = ((seed, fuzzing.problem(target, Random(seed))) for seed in seeds)
    return {"problems": [f"seed {seed}: {problem}" for seed, problem in found if problem]}


def _kill(check: Check) -> Record:
    whole = _whole(check.name)
    death = deaths(whole, check.number + 1, SEED)[-1]
    return {"at": str(death), **killed(SCENARIOS[check.name], whole, death)}


def _change(check: Check) -> Record:
    death = Death(change=check.number)
    return {"at": str(death), **killed(SCENARIOS[check.name], _whole(check.name), death)}


KINDS: Mapping[str, Callable[[Check], Record]] = {
    "determinism": _determinism,
    "refusals": _refusal,
    "fuzz": _fuzz,
    "kills": _kill,
    "changes": _change,
}
