"""The rooms of the code: imports run down one order, read from the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import compressor

ROOT = Path(compressor.__file__).parent
FILES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in ROOT.rglob("*.py")
    if "templates" not in p.parts
}

BASE = (
    *("errors", "extras", "causes", "records", "calls", "clock", "source_lines", "unexpected"),
    *("quiet", "memory_pages", "watch", "on_demand", "modules", "processes", "listing", "machine"),
    *("files", "python_path", "runtimes"),
    *("torch_calls", "hosts", "agreement", "padding", "metrics", "double_precision"),
)
"""What all lean on, in its own order."""

ROOMS = (
    *("options", "graph", "least_squares", "recover", "loading", "score", "slicing"),
    *("choose", "report", "latency", "formats", "run", "studies", "cli"),
)
ORDER = (*BASE, *ROOMS)
"""Each may import those before it, and itself."""

ENDS = {"__init__", "__main__"}
"""What hands the tool to the outside stands above all."""


def room(name: str) -> str:
    return name.split(".")[0]


@cache
def imported(name: str) -> frozenset[str]:
    """The modules of this package that a file imports, at the top or within functions."""
    return frozenset(m.partition(".")[2] for m in _modules(name) if m.startswith("compressor."))


def _modules(name: str) -> Iterator[str]:
    for node in ast.walk(_without_type_checking(ast.parse(FILES[name].read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            home = node.module or ""
            for alias in node.names:
                full = f"{home}.{alias.name}"
                yield full if full.partition(".")[2] in FILES else home


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CH" in ast.dump(n))]
    return tree


def importers(of: str) -> set[str]:
    """The rooms, and the ends, of which a file imports a module or what lies in it."""
    return {
        room(name)
        for name in FILES
        if any(m == of or m.startswith(f"{of}.") for m in imported(name))
    } - {room(of)}


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in FILES} - ENDS == set(ORDER)


def test_the_page_names_the_rooms_in_their_order() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)/` \|", page, re.M)
    assert [row for row in rows if row not in BASE] == list(ROOMS)
    assert {row for row in rows if row in BASE} | set(re.findall(r"`([a-z_]+)\.py`", page)) >= set(
        BASE
    )


@pytest.mark.parametrize("name", [name for name in FILES if name not in ENDS])
def test_imports_run_down_the_order(name: str) -> None:
    above = [m for m in imported(name) if ORDER.index(room(m)) > ORDER.index(room(name))]
    assert above == []


WITHIN = {
    "graph.axes": (),
    "graph.solver": ("graph.axes",),
    "graph.network": ("graph.axes", "records"),
    "graph.rules": ("graph.rules", "graph.axes", "errors"),
    "graph.programs": ("graph.programs", "errors", "source_lines"),
    "graph.trace.regions": ("errors",),
    "graph.mixtures": ("graph.axes", "graph.solver", "graph.network", "graph.rules"),
    "graph.groups": (
        *("graph.axes", "graph.solver", "graph.network", "graph.rules", "records"),
        "graph.mixtures",
    ),
    "loading.plain": ("loading.plain", "errors", "memory_pages", "on_demand"),
    "choose.curves": ("errors", "records", "metrics"),
    "files": ("files", "errors"),
    "hosts": ("hosts", "errors", "watch"),
    "records": ("records",),
    "calls": (),
    "metrics": (),
    "agreement": ("agreement", "records", "on_demand"),
    "errors": (),
}
"""A file or folder, and all that it may import."""


@pytest.mark.parametrize("of", WITHIN)
def test_what_stands_alone_imports_little(of: str) -> None:
    files = [name for name in FILES if name == of or name.startswith(f"{of}.")]
    assert files
    leans = {m for name in files for m in imported(name)}
    assert [m for m in leans if not m.startswith(WITHIN[of])] == []


WITHOUT_TORCH = [
    *("errors", "metrics", "graph.axes", "graph.solver"),
    *(n for n in FILES if room(n) == "records"),
    *(n for n in FILES if n[:11] == "graph.rules"),
]


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_the_algebra_and_the_rules_do_without_torch(name: str) -> None:
    assert "torch" not in {module.split(".")[0] for module in _modules(name)}


def test_only_the_ends_know_the_order_of_a_run() -> None:
    assert importers("cli") <= {"__main__"}
    assert importers("run.compress") <= {"cli", "__init__", "studies"}
    assert importers("studies") <= {"cli", "__init__"}


TOOLS = ROOT.parent / "tools"


def tool_imports() -> dict[str, set[str]]:
    """The files of tools/, and which of them each imports, at the top or within functions."""
    files = {
        ".".join(p.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): p
        for p in TOOLS.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        named = {f"{n.module}.{alias.name}" for n in nodes for alias in n.names}
        found[name] = ({str(n.module) for n in nodes} | named) & files.keys() - {name}
    return found


def test_the_tools_import_one_another_without_circles() -> None:
    left = tool_imports()
    assert "tools.zoo.members" in left["tools.zoo.zoos"]
    while leaves := {name for name, wanted in left.items() if not wanted & left.keys()}:
        left = {name: wanted for name, wanted in left.items() if name not in leaves}
    assert left == {}


def test_the_command_line_answers_without_torch() -> None:
    """At import time; `compress --help` takes no longer than Python itself."""
    lines = "import sys, compressor.cli, compressor.errors, compressor.records"
    code = f"{lines}; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, check=False).returncode == 0
    )
