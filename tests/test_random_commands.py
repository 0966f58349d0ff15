"""Random networks and options through the command: it does what is asked, or refuses clearly.

`pytest -m slow` tries two hundred; COMPRESSOR_COMMANDS=FIRST:LAST tries those seeds.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from random_commands import write_command

from tools.selfcheck.refusal import snapshot, typed, unclear

FIRST, LAST = map(int, os.environ.get("COMPRESSOR_COMMANDS", "12:200").split(":"))


def problems_of(seed: int, folder: Path) -> list[str]:
    """What is wrong with how the command ends."""
    words = write_command(seed, folder)
    before = snapshot(folder)
    code, shown, said = typed(words)
    added = snapshot(folder).keys() - before.keys()
    if code == 0:
        whole = {"out/report.json", "out/plan.json", "out/model.safetensors"}
        lacks = whole - added if "--out" in words else set()
        found = [f"it lacks {lacks}"] if lacks else []
    else:
        found = [*unclear(said), *(f"left behind: {name}" for name in sorted(added))]
    found += ["a traceback"] if "Traceback" in shown + said else []
    return [f"{' '.join(words)}: {problem}" for problem in found]


@pytest.mark.parametrize("seed", range(12))
def test_a_random_command(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems_of(seed, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, LAST))
def test_many_random_commands(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems_of(seed, tmp_path) == []
