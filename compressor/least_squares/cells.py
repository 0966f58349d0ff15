"""Write recurrent layers out, so that the sums before their gates are values of the program.

The sums that a cell's gates are applied to are W_ih·x(t) + W_hh·h(t-1) + b: a linear layer, whose
input [x(t), h(t-1)] the cell makes itself. In a graph that is written out, nodes give the states
before each step and the sums that follow from them, and another one runs the cell and takes the
sums; what the program computes stays the same. The candidate of a GRU multiplies W_hh·h(t-1) + b by
a gate before it adds W_ih·x(t) + b: those are sums of their own. So is what a projection makes of
the units.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node

from compressor.graph.programs.nodes import given_arguments, operator_of
from compressor.graph.rules.recurrent import GATES

CELL_SUMS = "compressor.cell_sums.default"
"""The operator that gives a cell's sums in a graph that is written out."""

CELL_STATES = "compressor.cell_states.default"
"""The operator that gives the states before each step."""

ASIDE = frozenset((CELL_STATES, CELL_SUMS))
"""The operators whose values serve regressions alone: the cell makes them anew."""


STATES = "before"
"""The argument of `CELL_SUMS` that the cell makes itself: its states before each step."""


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
    sums = list(PARTS)[1:4] if kind == "gru" else ["sums"]
    return [*sums, "projection"] if is_projected else sums


# -- what a cell computes --------------------------------------------------------------------------

_MAKE: Any = torch.library.Library
_LIBRARY = _MAKE("compressor", "FRAGMENT")
_CELL = "Tensor[] states, Tensor[] weights, str kind, bool backwards, bool batch_first"
_LIBRARY.define(f"cell_states(Tensor x, {_CELL}) -> Tensor")
_LIBRARY.define(f"cell_sums(Tensor x, Tensor before, {_CELL}, str part) -> Tensor")
_LIBRARY.define(f"cell(Tensor x, {_CELL}, Tensor[] sums) -> Tensor[]")


@torch.library.impl(_LIBRARY, "cell_states", "CompositeImplicitAutograd")
def _cell_states(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    kind: str,
    backwards: bool,
    batch_first: bool,
) -> Tensor:
    how = {"backwards": backwards, "batch_first": batch_first}
    with torch.no_grad():
        out, *_ = _run(_in_order(x, how), states, weights, kind)
        return _in_order(torch.cat([states[0].unsqueeze(0), out[:-1]]), how, back=True)


def features(arguments: Mapping[str, Any]) -> Tensor:
    """Return what some sums of a cell are a product of, of the shape of its input but the last.

    Args:
        arguments: Those of `cell_sums`: x is [steps, samples, in], and before [steps, samples,
            state] (both [samples, steps, …] where the batch comes first), the first states are
            [samples, state].
    """
    with torch.no_grad():
        both = [arguments["x"], arguments["before"]]
        if arguments["part"] != "projection":
            matrices = PARTS[arguments["part"]].matrices
            return torch.cat([both[i] for i in matrices], -1)
        x, before = (_in_order(each, arguments) for each in both)
        units = _unprojected(x, before, arguments["states"][1], arguments["weights"])
        return _in_order(units, arguments, back=True)


@torch.library.impl(_LIBRARY, "cell_sums", "CompositeImplicitAutograd")
def _cell_sums(
    x: Tensor,
    before: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    kind: str,
    backwards: bool,
    batch_first: bool,
    part: str,
) -> Tensor:
    given = {"x": x, "before": before, "states": states, "weights": weights, "part": part}
    with torch.no_grad():
        factors = features({**given, "backwards": backwards, "batch_first": batch_first})
        of, matrices = PARTS[part], list[Tensor]()
        for position in of.matrices:
            weight = weights[position]
            matrices.append(weight[of.slice(len(weight))])
        sums = factors @ torch.cat(matrices, 1).t()
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
    """Run a cell; it makes its sums anew, and takes them to stand behind them in the graph."""
    how = {"backwards": backwards, "batch_first": batch_first}
    out, *ends = _run(_in_order(x, how), states, weights, kind)
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
    units = []
    for step in sums:
        unit, memory = _gate(step, memory)
        units.append(unit)
    return torch.stack(units)


def _gate(sums: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return the units and the memory of an LSTM after a step, [samples, hidden] each."""
    enter, forget, candidate, leave = sums.chunk(4, 1)
    memory = forget.sigmoid() * memory + enter.sigmoid() * candidate.tanh()
    return leave.sigmoid() * memory.tanh(), memory


# -- in a graph ------------------------------------------------------------------------------------


_SELECT, _CAT = torch.ops.aten.select.int, torch.ops.aten.cat.default


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
        name = f"{node.name}_cell_{number}"

        def call(target: Any, *args: Any, what: str, name: str = name) -> Node:
            return graph.create_node("call_function", target, args, name=f"{name}_{what}")

        first = [call(_SELECT, state, 0, number, what="first") for state in states]
        how = (first, weights, kind, number % directions == 1, batch_first)
        before = call(operators.cell_states.default, inner, *how, what="before")
        matrices = sum(weight.meta["val"].dim() == 2 for weight in weights)
        sums = [
            call(operators.cell_sums.default, inner, before, *how, part, what="sums")
            for part in parts_of(kind, is_projected=matrices > 2)
        ]
        cell = call(operators.cell.default, inner, *how, sums, what="all")
        out, *last = (call(operator.getitem, cell, i, what="out") for i in range(1 + len(states)))
        outs.append(out)
        for end, own in zip(ends, last, strict=True):
            end.append(own)
        if len(outs) == directions:
            inner = graph.call_function(_CAT, (outs, -1)) if both else outs[0]
            outs = []
    stacked = [graph.call_function(torch.ops.aten.stack.default, (end,)) for end in ends]
    for user in list(node.users):
        position: Any = user.args[1]
        user.replace_all_uses_with((inner, *stacked)[position])
        graph.erase_node(user)
    graph.erase_node(node)
