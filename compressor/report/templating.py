"""Templates of this package."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from compressor.report.numbers import large, way

UNKNOWN = "–"


def filled(name: str, *, escapes: bool = True, **given: Any) -> str:
    """The text of a template with what is given; a name that is missing is an error.

    Args:
        escapes: What is given is no HTML; for text that is no page there is nothing to escape.
    """
    environment = Environment(
        loader=PackageLoader("compressor"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        autoescape=escapes,
        keep_trailing_newline=True,
    )
    environment.filters.update(large=large, cell=_cell, shown=_shown, way=way)
    return environment.get_template(name).render(**given)


def _cell(text: Any) -> str:
    """Text that cannot break out of a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _shown(value: Any, how: str) -> str:
    return UNKNOWN if value is None else how.format(value)
