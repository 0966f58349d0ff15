"""What is installed: the package asks for what it imports, extras for what one feature takes."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from compressor import extras
from compressor.cli import main
from compressor.errors import UsageError

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED_AS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "xdist": "pytest-xdist",
    "yaml": "pyyaml",
}
"""Module -> package, where their names differ by more than a dash."""

WITHIN = {
    "sympy": "torch",
    "packaging": "accelerate",
    "tokenizers": "transformers",
    "ultralytics": "",
}
"""Module -> the package that always brings it along; tools skip what is not there at all."""


def packages(listed: list[str]) -> set[str]:
    """Return the names in a list of requirements, those of this package's own extras too."""
    found = set()
    for text in listed:
        name, own = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", text).groups()
        found |= {name.lower()}
        for extra in own.split(",") if own else ():
            found |= packages(PROJECT["optional-dependencies"][extra])
    return found


def package_of(module: str) -> str:
    name = WITHIN.get(module, INSTALLED_AS.get(module, module))
    return name.replace("_", "-")


def imported(folder: str) -> Iterator[str]:
    """Yield the packages that a folder's files import, or load as an extra."""
    own = {"compressor", "tests", "tools", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    files = (ROOT / folder).rglob("*.py")
    for path in (path for path in files if path.parent.name != "templates"):  # run elsewhere
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            tops = {name.split(".")[0] for name in names} - own - sys.stdlib_module_names
            yield from filter(None, map(package_of, tops))


def test_the_package_asks_for_what_it_imports_and_for_nothing_else() -> None:
    asked = packages(PROJECT["dependencies"])
    assert set(imported("compressor")) <= asked
    # torch writes ONNX files by this one
    assert asked - set(imported("compressor")) == {"onnxscript"}


def test_the_tests_and_tools_run_with_what_the_test_extra_brings() -> None:
    brought = packages(PROJECT["dependencies"]) | packages(["compressor[test]"])
    assert {*imported("tests"), *imported("tools")} <= brought


def test_every_extra_brings_its_module() -> None:
    known = PROJECT["optional-dependencies"]
    assert all(package_of(m) in packages(known[e]) for m, e in extras.EXTRAS.items())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a network, data's names and a grid."""
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(2, 2), "net.pt")
    Path("grid.yaml").write_text("ratios: [0.5]")
    Path("hf").mkdir()
    Path("hf/config.json").write_text("{}")
    return tmp_path


SWEEP = ["sweep", "net.pt", "--data", "some.npz", "--test", "some.npz"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("timm", ["inspect", "timm:resnet18"]),
        ("transformers", ["inspect", "hf:hf"]),
        ("yaml", [*SWEEP, "--grid", "grid.yaml"]),
        ("ray", [*SWEEP, "--ray", "local"]),
    ],
)
def test_without_its_module_a_command_names_the_extra(
    module: str,
    words: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(folder.rglob("*"))
    monkeypatch.setitem(sys.modules, module, None)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert f"{module} is not installed" in said
    assert f"pip install 'compressor[{extras.EXTRAS[module]}]'" in said.replace("\n", " ")
    assert "Traceback" not in said
    assert sorted(folder.rglob("*")) == before


def test_layers_of_a_missing_library_name_its_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.layers.Mlp(4), "mlp.pt")
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    assert main(["inspect", "mlp.pt", "--input", "1x4"]) == 2
    assert "pip install 'compressor[timm]'" in capsys.readouterr().err


def test_a_module_that_is_there_and_broken_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text("import no_such_package")
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="ray cannot be imported: No module named 'no_such"):
        extras.load("ray", "--ray")
