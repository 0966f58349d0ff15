"""Give the equations of recurrent layers.

All layers, directions and states of a module share one hidden axis. Cells of unequal widths run
silently wrong in PyTorch, so they are never unequal here; a projection has an axis of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from compressor.graph.axes import Axis, Dim, Product, Sum
from compressor.graph.rules.call import Call, Equations, Rule, Shape, keep_all, table
from compressor.graph.rules.reasons import CELLS, GATE_ROWS, PROJECTION, STEPS

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def cell_weights(
    weights: list[Shape], rows: Dim, inner: Dim, state: Dim, hidden: Dim
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


def layers(gates: int) -> Rule:
    """Recurrent layer: x[..., in] -> [..., directions*state], states [layers*directions, n, state].

    Layers after the first read directions*state; state is hidden, or the projection. PyTorch
    recognises a projection by its being narrower than hidden: so at least one hidden unit more than
    the projection has is kept.
    """

    def rule(call: Call) -> Equations:
        x, weights = call["input"], call["params"]
        given, wider = call["hx"], []
        states = (given,) if gates != 4 else given
        hidden: Dim = Axis(states[-1][-1].size)
        state = hidden
        if _has_projection(call):
            state, least = Axis(states[0][-1].size), Axis(states[0][-1].size)
            hidden = Sum((least, Axis(hidden.size - least.size)))
            wider.append((least, PROJECTION))
        directions = Axis(2 if call["bidirectional"] else 1)
        count, out = Axis(states[0][0].size), Product((directions, state))
        rows = Product((Axis(gates), hidden))
        same: list[tuple[Dim, Dim]] = []
        per_cell = len(weights) // count.size
        for i in range(count.size):
            inner = x[-1] if i < directions.size else out
            cell = list(weights[i * per_cell : (i + 1) * per_cell])
            same += cell_weights(cell, rows, inner, state, hidden)
        at = 0 if call["batch_first"] else 1
        widths = (state,) if gates != 4 else (state, hidden)
        ends = [(count, x[at], width) for width in widths]
        same += [p for s, e in zip(states, ends, strict=True) for p in zip(s, e, strict=True)]
        matrices = [i for i, weight in enumerate(weights) if len(weight) == 2]
        return Equations(
            ((*x[:-1], out), *ends),
            same,
            keep=[
                *keep_all((rows.parts[0], directions, count), CELLS),
                (x[1 - at], STEPS),
                *wider,
            ],
            contracted=[(f"params.{i}", 1) for i in matrices],
            macs=[(*x[:-1], *weights[i]) for i in matrices],
            width=out,
        )

    return rule


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
