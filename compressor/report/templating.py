"""Fill this package's templates."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from compressor.report.formatting import large, machine_words, way

UNKNOWN = "–"


def fill(name: str, *, escapes: bool = True, **given: Any) -> str:
    """Fill a template and return its text; a name that is missing is an error.

    Args:
        name: File name of the template.
        escapes: Whether the given texts are escaped for HTML; text that is no page needs none.
        given: The template's names and their values.
    """
    return _templates(escapes).get_template(name).render(**given)


@cache
def _templates(escapes: bool) -> Environment:
    """Return this package's templates; each is compiled once per process."""
    environment = Environment(
        loader=PackageLoader("compressor.report"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        autoescape=escapes,
        keep_trailing_newline=True,
    )
    environment.filters.update(large=large, cell=_cell, shown=_show, way=way, machine=machine_words)
    return environment


def _cell(text: Any) -> str:
    """Return a text that cannot break out of a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _show(value: Any, how: str) -> str:
    return UNKNOWN if value is None else how.format(value)
