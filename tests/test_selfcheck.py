"""The self-check's parts in small: twice the same, killed, damaged; the file and the page."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.errors import CompressorError
from compressor.files.claimed import END, MARK, new_file, new_folder, temporary_folder
from compressor.loading.archives import require_whole
from tools.selfcheck import determinism, fuzzing
from tools.selfcheck.checks import Check, made, wanted
from tools.selfcheck.kills import SCENARIOS, Place, deaths, killed, unharmed
from tools.selfcheck.launching import Death
from tools.selfcheck.refusal import unclear
from tools.selfcheck.table import to_markdown


@pytest.mark.slow
def test_the_same_command_writes_the_same_bytes() -> None:
    assert determinism.differences(determinism.COMMANDS["tiny, random channels"]) == []


@pytest.mark.slow
def test_a_run_that_fails_is_no_equal_run() -> None:
    assert "it fails" in determinism.differences(("nowhere.pt",))[0]


# -- kills -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "name",
    ["fine-tuning", *(pytest.param(n, marks=pytest.mark.slow) for n in ("compress", "sweep"))],
)
def test_a_killed_run_leaves_nothing_half_written_and_goes_on(name: str) -> None:
    whole = unharmed(SCENARIOS[name])
    at_the_end = Death(change=whole.changes - random.Random(name).randrange(2, 12))
    for death in (*deaths(whole, 1, seed=1), at_the_end):
        found = killed(SCENARIOS[name], whole, death)
        assert found["problems"] == [], death
    assert found["killed"]


def test_what_a_kill_leaves_is_seen(tmp_path: Path) -> None:
    folder = Place(tmp_path, SCENARIOS["compress"])
    (folder.folder / "out").mkdir()
    (folder.folder / "out" / "model.onnx").write_bytes(b"half")
    (folder.folder / "scratch").touch()
    assert folder.added() == ["out", "scratch"]
    assert folder.result() == {"model.onnx": b"half"}


def test_a_claimed_folder_is_removed_when_nobody_holds_it(tmp_path: Path) -> None:
    abandoned = tmp_path / f".out.{MARK}12345678{END}"
    abandoned.mkdir()
    own = tmp_path / f".out.{MARK}results"  # of a user who likes the name
    own.mkdir()
    (abandoned / "file").touch()
    (tmp_path / ".out.mine").mkdir()
    with temporary_folder(tmp_path, ".out.") as held:
        assert not abandoned.exists()
        assert own.exists()
        with temporary_folder(tmp_path, ".out.") as other:
            assert held.exists() and other.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [own.name, ".out.mine"]


def test_a_claimed_file_that_was_renamed_stays(tmp_path: Path) -> None:
    path, remove = new_file(tmp_path, ".a.")
    path.rename(tmp_path / "a")
    remove()
    assert (tmp_path / "a").exists()


def test_a_claimed_file_has_the_rights_of_any_file(tmp_path: Path) -> None:
    path, _ = new_file(tmp_path, ".a.")
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_is_released_once(tmp_path: Path) -> None:
    path, remove = new_folder(tmp_path)
    remove()
    assert not path.exists()


# -- damage ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", fuzzing.TARGETS)
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(rng=st.randoms(use_true_random=False))
def test_a_damaged_file_is_refused_or_makes_no_odds(name: str, rng: random.Random) -> None:
    assert fuzzing.problem(fuzzing.TARGETS[name], rng) == ""


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    usual = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    finally:
        torch.serialization.set_crc32_options(usual)
    require_whole(tmp_path / "net.pt")


def test_an_entry_that_torch_would_not_read_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        entry = zipfile.ZipInfo("net/data/0")
        entry.external_attr = 0x10
        archive.writestr(entry, b"12345678")
    with pytest.raises(CompressorError, match="net/data/0"):
        require_whole(tmp_path / "net.pt")


# -- refusals, the file and the page -----------------------------------------------------------

CLEAR = "error: no\n  where: here\n  consequence: nothing\n  next: yes\n"


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ("", "it is not one error"),
        (CLEAR + "Traceback (most recent call last)", "a traceback"),
        (CLEAR.replace("  next: yes\n", ""), "next: "),
        (CLEAR + "COMPRESSOR_DEBUG", "by surprise"),
        (CLEAR, "it does not say 'there'"),
    ],
)
def test_an_unclear_message_is_seen(said: str, lacks: str) -> None:
    assert any(lacks in problem for problem in unclear(said, ("there",)))
    assert unclear(CLEAR, ("here",)) == []


def test_checks_are_made_and_shown() -> None:
    checks = wanted(("refusals", "kills"), kills=8, damages=0)
    assert [c.name for c in checks].count("compress") == 2
    check = next(c for c in checks if c.name == "options: --ratio=0")
    found = made(check)
    assert found["problems"] == []
    records = [
        {"trial": vars(c), "where": WHERE, "took_s": 1.0, "killed": True, "problems": [], **more}
        for c, more in (
            (check, {"killed": False}),
            (Check("kills", "fine-tuning", 0), {"epoch": 3}),
            (Check("kills", "fine-tuning", 1), {"problems": ["half a result"]}),
        )
    ]
    del records[0]["killed"]
    page = to_markdown(records)
    assert "| options | 1 | 1 | 0 |  |" in page
    assert "| fine-tuning | 2 | 1 | 1 | 2 were killed before they ended, 1 of them after" in page
    assert "- fine-tuning 1: half a result" in page


WHERE = {"device": "x", "cores": 2, "torch": "2", "onnxruntime": "1", "date": "today"}
