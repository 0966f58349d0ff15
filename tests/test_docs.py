"""The code in the documentation runs, and does what the text beside it says; the generated part of
the guide is up to date."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from calls import CALLS
from cases import Case
from operators import solve
from twin import (
    analysed_case,
    assert_alive,
    assert_same,
    assert_smaller,
    live,
    masked_twin,
    random_keep,
    sliced,
)

import compressor
from compressor.cli import main
from compressor.cli.app import app
from compressor.graph import rules
from compressor.graph.analysis import analyse
from compressor.graph.rules.reasons import FROM_THE_NETWORK, REASONS
from compressor.graph.trace import trace
from compressor.loading.callables import resolve
from compressor.records import ExampleInputs
from compressor.slicing import as_module
from tools import refusals

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "adding-a-rule.md"
NAME = "mylib.maxout.default"


def code_for(name: str) -> list[str]:
    """The page's pieces of a file."""
    return re.findall(rf"^```python {re.escape(name)}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page's file, written and imported once (an operator is registered once in a process);
    yields how the command line names its network."""
    path = tmp_path_factory.mktemp("docs") / "nets.py"
    path.write_text(code_for("nets.py")[0])
    resolve(f"{path}:Net")
    yield f"{path}:Net"
    rules._registered.pop(NAME, None)


def test_the_example_can_be_pruned(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", example, "--input", "1x16", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["size"] == 8
    assert {(m["tensor"], m["dim"]) for m in group["members"]} == {
        *(("up.weight", 0), ("up.bias", 0), ("down.weight", 1)),
    }


def test_the_example_is_sliced_like_its_masked_twin(example: str) -> None:
    of = analysed_case(Case(resolve(example), (16,)))
    assert_alive(of.model, of.case)
    keep = random_keep(of.network, seed=0)
    found = sliced(of, keep)
    assert_smaller(found, of, keep)
    (kept,) = keep.values()
    assert found.module.up.weight.shape == (3 * len(kept), 16)
    assert found.plan.form == "class"
    assert found.module.width == len(kept)
    twin = masked_twin(of, keep)
    assert_same(twin, found.module, of.case)
    assert_same(twin, as_module(found.program), of.case)


def test_without_its_rule_the_example_is_protected(example: str) -> None:
    model = live(resolve(example)())
    traced = trace(model, ExampleInputs((torch.randn(2, 16, dtype=torch.float64),)))
    network = analyse(traced, {n: rule for n, rule in rules.RULES.items() if n != NAME})
    assert not network.groups
    reasons = {p.reason: p.place for p in network.protections}
    assert re.fullmatch(r".*\(nets\.py:\d+\)", reasons[f"the operator {NAME} has no rule"])


def test_with_a_decomposition_the_example_is_compressed_to_onnx(
    example: str, tmp_path: Path
) -> None:
    build = resolve(example)
    exec(code_for("nets.py")[1], vars(sys.modules[build.__module__]))
    try:
        result = compressor.compress(build(), torch.randn(2, 16), ratio=0.5)
    finally:
        torch._decomp.decomposition_table.pop(torch.ops.mylib.maxout.default)
    assert result.report["after"]["macs"] == result.report["before"]["macs"] / 2
    result.save(tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").is_file()
    loaded = compressor.load(tmp_path / "out", build)
    assert loaded.down.in_features == 4


# -- the README's numbers ------------------------------------------------------------------------

RESULTS = ROOT / "docs" / "results"
SCALES = {"k": 1e3, "M": 1e6, "G": 1e9}
NUMBER = re.compile(
    r"(?<![\w.,/-])(\d{1,3}(?: \d{3})+|\d+(?:\.\d+)?)(?![\w.]*\w)(?: ([kMG])(?:B)?\b)?(?!\w)"
)


def numbers_in(text: str) -> list[tuple[float, float]]:
    """Numbers with half of what their last digit is worth; code and links say none."""
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)|[A-Za-z]+-\d+", "", text)
    found = []
    for match in NUMBER.finditer(plain):
        digits, scale = match[1].replace(" ", ""), SCALES.get(match[2] or "", 1.0)
        decimals = len(digits.partition(".")[2])
        found.append((float(digits) * scale, 0.5001 * scale * 10.0**-decimals))
    return found


def measured() -> list[float]:
    """All numbers of the pages of results, and of their records."""
    pages = [path.read_text() for path in RESULTS.glob("*.md")]
    return [number for page in pages for number, _ in numbers_in(page)]


def section(title: str) -> str:
    return (ROOT / "README.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_numbers_of_the_readme_are_those_of_the_results() -> None:
    known, text = measured(), section("A real result")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    shown = [number for line in prose for number in numbers_in(line)]
    for row in rows:
        *values, last = row.strip("|").split("|")
        is_change = "−" in last  # what follows from the two before
        pair = [number for value in values[1:] for number in numbers_in(value)]
        shown += pair if is_change else numbers_in("|".join((*values[1:], last)))
        if is_change:
            (before, some), (after, more), (change, half) = *pair, *numbers_in(last)
            if "points" not in last:  # sizes are rounded, and so is what follows from them
                half += 100 * (more + some * after / before) / before
            found = before - after if "points" in last else 100 * (1 - after / before)
            assert abs(found - change) <= half + 1e-9, row
    assert len(shown) > 10
    missing = [n for n, half in shown if not any(abs(n - k) <= half for k in known)]
    assert missing == []


def test_a_number_that_nobody_measured_is_seen() -> None:
    assert numbers_in("ResNet-56 on CIFAR-10: 92.5 % of 12.3 M, `--round-to 1`, resnet50") == [
        (92.5, pytest.approx(0.05, rel=1e-3)),
        (12.3e6, pytest.approx(0.05e6, rel=1e-3)),
    ]
    assert numbers_in("| 853 018 | 1.97× |") == [
        (853018.0, pytest.approx(0.5, rel=1e-3)),
        (1.97, pytest.approx(0.005, rel=1e-3)),
    ]


def test_no_other_part_of_the_readme_has_measured_numbers() -> None:
    text = (ROOT / "README.md").read_text().replace(section("A real result"), "")
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)  # code says what a command printed
    assert re.findall(r"[\d.]+ ?(?:×|%|ms\b)", prose) == []


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    links = {
        (page, link)
        for page in pages
        for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    }
    assert [f"{page}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_every_page_of_the_guide_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    pages = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "guide").glob("*.md")]
    assert [page for page in pages if page not in text] == []


# -- decisions, and paths ------------------------------------------------------------------------

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_half_a_page(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 30
    assert len(text.split()) <= 210, "measurements belong to docs/results/"
    title, *parts = text.split("\n\n")
    assert re.match(r"# [A-Z]", title)
    said = re.findall(r"^\*\*(Context|Choice|Consequence)\.\*\*", "\n\n".join(parts), re.M)
    assert said == ["Context", "Choice", "Consequence"]


def test_every_decision_has_a_number_of_its_own() -> None:
    assert len({path.name[:4] for path in DECISIONS}) == len(DECISIONS)


def missing_paths(page: Path, text: str) -> list[str]:
    """Return the repository's paths in a page's code that do not exist.

    A path is what begins with one of our folders, or a file of Python within a folder, which may
    be named from the package on. A page on how the code lies names its files without folders.
    """
    known = {path.name for path in (ROOT / "compressor").rglob("*.py")}
    by_name = page.parent.name == "decisions" or page.name == "architecture.md"
    missing = []
    for code in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        if re.fullmatch(r"(compressor|docs|tests|tools)/[\w./-]*|[\w.-]+/[\w./-]+\.py", code):
            exists = any((root / code).exists() for root in (ROOT, ROOT / "compressor"))
        elif by_name and re.fullmatch(r"\w+\.py", code):
            exists = code in known
        else:
            continue
        missing += [] if exists else [f"{page.name}: {code}"]
    return missing


def test_every_path_that_the_documentation_names_exists() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert [m for page in pages for m in missing_paths(page, page.read_text())] == []


def test_the_page_of_the_rooms_names_files_that_lie_in_them() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \| (.*)$", page, re.M)
    named = [(room, name) for room, text in rows for name in re.findall(r"`(\w+\.py)`", text)]
    assert len(named) > 5
    rooms = ROOT / "compressor"
    assert [each for each in named if not list((rooms / each[0]).rglob(each[1]))] == []


def test_a_path_that_was_moved_is_seen() -> None:
    page = ROOT / "docs" / "decisions" / "0000-an-example.md"
    text = "`tools/check`, `graph/axes.py`, `errors.py`, `path/file.py:callable`, `--out a/b`"
    assert missing_paths(page, text) == []
    gone = ["compressor/attic/", "graph/attic.py", "attic.py"]
    assert missing_paths(page, f"`{'`, `'.join(gone)}`") == [f"{page.name}: {g}" for g in gone]


# -- commands ------------------------------------------------------------------------------------

GUIDE = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
SHOWN = [
    (page.name, line)
    for page in (*GUIDE, *sorted((ROOT / "docs" / "results").glob("*.md")))
    for line in re.findall(r"^    (compress .*)$", page.read_text(), re.M)
]


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_a_command_that_is_shown_can_be_meant(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert callable(command)


def options_of_compress() -> set[str]:
    commands = [app[name] for name in app if not name.startswith("-")]
    arguments = [a for each in (app, *commands) for a in each.assemble_argument_collection()]
    return {name for argument in arguments for name in argument.names} | set(app)


def test_every_option_that_the_guide_names_exists() -> None:
    known = options_of_compress()
    tools = {"gpu.md", "development.md"}  # of our own commands
    foreign = r"torchrun [^`]*|python bench.py .*"
    code = [
        (page.name, option)
        for page in GUIDE
        if page.name not in tools
        for piece in re.findall(r"`([^`]+)`|^    (.*)$", page.read_text(), re.M)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", re.sub(foreign, "", "".join(piece)))
    ]
    assert len(code) > 100
    assert [each for each in code if each[1] not in known] == []


def can_be_run(module: str) -> bool:
    spec = find_spec(module)
    is_folder = spec is not None and spec.submodule_search_locations is not None
    return find_spec(f"{module}.__main__") is not None if is_folder else spec is not None


def test_every_module_that_the_documentation_runs_exists() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = {m for page in pages for m in re.findall(r"python -m ([\w.]+)", page.read_text())}
    assert len(found) > 5
    assert [module for module in found if not can_be_run(module)] == []


# -- the README ----------------------------------------------------------------------------------


def test_the_page_of_operators_says_what_the_tables_say() -> None:
    text = refusals.PAGE.read_text()
    assert refusals.written_into(text) == text, "python -m tools.refusals writes it"


def test_the_generated_part_follows_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    before = refusals.section()
    families = {name: module for name, module in rules.FAMILIES.items() if name != "attention"}
    monkeypatch.setattr(refusals, "FAMILIES", families)
    after = refusals.section()
    assert "| attention |" in before
    assert "| attention |" not in after


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="refusals"):
        refusals.written_into("# no marks")


def test_the_table_of_reasons_has_all_that_rules_give_and_no_other() -> None:
    calls = [solve(name, *given, **named) for name, _, given, named, _ in (c.values for c in CALLS)]
    given = {reason for call in calls for _, reason in call.equations.keep}
    assert given == set(REASONS.values()) - set(FROM_THE_NETWORK)
