"""Read a plan.json file."""

from __future__ import annotations

from pathlib import Path

from compressor.errors import CompressorError
from compressor.files.integrity import check_files
from compressor.records import Plan


def read_plan(path: Path) -> Plan:
    """Read the plan in a file.

    Raises:
        CompressorError: There is no file, or it holds no plan.
    """
    check_files(path.parent, (path.name,))
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"there is no plan to read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"this is no plan of compress: {error}"
    raise CompressorError(
        problem,
        where=str(path),
        consequence="no network was built",
        next_step="give the plan.json of a folder that compress has written",
    )
