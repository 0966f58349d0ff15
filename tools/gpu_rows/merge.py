"""What a call recorded, taken into docs/results; what a further call needs, kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from compressor.files.whole_file import write_whole
from tools.gpu_rows import places
from tools.gpu_rows.records import Record, known
from tools.gpu_rows.table import to_markdown

RESULTS = places.ROOT / "docs" / "results"


def merge(
    folder: Path,
    *,
    results: Path = RESULTS,
    earlier: Path = places.EARLIER,
    of_dry_run: bool = False,
) -> str:
    """Write gpu.jsonl and gpu.md from all records so far; the page.

    Raises:
        SystemExit: The folder has no records, or those of a dry run, which are no results.
    """
    new = known([folder / places.RECORDS])
    if not (folder / places.RECORDS).exists():
        raise SystemExit(f"there is no {folder / places.RECORDS}")
    if any(record["is_dry"] for record in new.values()) != of_dry_run:
        raise SystemExit("records of a dry run are no results")
    whole = known([results / "gpu.jsonl", earlier / places.RECORDS, folder / places.RECORDS])
    figures = {name: record for name, record in whole.items() if "failure" not in record}
    _write(results / "gpu.jsonl", figures.values())
    page = to_markdown(list(figures.values()), is_dry=of_dry_run)
    (results / "gpu.md").write_text(page, encoding="utf-8")
    _keep(folder, earlier)
    _write(earlier / places.RECORDS, figures.values())
    return page


def _write(file: Path, records: Iterable[Record]) -> None:
    lines = [json.dumps(r, ensure_ascii=False, sort_keys=True) + "\n" for r in records]
    with write_whole(file) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _keep(folder: Path, earlier: Path) -> None:
    """Checkpoints and tables in place of those before, which the call had begun with."""
    left_out = shutil.ignore_patterns(places.RECORDS, places.LOG, "made", "cache")
    if earlier.exists():
        shutil.rmtree(earlier)
    shutil.copytree(folder, earlier, ignore=left_out, copy_function=shutil.copyfile)
