"""`compress compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_report import make_report

from compressor.cli import main
from compressor.report import to_json
from compressor.studies import compare


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def write(name: str, **changes: Any) -> Path:
    folder = Path(name)
    folder.mkdir()
    (folder / "report.json").write_text(to_json(make_report(**changes)))
    return folder


def better(top1: float | None = 0.895) -> dict[str, Any]:
    after = make_report()["after"]
    return {**after, "macs": 3_000_000, "metrics": {"top1": top1}}


def bold_of(*folders: Path) -> list[str]:
    """The cells in bold, row by row."""
    table = compare.table([compare.read_result(folder) for folder in folders])
    cells = [list(column.cells) for column in table.columns[1:]]
    return [str(c).split("\n")[0] for row in zip(*cells, strict=True) for c in row if c.style]


def test_results_stand_beside_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    write("a"), write("b", after=better())
    assert main(["compare", "a", "b"]) == 0
    shown = capsys.readouterr()
    for text in ("4.00 M", "-50.0%", "3.00 M", "-62.5%", "88.50%", "-1.50 points", "1 thread"):
        assert text in shown.out
    assert not shown.err


def test_the_best_of_each_column_is_bold() -> None:
    a, b = write("a"), write("b", after=better())
    shared = ["60.0 k", "240.00 kB", "1 ms"]
    assert bold_of(a, b) == [*shared, "3.00 M", *shared, "89.50%"]


def test_a_metric_that_is_missing_is_shown_as_missing(capsys: pytest.CaptureFixture[str]) -> None:
    write("a"), write("b", after=better(None))
    assert main(["compare", "a", "b"]) == 0
    shown = capsys.readouterr()
    assert "–" in shown.out and "None" not in shown.out
    assert "no metric was measured: b" in shown.err


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"model": {**make_report()["model"], "sha256": "cd" * 32}}, "different originals"),
        ({"model": {**make_report()["model"], "name": "other"}}, "different originals"),
        ({"evaluated_on": "other data"}, "metrics are on different data"),
    ],
)
def test_what_does_not_compare_is_said(
    changes: dict[str, Any], note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a"), write("b", **changes)
    assert main(["compare", "a", "b"]) == 0
    assert note in capsys.readouterr().err


def damaged(text: str) -> None:
    write("b")
    Path("b/report.json").write_text(text)


WHOLE = to_json(make_report())
DAMAGED = {
    "cut off": WHOLE[:500],
    "empty": "",
    "a list": "[]",
    "another version": WHOLE.replace('"schema": 1', '"schema": 9'),
    "lacks a state": json.dumps({**make_report(), "after": {}}),
    "words for numbers": json.dumps({**make_report(), "after": {**better(), "macs": "many"}}),
    "a word for the model": json.dumps({**make_report(), "model": "net"}),
    "no metrics": json.dumps({**make_report(), "before": {**better(), "metrics": None}}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_report_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("a"), damaged(text)
    assert main(["compare", "a", "b", "--out", "all.svg"]) == 1
    shown = capsys.readouterr()
    assert "where: b/report.json" in shown.err and "nothing was compared" in shown.err
    assert not shown.out and not Path("all.svg").exists()


def test_a_folder_without_a_report_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["compare", "empty"]) == 2
    assert (
        "takes a folder that compress has written, and this is another folder"
        in capsys.readouterr().err
    )


def test_nothing_to_compare_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 2
    assert "nothing to compare" in capsys.readouterr().err


def test_the_picture_is_the_same_for_the_same_results() -> None:
    write("a_$x"), write("b", after=better())
    for name in ("one.svg", "two.svg"):
        assert main(["compare", "a_$x", "b", "--out", name]) == 0
    assert Path("one.svg").read_bytes() == Path("two.svg").read_bytes()
    assert Path("one.svg").read_text().startswith("<?xml")
    assert sorted(p.name for p in Path().iterdir()) == ["a_$x", "b", "one.svg", "two.svg"]


@pytest.mark.parametrize(("out", "word"), [("a", ".svg"), ("all.png", ".svg"), ("d.svg", "folder")])
def test_a_picture_of_another_kind_is_refused(
    out: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a"), Path("d.svg").mkdir()
    assert main(["compare", "a", "--out", out]) == 2
    assert word in capsys.readouterr().err


def test_an_earlier_picture_needs_force(capsys: pytest.CaptureFixture[str]) -> None:
    write("a"), Path("all.svg").write_text("mine")
    assert main(["compare", "a", "--out", "all.svg"]) == 2
    assert "--force" in capsys.readouterr().err
    assert Path("all.svg").read_text() == "mine"
    assert main(["compare", "a", "--out", "all.svg", "--force"]) == 0
    assert Path("all.svg").read_text() != "mine"


def test_without_a_metric_there_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    write("a", after=better(None))
    assert main(["compare", "a", "--out", "all.svg"]) == 1
    assert "no result has a metric" in capsys.readouterr().err
    assert not Path("all.svg").exists()
