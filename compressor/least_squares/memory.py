"""Compute how much memory choice and repair may take, and what that is enough for.

All of it is known before anything is gathered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from compressor.least_squares.moments import panel_entries
from compressor.machine import free_bytes

FREE = 0.5
"""The share of the free memory that is taken where the user gives no limit, `MOST` at most."""

MOST = 3 * 10**9
"""Bytes of which more would bring little: larger moments are gathered in another pass, and walks
that are not held start anew, mostly for the first layers alone."""

DOUBLE, SINGLE = 8, 4


@dataclass(frozen=True)
class RowCount:
    """How many output positions regressions take, drawn at random from all samples.

    Further ones than these would change the estimate little. A fit of so many weights per output
    misses by about the inverse of the rows per feature more than it has to.

    Attributes:
        usual: The number that is taken, unless it is too small or too large for the features.
        per_feature: The least number for each feature.
        most_per_feature: The most for each.
    """

    usual: int = 32_768
    per_feature: int = 4
    most_per_feature: int = 256

    def of(self, features: int) -> int:
        """Return how many a regression of so many features takes."""
        wanted = min(self.usual, self.most_per_feature * features)
        return max(wanted, self.per_feature * features)


USUAL_ROWS = RowCount()


@dataclass(frozen=True)
class Memory:
    """Bytes that may be taken beside the network.

    Attributes:
        moments: Bytes for second moments and what is solved with them.
        walks: Bytes for walks that are halted.
        rows: Bytes for the features of some rows.
        values: Bytes for the values of samples that run through the network together.
        wanted: The number of output positions that regressions take.
    """

    moments: int
    walks: int
    rows: int
    values: int
    wanted: RowCount = USUAL_ROWS

    @classmethod
    def of(cls, total: int | None, wanted: RowCount = USUAL_ROWS) -> Memory:
        """Share out a total of bytes; if it is None, half of the free memory or `MOST`."""
        whole = min(math.floor(FREE * free_bytes()), MOST) if total is None else total
        return cls(whole // 2, whole // 4, whole // 8, whole // 8, wanted)

    def without_walks(self) -> Memory:
        """Return the memory where no walks are halted: moments take what those would."""
        return replace(self, moments=self.moments + self.walks, walks=0)

    def for_walks(self, sizes: Sequence[Size]) -> Memory:
        """Return the memory where regressions are solved one by one: walks take what is left.

        The largest of these sizes keeps twice what it is solved in by moments, which is enough for
        the other form, and for a cell's copies.
        """
        needed = max((2 * bytes_to_solve_moments(size) for size in sizes), default=0)
        return replace(self, walks=self.walks + max(0, self.moments - needed))

    def most_rows(self, features: int) -> int:
        """Return how many rows of so many features (of all blocks) may be looked at together."""
        # each row is held twice: as it is gathered and as it is multiplied
        return max(LEAST_AT_ONCE, self.rows // (2 * SINGLE * features))


LEAST_AT_ONCE = 32


@dataclass(frozen=True)
class Workspace:
    """Where regressions are computed, and who is told.

    Attributes:
        device: Where the programs are run.
        seed: Seed of the sampled output positions.
        memory: To stay within.
        note: Is told what the user should know.
        progress: Is told (done, total, what).
    """

    device: str = "cpu"
    seed: int = 0
    memory: Memory = field(default_factory=lambda: Memory.of(None))
    note: Callable[[str], None] = lambda text: None
    progress: Callable[[int, int, str], None] = lambda done, total, what: None


COPIES = 3
"""Copies of a matrix of second moments while it is solved or inverted: itself, its factors, and
single precision for what is added or the result."""


def columns_to_solve(memory: Memory, blocks: int, outputs: int) -> int:
    """Return how many features of each block, with so many outputs, can be re-fitted at once."""
    # with b features, COPIES matrices [b, b] and three [b, outputs] are held
    linear, square = 3 * outputs, COPIES
    most = memory.moments / (DOUBLE * blocks)
    columns = (math.sqrt(linear**2 + 4 * square * most) - linear) / (2 * square)
    return max(1, math.floor(columns))


COLUMNS = 1024
"""The number of features of kept rows that are looked at together, in double precision."""


def bytes_to_solve_moments(size: Size) -> int:
    """Return the bytes that a consumer's re-fit takes with all its features' second moments."""
    each = size.features * (COPIES * size.features + 3 * size.outputs)
    return DOUBLE * size.blocks * each


def bytes_to_solve_rows(size: Size, rows: int) -> int:
    """Return the bytes that a consumer's re-fit takes with so many rows.

    The rows are kept in single precision; so is the change of the weight, as it is found and as it
    is added. In double precision come some features of the rows twice, and of the change, the rows'
    products with each other, and what is wanted of them.
    """
    single = rows * (size.features + size.outputs) + 3 * size.features * size.outputs
    some = min(COLUMNS, size.features)
    double = 2 * rows * some + COPIES * rows**2 + size.outputs * (some + 4 * rows)
    return size.blocks * (SINGLE * single + DOUBLE * double)


OUTPUTS_COPIED = 5
"""Copies of a weight in double precision while channels are eliminated."""

SKETCH = 256
"""The number of random combinations that stand for a consumer's outputs where those are too
many; they keep sums of squares (Johnson and Lindenstrauss 1984)."""

SKETCHES = (SKETCH, 128, 64, 32, 16)
"""Fewer and fewer of them, where a group has many consumers: their errors are averaged over all."""

WEIGHTS = 0.5
"""The share of the memory for moments that the weights of a group's consumers may take."""


@dataclass(frozen=True)
class Size:
    """The size of a consumer's regression.

    Attributes:
        blocks: Number of separate regressions.
        features: Features of each block.
        outputs: Outputs of each block.
        rows: Number of rows of features, where those are held in place of their second moments.
        sketch: Number of random combinations that stand for the outputs; None: the outputs do.
    """

    blocks: int
    features: int
    outputs: int
    rows: int | None = None
    sketch: int | None = None

    @property
    def work_to_eliminate(self) -> int:
        """Return about the multiply-adds of eliminating the features."""
        return self.blocks * self.features**2 * (self.features if self.rows is None else self.rows)

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of the weight's matrix, as often as it is copied."""
        outputs = self.outputs if self.sketch is None else self.sketch
        return OUTPUTS_COPIED * DOUBLE * self.blocks * self.features * outputs

    def sketched(self, most: int) -> Size:
        """Return the size with so many random combinations for more outputs."""
        return replace(self, sketch=most) if self.outputs > most else self

    @property
    def gathered_bytes(self) -> int:
        """Return the bytes of the moments while they are gathered, or of the rows."""
        if self.rows is not None:
            return self.moments_bytes(self.features)
        return DOUBLE * self.blocks * panel_entries(self.features)

    def moments_bytes(self, columns: int) -> int:
        """Return the bytes of the moments of all parts, each of so many columns."""
        each = min(columns, self.features) if self.rows is None else self.rows
        return DOUBLE * self.blocks * self.features * each

    def largest_bytes(self, columns: int) -> int:
        """Return the bytes of the matrix that one part of so many columns is solved with."""
        each = min(columns, self.features) if self.rows is None else self.rows
        return DOUBLE * self.blocks * each**2


def sketched(sizes: Sequence[Size], memory: Memory) -> list[Size]:
    """Return the sizes of a group's consumers, with random combinations for outputs of too many.

    Those of one large weight are combined by themselves; those of all, further and further, until
    the weights take their share of the memory.
    """
    found = [s.sketched(SKETCH) if 4 * s.weight_bytes > memory.moments else s for s in sizes]
    for most in SKETCHES:
        if sum(size.weight_bytes for size in found) <= WEIGHTS * memory.moments:
            break
        found = [size.sketched(most) for size in found]
    return found


def bytes_to_eliminate(sizes: Sequence[Size], columns: int, again: Sequence[Size] = ()) -> int:
    """Return the bytes that a group's elimination takes, its consumers in parts of so many columns.

    Of every part they hold moments or their inverse, of the largest both, and the weights. The
    moments of those that are needed again, by other groups, are held beside the inverse.
    """
    held = sum(size.moments_bytes(columns) + size.weight_bytes for size in sizes)
    held += sum(size.moments_bytes(columns) for size in again)
    return held + max((size.largest_bytes(columns) for size in sizes), default=0)


def columns_to_eliminate(sizes: Sequence[Size], memory: Memory, again: Sequence[Size] = ()) -> int:
    """Return of how many columns the parts of a group's consumers can be, at least 1."""
    columns = max((size.features for size in sizes), default=1)
    while columns > 1 and bytes_to_eliminate(sizes, columns, again) > memory.moments:
        columns = math.floor(0.8 * columns)
    return columns


FEW_ROWS = 0.75
"""The most rows per feature of a group's elimination by rows; with more, second moments are less
work."""


def rows_to_keep(size: Size, rows: int | None, memory: Memory) -> int | None:
    """Return the number of rows if a consumer's channels are eliminated by rows, else None."""
    if rows is None or rows > FEW_ROWS * size.features:
        return None
    kept = bytes_to_eliminate(sketched([replace(size, rows=rows)], memory), size.features)
    return rows if kept <= memory.moments else None
