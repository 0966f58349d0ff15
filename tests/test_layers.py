"""The layers of the code: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import compressor

ROOT = Path(compressor.__file__).parent
FILES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}

STAGES = {
    *("loading", "data", "trace", "graph", "score", "selection", "slicing"),
    *("reconstruction", "recover", "export", "measure", "report", "latency"),
}
SHARED = {
    "errors",
    "records",
    "axes",
    "rules",
    "network",
    "plain",
    "programs",
    "callables",
    "calls",
    "causes",
    "modules",
    "files",
    "processes",
    "sessions",
    "torch_calls",
    "agreement",
    "free_memory",
    "source_lines",
}

WITHOUT_TORCH = ["errors", "records", "axes", *(name for name in FILES if name.startswith("rules"))]


def unit(name: str) -> str:
    return name.split(".")[0]


@cache
def imported(name: str) -> set[str]:
    """The units of this package that a file imports, at the top or within functions."""
    return {unit(found.partition(".")[2]) for found in _modules(name) if _is_ours(found)} - {""}


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == "compressor"


def _modules(name: str) -> Iterator[str]:
    for node in ast.walk(_without_type_checking(ast.parse(FILES[name].read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            if node.module == "compressor":
                yield from (f"compressor.{alias.name}" for alias in node.names)


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CH" in ast.dump(n))]
    return tree


def importers(of: str) -> set[str]:
    return {unit(name) for name in FILES if of in imported(name)} - {of}


def test_the_layers_are_those_of_the_code() -> None:
    assert {unit(name) for name in FILES} >= STAGES | SHARED


@pytest.mark.parametrize("name", [name for name in FILES if unit(name) in STAGES])
def test_a_stage_imports_no_other_stage(name: str) -> None:
    assert imported(name) <= SHARED | {unit(name)}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("errors", set()),
        ("axes", set()),
        ("records", {"errors"}),
        ("network", {"axes", "records"}),
        ("callables", {"errors"}),
        ("calls", set()),
        ("causes", {"errors"}),
        ("modules", {"causes", "errors"}),
        ("sessions", {"errors"}),
        ("free_memory", set()),
        ("torch_calls", {"errors"}),
        ("source_lines", set()),
        *((name, {"agreement", "records"}) for name in FILES if unit(name) == "agreement"),
        ("programs.redraw", set()),
        ("programs.beginning", set()),
        ("programs.lifting", {"errors"}),
        ("files.claimed", set()),
        ("files.hashes", set()),
        ("files.whole_file", {"files", "errors"}),
        ("planning.curves", {"errors", "records"}),
        ("trace.regions", {"errors"}),
        ("graph.groups", {"axes", "network", "records", "rules"}),
        *((name, {"plain", "errors"}) for name in FILES if unit(name) == "plain"),
        *(
            (name, {"programs", "errors", "source_lines"})
            for name in FILES
            if unit(name) == "programs"
        ),
        *((name, {"files", "errors"}) for name in FILES if unit(name) == "files"),
    ],
)
def test_what_all_share_leans_on_less(name: str, allowed: set[str]) -> None:
    assert imported(name) <= allowed


@pytest.mark.parametrize("name", [name for name in FILES if unit(name) == "rules"])
def test_rules_know_the_algebra_alone(name: str) -> None:
    assert imported(name) <= {"rules", "axes", "errors"}


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_the_algebra_and_the_rules_do_without_torch(name: str) -> None:
    assert "torch" not in {module.split(".")[0] for module in _modules(name)}


def test_imports_run_one_way() -> None:
    """From package to package too; what hands the tool to the outside stands above all."""
    units = {unit(name) for name in FILES} - {"__init__", "__main__"}
    leans = {of: units & {u for n in FILES if unit(n) == of for u in imported(n)} for of in units}
    order = TopologicalSorter({of: others - {of} for of, others in leans.items()}).static_order()
    assert set(order) == units  # a cycle raises


def test_only_the_ends_know_the_order() -> None:
    assert importers("cli") <= {"__main__"}
    assert importers("pipeline") <= {"cli", "__init__", "sweep"}
    assert importers("sweep") <= {"cli"}


def test_the_command_line_answers_without_torch() -> None:
    """At import time; `compress --help` takes no longer than Python itself."""
    lines = "import sys, compressor.cli, compressor.errors, compressor.records"
    code = f"{lines}; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, check=False).returncode == 0
    )
