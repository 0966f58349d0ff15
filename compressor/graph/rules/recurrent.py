"""Give the equations of recurrent layers.

A cell is one direction of one layer. Cells of unequal widths run silently wrong in PyTorch, so all
cells of a module keep equal numbers of units; which ones is each cell's own affair, unless one
dimension holds the states of several. A projection has units of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compressor.graph.axes import Axis, Dim, Product, Sum
from compressor.graph.rules.call import Call, Equations, Rule, Shape, keep_all, table
from compressor.graph.rules.reasons import CELLS, GATE_ROWS, PROJECTION, STEPS

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Kind of recurrent layer -> how many rows of its weights belong to one unit."""


def cell_weights(
    weights: Sequence[Shape], rows: Dim, inner: Dim, state: Dim, hidden: Dim
) -> Iterator[tuple[Dim, Dim]]:
    """Yield the pairs of a cell's dimensions that are the same.

    The weights are w_ih[gates*hidden, in], w_hh[gates*hidden, state], biases[gates*hidden] and
    projection[state, hidden].
    """
    matrices = [weight for weight in weights if len(weight) == 2]
    yield from ((weight[0], rows) for weight in (*matrices[:2], *weights) if len(weight) == 1)
    columns = ((rows, inner), (rows, state), (state, hidden))
    for weight, (row, column) in zip(matrices, columns, strict=False):
        yield from ((weight[0], row), (weight[1], column))


@dataclass(frozen=True)
class _Units:
    """The units of all cells of a module.

    Attributes:
        own: The dimension of each cell's units.
        seen: The width of the states that come in and go out.
        free: What of `own` may go, cell by cell.
        together: The cells whose states are told apart by no dimension, and lose the same units.
    """

    own: Sequence[Dim]
    seen: Dim
    free: Sequence[Dim]
    together: frozenset[int]


def _units(call: Call, size: int, cells: int, states: Sequence[int], least: int = 0) -> _Units:
    """Give each cell units of its own, but for those whose states one dimension holds.

    Args:
        call: The call.
        size: The number of each cell's units.
        cells: The number of cells.
        states: Positions of the states that are made of these units, in `hx`.
        least: How many of them stay in any case, the first ones.
    """
    several = call.op.startswith("lstm")
    together: set[int] = set()
    for i in states:
        given = f"hx.{i}" if several else "hx"
        everything = frozenset(range(cells))
        read = call.read.get(1 + i, everything)
        together |= read if given in call.blank else everything
    shared, own, free = Axis(size - least), list[Dim](), list[Dim]()
    for i in range(cells):
        rest = shared if i in together or cells == 1 else Axis(size - least)
        free.append(rest)
        own.append(Sum((Axis(least), rest)) if least else rest)
    seen = own[max(together, default=-1)]
    return _Units(own, seen, free, frozenset(together))


def layers(gates: int) -> Rule:
    """Recurrent layer: x[..., in] -> [..., directions*state], states [layers*directions, n, state].

    Layers after the first read directions*state; state is hidden, or the projection. PyTorch
    recognises a projection by its being narrower than hidden: so at least one hidden unit more than
    the projection has is kept.
    """

    def rule(call: Call) -> Equations:
        x, weights, given = call["input"], call["params"], call["hx"]
        states: Sequence[Shape] = (given,) if gates != 4 else given
        count, directions = states[0][0], 2 if call["bidirectional"] else 1
        width = states[0][-1].size
        if _has_projection(call):
            state = _units(call, width, count.size, (0,))
            hidden = _units(call, states[1][-1].size, count.size, (1,), least=width)
            widths = [state.seen, hidden.seen]
        else:
            state = hidden = _units(call, width, count.size, range(len(states)))
            widths = [state.seen] * len(states)
        same: list[tuple[Dim, Dim]] = []
        rows = [Product((Axis(gates), units)) for units in hidden.own]
        per_cell, inner = len(weights) // count.size, x[-1]
        for i in range(count.size):
            cell = weights[i * per_cell : (i + 1) * per_cell]
            same += cell_weights(cell, rows[i], inner, state.own[i], hidden.own[i])
            if (i + 1) % directions == 0:
                inner = Sum(tuple(state.own[i + 1 - directions : i + 1]))
        at = 0 if call["batch_first"] else 1
        ends = [(count, x[at], each) for each in widths]
        same += [p for s, e in zip(states, ends, strict=True) for p in zip(s, e, strict=True)]
        matrices = [i for i, weight in enumerate(weights) if len(weight) == 2]
        least = [dim.parts[0] for dim in hidden.own if isinstance(dim, Sum)]
        return Equations(
            ((*x[:-1], inner), *ends),
            same,
            keep=[
                *keep_all((*(each.parts[0] for each in rows), count), CELLS),
                (x[1 - at], STEPS),
                *keep_all(least, PROJECTION),
            ],
            level=[tuple(state.free), tuple(hidden.free)],
            remark=_remark(state, hidden, count.size),
            contracted=[(f"params.{i}", 1) for i in matrices],
            macs=[(*x[:-1], *weights[i]) for i in matrices],
            width=inner,
        )

    return rule


def _remark(state: _Units, hidden: _Units, cells: int) -> str:
    """Return which cells lose the same units, in words, or "" where each loses its own."""
    together = max(len(state.together), len(hidden.together))
    if together < 2:
        return ""
    which = "all" if together == cells else f"{together} of"
    return (
        f"{which} {cells} layers and directions lose the same units, since one tensor holds their "
        "states where these are given or read"
    )


def _has_projection(call: Call) -> bool:
    """Return whether every cell has a third matrix, the projection."""
    matrices = sum(len(weight) == 2 for weight in call["params"])
    return bool(matrices == 3 * call["num_layers"] * (2 if call["bidirectional"] else 1))


def cell(gates: int) -> Rule:
    """Recurrent cell: x[n, in], state[n, hidden] -> [n, hidden], one step of one layer."""

    def rule(call: Call) -> Equations:
        x, given = call["input"], call["hx"]
        states = (given,) if gates != 4 else given
        hidden = states[0][-1]
        rows = Product((Axis(gates), hidden))
        names = [n for n in ("w_ih", "w_hh", "b_ih", "b_hh") if call.get(n)]
        same = [pair for s in states for pair in zip(s, (*x[:-1], hidden), strict=True)]
        same += cell_weights([call[name] for name in names], rows, x[-1], hidden, hidden)
        return Equations(
            tuple((*x[:-1], hidden) for _ in states),
            same,
            keep=[(rows.parts[0], GATE_ROWS)],
            contracted=[("w_ih", 1), ("w_hh", 1)],
            macs=[(*x[:-1], *call[name]) for name in ("w_ih", "w_hh")],
            width=hidden,
        )

    return rule


RULES: dict[str, Rule] = {
    name: rule
    for kind, gates in GATES.items()
    for name, rule in {
        **table(layers(gates), f"{kind}.input"),
        **table(cell(gates), f"{kind}_cell"),
    }.items()
}
