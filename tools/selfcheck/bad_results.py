"""Results that are damaged or changed, and plans that don't fit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import compressor
from compressor.run import footprints
from tools.selfcheck.damage import edit, flip, truncate
from tools.selfcheck.refusal import INPUT, OVER, USAGE, BadInput
from tools.tiny import TinyNet, inputs, sequential


@cache
def _whole() -> tempfile.TemporaryDirectory[str]:
    """A result of the honest network, made once in a process."""
    kept = tempfile.TemporaryDirectory()
    usual, footprints.LATENCY_SECONDS = footprints.LATENCY_SECONDS, 0.05
    try:
        compressor.compress(sequential(), inputs(), round_to=1).save(f"{kept.name}/result")
        other = compressor.compress(TinyNet(), inputs(), round_to=1)
    finally:
        footprints.LATENCY_SECONDS = usual
    Path(kept.name, "other.json").write_text(other.plan.to_json(), encoding="utf-8")
    return kept


def write_result(folder: Path) -> Path:
    """`result` in a folder: what `compress` makes of the honest network."""
    return Path(shutil.copytree(Path(_whole().name, "result"), folder / "result"))


def _with(name: str, change: Callable[..., object], *given: Any) -> Callable[[Path], object]:
    return lambda folder: change(write_result(folder) / name, *given)


def _by_hand(name: str, change: Callable[..., object], *given: Any) -> Callable[[Path], object]:
    """The same where nothing says what the file was."""

    def make(folder: Path) -> None:
        _with(name, change, *given)(folder)
        if name != "report.json":
            edit(folder / "result" / "report.json", lambda report: report.pop("files"))

    return make


def _other_plan(folder: Path) -> None:
    shutil.copyfile(Path(_whole().name, "other.json"), folder / "other.json")


def _first(plan: dict[str, Any]) -> dict[str, Any]:
    group: dict[str, Any] = next(iter(plan["groups"].values()))
    return group


def _text(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


_COMPARE, _BENCH = ("compare", "result"), ("bench", "result")
_PLAN = ("net.pt", *INPUT, "--plan", "result/plan.json", *OVER)
_SAYS = "is not the file that compress wrote"

REPORTS = [
    BadInput("report that is gone", _COMPARE, ("no report",), _with("report.json", Path.unlink)),
    BadInput("report that is about other files", _COMPARE, ("model.onnx", _SAYS),
             _with("report.json", lambda p: edit(p, lambda r: r["files"].update(
                 {"model.onnx": "0"})))),
    BadInput("half of a report", _COMPARE, ("report.json",), _with("report.json", truncate, 0.5)),
    BadInput("report that is no JSON", _COMPARE, ("report.json", "something else"),
             _by_hand("report.json", _text, "hello")),
    BadInput("report of another version", _COMPARE, ("schema",),
             _by_hand("report.json", lambda p: edit(p, lambda r: r.update(schema=99)))),
    BadInput("report without its numbers", _COMPARE, ("lacks", "after"),
             _by_hand("report.json", lambda p: edit(p, lambda r: r.pop("after")))),
    BadInput("report that is a list", _COMPARE, ("report.json",),
             _by_hand("report.json", _text, "[1, 2]")),
    BadInput("report deep in brackets", _COMPARE, ("report.json",),
             _by_hand("report.json", _text, "[" * 100_000)),
]  # fmt: skip
NETWORKS = [
    BadInput("ONNX file that was changed", _BENCH, ("model.onnx", _SAYS),
             _with("model.onnx", flip, 0.6)),
    BadInput("ONNX file that is gone", _BENCH, ("model.onnx", "missing"),
             _with("model.onnx", Path.unlink)),
    BadInput("half of an ONNX file", _BENCH, ("model.onnx",), _with("model.onnx", truncate, 0.5)),
    BadInput("half of an ONNX file by itself", _BENCH, ("model.onnx",),
             _by_hand("model.onnx", truncate, 0.5)),
    BadInput("result with a changed program",
             ("result/model.pt2", *OVER), ("model.pt2",), _with("model.pt2", flip, 0.4)),
    BadInput("result with changed weights",
             ("result/model.safetensors", "--factory", "nets.py:build", *OVER),
             ("model.safetensors", _SAYS), _with("model.safetensors", flip, 0.9)),
    BadInput("result with half of its weights",
             ("result/model.safetensors", "--factory", "nets.py:build", *OVER),
             ("model.safetensors",), _with("model.safetensors", truncate, 0.5)),
    BadInput("result as a model", ("result", *OVER), ("folder",), write_result, USAGE),
]  # fmt: skip
PLANS = [
    BadInput("plan that is not there", ("net.pt", *INPUT, "--plan", "no.json", *OVER),
             ("no.json", "no plan")),
    BadInput("plan of another network", ("net.pt", *INPUT, "--plan", "other.json", *OVER),
             ("another network",), _other_plan),
    BadInput("plan that was changed", _PLAN, ("plan.json", _SAYS),
             _with("plan.json", lambda p: edit(p, lambda r: _first(r)["keep"].pop()))),
    BadInput("plan and a ratio", ("net.pt", *INPUT, "--plan", "p.json", "--ratio", "0.5", *OVER),
             ("--plan has chosen already",), code=USAGE),
    *(
        BadInput(f"plan: {name}", _PLAN, (says,), _by_hand("plan.json", edit, change))
        for name, (change, says) in {
            "no groups": (lambda raw: raw.pop("groups"), "no plan of compress"),
            "of another version": (lambda raw: raw.update(schema=9), "no plan of compress"),
            "something more": (lambda raw: raw.update(more=1), "no plan of compress"),
            "groups are a list": (lambda raw: raw.update(groups=[1]), "does not fit"),
            "an unknown group": (lambda raw: raw["groups"].update(x={"keep": [0]}), "no group x"),
            "no such channel": (lambda raw: _first(raw)["keep"].append(99), "no such channels"),
            "nothing kept": (lambda raw: _first(raw).update(keep=[]), "no such channels"),
            "text for a channel": (lambda raw: _first(raw).update(keep="ab"), "no such channels"),
            "another size": (lambda raw: _first(raw).update(size=9), "sizes or roles"),
            "a channel less": (lambda raw: _first(raw)["keep"].pop(), "not cut as its groups"),
            "a tensor less": (lambda raw: raw["tensors"].popitem(), "not cut as its groups"),
        }.items()
    ),
    BadInput("half of a plan", _PLAN, ("no plan of compress",),
             _by_hand("plan.json", truncate, 0.5)),
]  # fmt: skip

BAD_RESULTS = [*REPORTS, *NETWORKS, *PLANS]
