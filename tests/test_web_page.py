"""report.html: one file that needs no other, for any report; and the schema of report.json."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from test_report import make_report

import compressor
from compressor import report as reports
from compressor.report.charts import distributions
from compressor.report.headline import half_width, headline

VOID = {"meta", "link", "img", "br", "hr", "input"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


class Page(HTMLParser):
    """Checks that every tag is closed in order; keeps the tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def trained(**metrics: float | None) -> dict[str, Any]:
    epochs = [
        {"epoch": n, "loss": 1 / n, "lr": 0.01, "seconds": 1.0, "metric": None} for n in (1, 2, 3)
    ]
    history = {"epochs": epochs, "best_epoch": None}
    return {"step": "3 epochs of fine-tuning", "metrics": metrics, "training": history}


def unmeasured() -> dict[str, Any]:
    report = make_report(evaluated_on="no data was given")
    for state in ("before", "sliced", "after"):
        report[state]["metrics"] = {}
    return {**report, "recovery": [{"step": "sliced", "metrics": {}}]}


def not_finite() -> dict[str, Any]:
    report = make_report(recovery=[trained(top1=float("nan"))])
    report["after"]["metrics"] = {"top1": float("nan")}
    return report


def timed() -> dict[str, Any]:
    report = make_report()
    for moment, factor in (("before", 2.0), ("sliced", 1.0), ("after", 1.0)):
        quantiles = [factor * ms for ms in (0.9, 0.95, 1.0, 1.1, 1.5)]
        report[moment]["latency"][0]["quantiles_ms"] = quantiles
    layer = {"before": 8, "after": 4, "before_ms": 1.5, "after_ms": 0.5}
    return {
        **report,
        "layers": [{"name": "a", **layer}, {"name": "b", **layer}],
        "other_ms": {"before": 0.5, "after": 0.25},
        "speedups": [{"value": 2.0, "low": 1.9, "high": 2.1}],
        "files": {"model.onnx": "ab" * 32},
    }


REPORTS = {
    "timed": timed(),
    "usual": make_report(evaluated_samples=500),
    "trained": make_report(
        recovery=[{"step": "sliced", "metrics": {"top1": 0.4}}, trained(top1=1)]
    ),
    "unmeasured": unmeasured(),
    "not finite": not_finite(),
    "nothing to prune": make_report(groups=[], protected=[]),
    "by layer": make_report(layers=reports.layer_entries({"a": 8, "b.c": 4}, {"a": 2, "b": 1})),
    "random": make_report(model={**make_report()["model"], "weights": "random weights"}),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_the_page_is_whole_and_needs_nothing_else(report: dict[str, Any]) -> None:
    html = reports.to_html(report)
    page = Page(html)
    assert not {"link", "script", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href")]
    assert not re.search(r"https?:|url\(|@import", html)
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", page.text)
    for needed in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem", "viewport"):
        assert needed in html
    assert report["command"] in page.text


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_the_schema_describes_reports(report: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(compressor.report_schema())
    assert not list(validator.iter_errors(json.loads(reports.to_json(report))))


@pytest.mark.parametrize(
    "changes", [{"schema": 2}, {"surprise": 1}, {"seed": "0"}, {"groups": [{"name": "a"}]}]
)
def test_the_schema_refuses_what_is_no_report(changes: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(compressor.report_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            json.loads(reports.to_json(make_report(**changes))), compressor.report_schema()
        )


def test_what_was_not_measured_is_said() -> None:
    assert [line.number for line in headline(unmeasured())][2] == "not measured"
    assert "no data was given" in Page(reports.to_html(unmeasured())).text
    report = make_report()
    report["before"]["latency"] = report["sliced"]["latency"] = report["after"]["latency"] = []
    assert headline(report)[1].number == "not measured"
    assert "Random weights." in reports.to_html(REPORTS["random"])
    assert "Random weights." not in reports.to_html(REPORTS["usual"])


def test_the_headline_has_the_numbers_and_what_they_leave_open() -> None:
    smaller, faster, accuracy = headline(REPORTS["usual"])
    assert (smaller.number, faster.number) == ("-50.0% MACs", "2.00× faster")
    assert "90th percentile 3 → 1.5 ms" in faster.detail
    assert accuracy.number == "-1.50 points"
    assert "90.00% ± 2.64" in accuracy.detail
    assert "±" not in headline(make_report())[2].detail


def test_the_interval_is_wilsons() -> None:
    """Against the textbook's: 95 of 100 lie between 0.8882 and 0.9785."""
    assert 2 * half_width(0.95, 100) == pytest.approx(0.9785 - 0.8882, abs=2e-4)
    assert half_width(1.0, 50) > 0.03


def test_what_is_slower_is_not_called_faster() -> None:
    report = make_report()
    report["after"]["latency"] = [{**report["before"]["latency"][0], "p50_ms": 4.0}]
    assert headline(report)[1].number == "slower (0.50×)"
    report["after"]["latency"] = [{**report["before"]["latency"][0], "p50_ms": 1.98}]
    assert headline(report)[1].number == "as fast (1.01×)"


def test_text_of_a_report_is_no_markup() -> None:
    hostile = "<script>alert(1)</script>"
    report = make_report(
        command=hostile,
        notes=[hostile],
        groups=[{"name": hostile, "role": hostile, "size": 4, "kept": 2, "reason": hostile}],
        protected=[{"reason": hostile, "places": [hostile], "tensors": [hostile]}],
    )
    page = Page(reports.to_html(report))
    assert "script" not in page.tags
    assert page.text.count(hostile) >= 7


def test_reasons_places_and_curves_are_there() -> None:
    report = make_report(
        recovery=[trained(top1=0.9)],
        groups=[{**make_report()["groups"][0], "saves": 0.25, "reason": "scores up to 3 went"}],
        protected=[{"reason": "a model output", "places": ["fc, net.py:7"], "tensors": ["fc:0"]}],
    )
    page = Page(reports.to_html(report))
    for text in ("scores up to 3 went", "25.0%", "a model output", "fc, net.py:7", "8 of 16"):
        assert text in page.text
    assert page.tags.count("polyline") == 2  # loss and learning rate; nothing was validated
    (points, _) = (value for name, value in page.attributes if name == "points")
    assert points and points.split() == ["0.0,0.0", "160.0,105.0", "320.0,140.0"]


def test_a_place_that_is_one_in_one_network_is_one_in_both() -> None:
    before, after = {"a.x": 8, "a.y": 4, "ab": 1}, {"a": 5, "ab": 1}
    assert reports.layer_entries(before, after) == [
        {"name": "a", "before": 12, "after": 5},
        {"name": "ab", "before": 1, "after": 1},
    ]
    (whole,) = reports.layer_entries(before, {"": 6})
    assert whole == {"name": "", "before": 13, "after": 6}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_shows_the_page_without_scrolling_sideways(tmp_path: Path) -> None:
    """At a phone's width, in a frame: a window is never as narrow as that."""
    assert CHROMIUM is not None
    (tmp_path / "report.html").write_text(reports.to_html(REPORTS["trained"]))
    (tmp_path / "frame.html").write_text(
        "<iframe src='report.html' style='width:390px;height:800px'></iframe><p></p><script>"
        "onload = () => { const page = frames[0].document.documentElement;"
        "const widths = page.clientWidth + ' of ' + page.scrollWidth;"
        "document.querySelector('p').textContent = widths; }</script>"
    )
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files")
    shown = subprocess.run(
        [
            *(CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    visible, whole = re.findall(r"<p>(\d+) of (\d+)</p>", shown.stdout)[0]
    assert 300 < int(visible) == int(whole)


def test_how_long_calls_took_is_drawn_where_it_is_known() -> None:
    (drawn,) = distributions(timed())
    assert (drawn.most_ms, drawn.title) == (3.0, "onnxruntime, 1 thread")
    assert [box.places[2] for box in drawn.boxes] == [213.3, 106.7]
    assert not distributions(make_report())
    assert "how long calls took" in reports.to_html(timed())
    assert "how long calls took" not in reports.to_html(make_report())


def test_the_headline_has_the_interval_of_the_speed_up() -> None:
    faster = headline(timed())[1]
    assert faster.number == "2.00× faster"
    assert "95 % interval 1.90 to 2.10" in faster.detail
