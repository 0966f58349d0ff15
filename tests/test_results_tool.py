"""One command for all studies: what it would run, and what it says of failures."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

from tools.results import __main__ as results
from tools.results.studies import STUDIES


def test_every_command_names_a_tool_that_is_there() -> None:
    for study in STUDIES:
        for command in study.commands:
            assert importlib.util.find_spec(command[0]) is not None, command
        assert study.pages


def test_a_list_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it ran"))
    assert results.run(list_=True) == 0
    shown = capsys.readouterr().out
    assert all(study.name in shown for study in STUDIES)


def test_unknown_studies_and_a_missing_folder_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results.run(only=("nonsense",)) == 2
    assert "there is no study nonsense" in capsys.readouterr().err
    assert results.run(only=("latency",)) == 2
    assert "--data-root" in capsys.readouterr().err


def test_commands_run_one_after_the_other_and_failures_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran: list[list[str]] = []

    def run(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        ran.append(words[2:])
        return subprocess.CompletedProcess(words, 1 if "table" in words else 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert results.run(data_root=tmp_path, only=("latency",)) == 1
    assert [words[0] for words in ran] == ["tools.latency", "tools.latency"]
    assert ran[0][1:3] == ["--data-root", str(tmp_path)]
    assert "not well: latency" in capsys.readouterr().err
