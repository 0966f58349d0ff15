"""Build small pieces of messages and tables of names: one line, short lists, nearest names."""

import difflib
from collections.abc import Iterable

LINE_LENGTH = 240
LIST_LENGTH = 8


def one_line(error: BaseException) -> str:
    """Return the class and the first line of an exception's message, cut to a readable length."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    return text if len(text) <= LINE_LENGTH else text[: LINE_LENGTH - 1] + "…"


def cut_list(names: Iterable[str]) -> str:
    """Join the first names with commas, and say how many more there are."""
    listed = list(names)
    more = len(listed) - LIST_LENGTH
    return ", ".join(listed[:LIST_LENGTH]) + (f", … and {more} more" if more > 0 else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean a, b?" with the known names nearest to `name`, or ""."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {', '.join(close)}?" if close else ""


def words(text: str, under: str = "") -> frozenset[str]:
    """Return the words of a text with a prefix: a short way to write a table of names."""
    return frozenset(under + word for word in text.split())
