"""What ncnn's .param files say: a row for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Sizes = tuple[int, ...]

_MAGIC = "7767517"
"""Begins every .param file."""

SIZES = (2, 11, 1, 0)
"""Parameters of an input with its sizes: channels, depth, height and width; 0 where it has none."""


@dataclass(frozen=True)
class Layer:
    """A row of a .param file.

    Attributes:
        kind: Its type, such as Convolution.
        name: Its name.
        inputs: The names of what it takes.
        outputs: The names of what it gives.
        params: Its parameters by number, as they stand there.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, str]

    def number(self, key: int, usual: int = 0) -> int:
        """Return a parameter that is a whole number, or what it usually is."""
        return int(self.params.get(key, usual))


def read_layers(path: Path) -> list[Layer]:
    """Read the rows of a .param file.

    Raises:
        ValueError: It is none.
    """
    rows = path.read_text(encoding="utf-8").splitlines()
    if [row.strip() for row in rows[:1]] != [_MAGIC]:
        raise ValueError("it does not begin as .param files do")
    return [_read_layer(row.split()) for row in rows[2:] if row.strip()]


def _read_layer(fields: Sequence[str]) -> Layer:
    kind, name, taken, given = fields[0], fields[1], int(fields[2]), int(fields[3])
    ends = 4 + taken, 4 + taken + given
    pairs = (field.partition("=") for field in fields[ends[1] :])
    params = {int(key): value for key, _, value in pairs}
    return Layer(kind, name, tuple(fields[4 : ends[0]]), tuple(fields[ends[0] : ends[1]]), params)


def with_sizes(text: str, sizes: Mapping[str, Sizes]) -> str:
    """Return the text of a .param file that also says what sizes its inputs have.

    Args:
        text: The file's text.
        sizes: Name of an input -> its sizes without those of the batch, four at most.
    """
    lines = text.splitlines()
    for number, line in enumerate(lines):
        fields = line.split()
        if fields[:1] == ["Input"]:
            own = sizes[fields[-1]]
            keys = {1: SIZES[3:], 2: SIZES[2:], 3: (2, 1, 0), 4: SIZES}[len(own)]
            lines[number] += "".join(f" {k}={n}" for k, n in zip(keys, own, strict=True))
    return "\n".join([*lines, ""])
