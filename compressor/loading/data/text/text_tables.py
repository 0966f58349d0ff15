"""Read tables with a column of text: JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor import extras
from compressor.errors import CompressorError, UsageError
from compressor.loading.data.binding import TARGETS
from compressor.loading.data.text.text_files import PARQUET, read_text

TEXT, PAIR = "text", "text_pair"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TextTable:
    """Rows with a text.

    Attributes:
        texts: Of each row its text, or its list of words.
        pairs: Of each row its second text; None where there is no such column.
        labels: Of each row what its class is called, or its number; None where there is none.
        unused: Names of the columns that are not read.
    """

    texts: Sequence[Any]
    pairs: Sequence[str] | None
    labels: Sequence[Any] | None
    unused: tuple[str, ...] = ()


def read_table(path: Path) -> TextTable | None:
    """Read a table with a column of text; return None for a file that is no table.

    Raises:
        UsageError: No column, or none of several, is known as the text.
        CompressorError: A row cannot be read; its number is said.
    """
    rows = _rows_of(path)
    return None if rows is None else _columns(rows, path)


def _rows_of(path: Path) -> Sequence[Row] | None:
    with path.open("rb") as file:
        beginning = file.read(1024)
    if beginning.startswith(PARQUET):
        return _parquet(path)
    if beginning.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return _json_lines(path)
    delimiter = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    return None if delimiter is None else _separated(path, delimiter)


def _json_lines(path: Path) -> Sequence[Row]:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _broken(path, f"line {number}", f"the line is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise _broken(path, f"line {number}", f"the line is a {type(row).__name__}, no object")
        rows.append(row)
    return rows


def _separated(path: Path, delimiter: str) -> Sequence[Row]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                count = len(reader.fieldnames or ())
                what = f"the row has another number of values than the {count} names of columns"
                raise _broken(path, f"line {reader.line_num}", what)
            rows.append(row)
    except csv.Error as error:
        raise _broken(
            path, f"line {reader.line_num}", f"the row cannot be read: {error}"
        ) from error
    return rows


def _parquet(path: Path) -> Sequence[Row]:
    pyarrow = extras.load("pyarrow", str(path), "write the rows as .jsonl")
    parquet = importlib.import_module(f"{pyarrow.__name__}.parquet")
    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except Exception as error:  # whatever pyarrow raises of a damaged file
        raise _broken(path, "", f"the file cannot be read: {error}") from error
    return rows


def _columns(rows: Sequence[Row], path: Path) -> TextTable:
    if not rows:
        raise _broken(path, "", "the table has no row")
    names = list(rows[0])
    text = _text_column(rows[0], path)
    label = next((name for name in TARGETS if name in names and name != text), None)
    pair = PAIR if PAIR in names else None
    unused = tuple(name for name in names if name not in (text, label, pair))
    texts = _column(rows, text, path, _is_text)
    if len({isinstance(each, str) for each in texts}) > 1:
        raise _broken(path, f"column {text}", "some rows have a text, others a list of words")
    return TextTable(
        texts,
        None if pair is None else _column(rows, pair, path, lambda x: isinstance(x, str)),
        None if label is None else _column(rows, label, path, lambda x: x is not None),
        unused,
    )


def _text_column(row: Row, path: Path) -> str:
    if TEXT in row:
        return TEXT
    texts = [name for name, value in row.items() if isinstance(value, str) and name not in TARGETS]
    if len(texts) == 1:
        return texts[0]
    raise UsageError(
        f"the table has no column {TEXT}, and "
        + (f"several of text: {', '.join(texts)}" if texts else "none of text"),
        where=str(path),
        consequence="no sample was read",
        next_step=f"name the column {TEXT} (and a second one {PAIR}, classes label)",
    )


def _is_text(value: Any) -> bool:
    is_words = isinstance(value, list) and bool(value) and all(isinstance(w, str) for w in value)
    return isinstance(value, str) or is_words


def _column(
    rows: Sequence[Row], name: str, path: Path, is_right: Callable[[Any], bool]
) -> list[Any]:
    values = [row.get(name) for row in rows]
    wrong = next((number for number, x in enumerate(values, start=1) if not is_right(x)), None)
    if wrong is not None:
        value = values[wrong - 1]
        what = "nothing" if value is None else f"a {type(value).__name__}"
        raise _broken(path, f"row {wrong}", f"the column {name} has {what} there")
    return values


def _broken(path: Path, place: str, what: str) -> CompressorError:
    return CompressorError(
        what,
        where=f"{path}, {place}" if place else str(path),
        consequence="no sample was read",
        next_step="repair the file, or leave that row out",
    )
