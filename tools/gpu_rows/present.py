"""What a GPU machine has, and so what has to be brought."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

from tools.gpu_rows.places import ROOT

PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

PRESENT = frozenset((Path(__file__).parent / "present.txt").read_text().split())
"""Distributions of a machine image for PyTorch, as `pip list` named them there; those that no
dependency of ours leads to are left out."""

FOR_TESTS = ("jsonschema",)
"""What tests import besides, and such a machine lacks."""


def lacking(roots: Iterable[str] | None = None) -> dict[str, str]:
    """Distributions that the project needs and the machine lacks: name -> the version here.

    The requirements are those of what is installed here, followed from the project's own, with
    markers read as the machine would; nothing behind a distribution that is there is looked at.
    """
    found: dict[str, str] = {}
    todo = [Requirement(text) for text in (_own() if roots is None else roots)]
    while todo:
        wanted = todo.pop()
        name = _normal(wanted.name)
        if name in PRESENT or name in found:
            continue
        here = distribution(wanted.name)
        found[name] = here.version
        todo += _needs(here.requires or (), wanted.extras)
    return dict(sorted(found.items()))


def _own() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *FOR_TESTS]


def _needs(requires: Iterable[str], extras: Iterable[str]) -> Iterator[Requirement]:
    environment = {
        **default_environment(),
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    for text in requires:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(
            marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)
        ):
            yield requirement


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
