"""What one model calls that has no rule, found in a process that forks from one which has the
libraries imported."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from compressor.graph.analysis import analyse
from compressor.graph.rules import RULES, Rule
from compressor.graph.rules.reasons import no_rule
from compressor.graph.trace import trace
from tools.zoo.failing import describe
from tools.zoo.members import Settings, Subject
from tools.zoo.passing import Record
from tools.zoo.runner import Job, Limits, circumstances, limit_memory, note
from tools.zoo.zoos import ZOOS

PRELOADED = ("tools.operators.collecting", "timm", "torchvision", "transformers")


@dataclass(frozen=True)
class Unruled:
    """An operator without a rule in one model: how often it is called, and how many of the
    parameters' dimensions stay because of it, with how many positions in all. Where several
    operators ask for the same dimension, the first one has it."""

    calls: int
    dimensions: int
    positions: int


class _Asked(Mapping[str, Rule]):
    """A table of rules that counts what is looked for in vain."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules, self.missed = rules, Counter[str]()

    def __getitem__(self, operator: str) -> Rule:
        if operator not in self.rules:
            self.missed[operator] += 1
        return self.rules[operator]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)


def unruled(subject: Subject, rules: Mapping[str, Rule] = RULES) -> dict[str, Unruled]:
    """Operator -> what its want of a rule costs in this network.

    Raises:
        CompressorError: the network cannot be traced or analysed.
    """
    asked = _Asked(rules)
    network = analyse(trace(subject.module, subject.examples), asked)
    found = {}
    for operator, calls in asked.missed.items():
        kept = [p for p in network.protections if p.reason == no_rule(operator)]
        dimensions = sum(len(p.tensors) for p in kept)
        positions = sum(p.size * len(p.tensors) for p in kept)
        found[operator] = Unruled(calls, dimensions, positions)
    return found


def run_forked(job: Job, cache_folder: Path, limits: Limits) -> Record:
    """A member in a process of its own; whatever happens to it, there is a record."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "record.json"
        process = _context().Process(
            target=_member, args=(job.zoo, job.name, cache_folder, notes, limits)
        )
        process.start()
        process.join(limits.seconds)
        fate = f"ended with {process.exitcode}"
        if process.is_alive():
            process.kill()
            process.join()
            fate = f"took longer than {limits.seconds} s"
        found = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    if not found:
        error = {"kind": "Ended", "first_line": fate, "where": ""}
        found = {"status": "failed", "error": error}
    spent = round(time.perf_counter() - begin, 1)
    return {"zoo": job.zoo, "name": job.name, **found, "seconds": spent, **circumstances()}


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _member(zoo: str, name: str, cache_folder: Path, notes: Path, limits: Limits) -> None:
    limit_memory(limits.memory_gb)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        subject = ZOOS[zoo].build(name, Settings(cache_folder))
        found = {operator: asdict(cost) for operator, cost in unruled(subject).items()}
    except Exception as error:  # whatever a library raises for a network of its own
        note(notes, {"status": "failed", "error": describe(error)})
    else:
        note(notes, {"status": "ran", "operators": found})
