"""Write recurrent layers out, so that the sums before their gates are values of the program.

The sums that a cell's gates are applied to are W_ih·x(t) + W_hh·h(t-1) + b: a linear layer, whose
input [x(t), h(t-1)] the cell makes itself. In a graph that is written out, a node gives each cell's
sums, and another one runs the cell and takes them; what the program computes stays the same. The
candidate of a GRU multiplies W_hh·h(t-1) + b by a gate before it adds W_ih·x(t) + b: those are sums
of their own. So is what a projection makes of the units.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node

from compressor.graph.programs.nodes import given_arguments, operator_of

GATES: Mapping[str, int] = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Kind of recurrent layer -> how many rows of its weights belong to one unit."""


CELL_SUMS = "compressor.cell_sums.default"
"""The operator that gives a cell's sums in a graph that is written out."""


class Part(NamedTuple):
    """Some of a cell's sums, and the weights that make them.

    Attributes:
        matrices: Positions of the weights among the cell's.
        bias: Position of the vector that is added; None where there is none.
        rows: The rows of the weights: from which, up to which, of how many shares.
    """

    matrices: tuple[int, ...]
    bias: int | None
    rows: tuple[int, int, int] = (0, 1, 1)

    def slice(self, total: int) -> slice:
        """Return the rows, of so many."""
        first, last, of = self.rows
        return slice(total * first // of, total * last // of)


PARTS: Mapping[str, Part] = {
    "sums": Part((0, 1), 2),
    "gates": Part((0, 1), 2, (0, 2, 3)),
    "candidate from inputs": Part((0,), 2, (2, 3, 3)),
    "candidate from states": Part((1,), 3, (2, 3, 3)),
    "projection": Part((-1,), None),
}
"""Name of some of a cell's sums -> what makes them."""


def parts_of(kind: str, *, is_projected: bool) -> list[str]:
    """Return the names of a cell's sums, a row of `PARTS` each."""
    found = list(PARTS)[1:4] if kind == "gru" else ["sums"]
    return [*found, "projection"] if is_projected else found


# -- what a cell computes --------------------------------------------------------------------------

_LIBRARY = torch.library.Library("compressor", "FRAGMENT")
_LIBRARY.define(
    "cell_sums(Tensor x, Tensor[] states, Tensor[] weights, str kind, bool backwards, "
    "bool batch_first, str part) -> Tensor"
)
_LIBRARY.define(
    "cell(Tensor x, Tensor[] states, Tensor[] weights, str kind, bool backwards, "
    "bool batch_first, Tensor[] sums) -> Tensor[]"
)


def features(arguments: Mapping[str, Any]) -> Tensor:
    """Return what some sums of a cell are a product of, [steps, samples, features], in its order.

    Args:
        arguments: Those of `cell_sums`: x is [steps, samples, in] (or [samples, steps, in] where
            the batch comes first, and so is the result then), the states [samples, state].
    """
    with torch.no_grad():
        x, states, weights = (arguments[name] for name in ("x", "states", "weights"))
        x = _in_order(x, arguments)
        out, *_ = _run(x, states, weights, arguments["kind"])
        before = torch.cat([states[0].unsqueeze(0), out[:-1]])
        part = arguments["part"]
        if part == "projection":
            found = _unprojected(x, before, states[1], weights)
        else:
            both = [x, before]
            found = torch.cat([both[i] for i in PARTS[part].matrices], -1)
        return _in_order(found, arguments, back=True)


@torch.library.impl(_LIBRARY, "cell_sums", "CompositeImplicitAutograd")
def _cell_sums(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    kind: str,
    backwards: bool,
    batch_first: bool,
    part: str,
) -> Tensor:
    how = {"kind": kind, "backwards": backwards, "batch_first": batch_first, "part": part}
    with torch.no_grad():
        found = features({"x": x, "states": states, "weights": weights, **how})
        of, matrices = PARTS[part], list[Tensor]()
        for position in of.matrices:
            weight = weights[position]
            matrices.append(weight[of.slice(len(weight))])
        sums = found @ torch.cat(matrices, 1).t()
        for bias in _biases(of, weights):
            sums = sums + bias[of.slice(len(bias))]
        return sums


def _biases(part: Part, weights: Sequence[Tensor]) -> list[Tensor]:
    vectors = [weight for weight in weights if weight.dim() == 1]
    if part.bias is None or not vectors:
        return []
    return vectors if len(part.matrices) > 1 else [vectors[part.bias - 2]]


@torch.library.impl(_LIBRARY, "cell", "CompositeImplicitAutograd")
def _cell(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    kind: str,
    backwards: bool,
    batch_first: bool,
    sums: list[Tensor],
) -> list[Tensor]:
    how = {"backwards": backwards, "batch_first": batch_first}
    x = _in_order(x, how)
    if torch.is_grad_enabled() and any(each.requires_grad for each in (x, *states, *sums)):
        added = [_in_order(each - each.detach(), how) for each in sums]
        out, *ends = _step_by_step(x, states, weights, kind, added)
    else:
        out, *ends = _run(x, states, weights, kind)
    return [_in_order(out, how, back=True), *ends]


def _in_order(x: Tensor, how: Mapping[str, Any], *, back: bool = False) -> Tensor:
    """Return a sequence as [steps, samples, …] in the order in which the cell reads it.

    Args:
        x: The sequence, as the layer is given it.
        how: Whether the batch comes first, and whether the cell reads backwards.
        back: Undo that instead.
    """
    x = x.transpose(0, 1) if how["batch_first"] and not back else x
    x = x.flip(0) if how["backwards"] else x
    return x.transpose(0, 1) if how["batch_first"] and back else x


def _run(x: Tensor, states: list[Tensor], weights: list[Tensor], kind: str) -> tuple[Tensor, ...]:
    """Run a cell over [steps, samples, in]; return its outputs and its last states."""
    first = [state.unsqueeze(0).contiguous() for state in states]
    biased = any(weight.dim() == 1 for weight in weights)
    call: Any = getattr(torch, kind)
    given = first if kind == "lstm" else first[0]
    out, *ends = call(x, given, list(weights), biased, 1, 0.0, False, False, False)
    return (out, *(end.squeeze(0) for end in ends))


def _unprojected(x: Tensor, before: Tensor, memory: Tensor, weights: list[Tensor]) -> Tensor:
    """Return a cell's units before their projection, [steps, samples, hidden].

    Args:
        x: [steps, samples, in].
        before: The state before each step, [steps, samples, state].
        memory: The units' memory before the first step, [samples, hidden].
        weights: The cell's weights.
    """
    sums = x @ weights[0].t() + before @ weights[1].t()
    for bias in _biases(PARTS["sums"], weights):
        sums = sums + bias
    found = []
    for step in sums:
        unit, memory = _gate(step, memory)
        found.append(unit)
    return torch.stack(found)


def _gate(sums: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return the units and the memory of an LSTM after a step, [samples, hidden] each."""
    enter, forget, candidate, leave = sums.chunk(4, 1)
    memory = forget.sigmoid() * memory + enter.sigmoid() * candidate.tanh()
    return leave.sigmoid() * memory.tanh(), memory


def _step_by_step(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    kind: str,
    added: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Run a cell as `_run` does, with something added to each of its sums, [steps, samples, …]."""
    matrices = [weight for weight in weights if weight.dim() == 2]
    vectors = [weight for weight in weights if weight.dim() == 1] or [x.new_zeros(())] * 2
    inner = x @ matrices[0].t() + vectors[0]
    state, memory = states[0], states[-1]
    found = []
    for step in range(len(x)):
        own = state @ matrices[1].t() + vectors[1]
        more = [each[step] for each in added]
        if kind == "gru":
            size = state.shape[-1]
            reset, update = (inner[step][:, : 2 * size] + own[:, : 2 * size] + more[0]).chunk(2, 1)
            own = reset.sigmoid() * (own[:, 2 * size :] + more[2])
            candidate = (inner[step][:, 2 * size :] + more[1] + own).tanh()
            state = candidate + update.sigmoid() * (state - candidate)
        elif kind == "lstm":
            state, memory = _gate(inner[step] + own + more[0], memory)
            if len(matrices) > 2:
                state = state @ matrices[2].t() + more[1]
        else:
            sums = inner[step] + own + more[0]
            state = sums.tanh() if kind == "rnn_tanh" else sums.relu()
        found.append(state)
    return (torch.stack(found), state, memory)[: 1 + len(states)]


# -- in a graph ------------------------------------------------------------------------------------


def write_out(graph: Graph) -> Graph:
    """Return the graph with its recurrent layers written out; itself, unchanged, without any."""
    if not any(_is_recurrent(node) for node in graph.nodes):
        return graph
    copy = Graph()
    copy.output(copy.graph_copy(graph, {}))
    for node in list(copy.nodes):
        if _is_recurrent(node):
            with copy.inserting_before(node):
                _replace(copy, node)
    return copy


def _is_recurrent(node: Node) -> bool:
    kind, _, overload = operator_of(node).partition(".")
    return kind in GATES and overload == "input" and not given_arguments(node).get("train")


def _replace(graph: Graph, node: Node) -> None:
    """Replace a recurrent layer by its cells, in place."""
    operators, kind = torch.ops.compressor, operator_of(node).partition(".")[0]
    given = given_arguments(node)
    both, batch_first = bool(given["bidirectional"]), bool(given["batch_first"])
    states = given["hx"] if kind == "lstm" else [given["hx"]]
    directions, inner = 2 if both else 1, given["input"]
    count = given["num_layers"] * directions
    each = len(given["params"]) // count
    ends: list[list[Node]] = [[] for _ in states]
    outs: list[Node] = []
    for number in range(count):
        weights = list(given["params"][number * each : (number + 1) * each])
        first = [
            graph.call_function(torch.ops.aten.select.int, (state, 0, number)) for state in states
        ]
        common = (inner, first, weights, kind, number % directions == 1, batch_first)
        matrices = sum(weight.meta["val"].dim() == 2 for weight in weights)
        parts = parts_of(kind, is_projected=matrices > 2)
        sums = [graph.call_function(operators.cell_sums.default, (*common, p)) for p in parts]
        cell = graph.call_function(operators.cell.default, (*common, sums))
        out, *last = (graph.call_function(operator.getitem, (cell, i)) for i in range(1 + len(states)))
        outs.append(out)
        for end, own in zip(ends, last, strict=True):
            end.append(own)
        if len(outs) == directions:
            inner = outs[0] if not both else graph.call_function(torch.ops.aten.cat.default, (outs, -1))
            outs = []
    stacked = [graph.call_function(torch.ops.aten.stack.default, (end,)) for end in ends]
    for user in list(node.users):
        user.replace_all_uses_with((inner, *stacked)[user.args[1]])
        graph.erase_node(user)
    graph.erase_node(node)
