"""Read a traced program's operators as equations, and solve them into groups of channels."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from compressor.errors import CompressorError
from compressor.graph.asking import call_of
from compressor.graph.axes import Axis, Dim, Product, Sum, leaves, repeated_in_product
from compressor.graph.consumption import Consumption
from compressor.graph.groups import Uses, form_groups, list_protections
from compressor.graph.meanings import Told
from compressor.graph.network import (
    BATCH,
    Cost,
    Network,
    Shape,
    Spelling,
    Uncounted,
    Unread,
    Work,
    size_of,
)
from compressor.graph.programs.lifting import stored_tensors
from compressor.graph.programs.nodes import live_nodes
from compressor.graph.rules import RULES, Call, Equations, Rule, reasons
from compressor.graph.rules.call import Refusal, TensorShape
from compressor.graph.rules.uncounted import is_uncounted
from compressor.graph.solver import Reason, Solver
from compressor.graph.stored import StoredTensors
from compressor.records import Trace
from compressor.source_lines import owner_of, place_of

STORED = {InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR}


def analyse(trace: Trace, rules: Mapping[str, Rule] = RULES) -> Network:
    """Solve the program's dimensions, and return its groups, protected axes and costs.

    Operators without a rule protect all axes that reach them.

    Args:
        trace: The traced network; the program in training mode counts as well, if there is one.
        rules: The equations of each operator, by its name.

    Raises:
        CompressorError: A stored tensor is sparse, or a rule contradicts the trace.
    """
    solver, stored, uses = Solver(), StoredTensors(), Uses()
    programs = [trace.program] if trace.training is None else [trace.training, trace.program]
    for program in programs:
        walk = _Walk(program, rules, solver, stored, uses)
        for node in program.graph.nodes:
            getattr(walk, f"visit_{node.op}")(node)
    return walk.network(None if trace.batch_symbol else trace.batch)


class _Walk:
    """A walk over one program, whose equations are added to a solver.

    Solver, stored tensors and uses are shared by several walks; all else is this program's own.
    """

    def __init__(
        self,
        program: ExportedProgram,
        rules: Mapping[str, Rule],
        solver: Solver,
        stored: StoredTensors,
        uses: Uses,
    ) -> None:
        self.program, self.rules = program, rules
        self.solver, self.stored, self.uses = solver, stored, uses
        self.shapes: dict[str, tuple[Shape, ...]] = {}
        self.equations: dict[str, Equations] = {}
        self.consumption = Consumption(uses)
        self.work: list[tuple[Node, Work]] = []
        self.uncounted: dict[str, list[str]] = {}
        self.tensors = stored_tensors(program)
        self.inputs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self.live = live_nodes(program.graph)
        self.told = Told(iter(program.graph.nodes))

    # -- nodes ----------------------------------------------------------------------------------

    def visit_placeholder(self, node: Node) -> None:
        spec, value = self.inputs.get(node.name), node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return
        if spec is not None and spec.kind in STORED and spec.target is not None:
            name, sizes = spec.target, _sizes(value)
            self.shapes[node.name] = (
                self.stored.add(name, self.tensors[name], sizes, self.solver),
            )
            self.consumption.note_stored(node)
            if node.users:
                self.stored.use(name)
            return
        shape = tuple(map(Axis, _sizes(value)))
        self._protect(shape, Reason(reasons.INPUT, node.name))
        self.shapes[node.name] = (shape,)

    def visit_get_attr(self, node: Node) -> None:
        """Ignore sub-graphs of higher-order operators; whatever takes them has no rule."""

    def visit_output(self, node: Node) -> None:
        for source in node.all_input_nodes:
            for shape in self.shapes.get(source.name, ()):
                self._protect(shape, Reason(reasons.OUTPUT, source.name))
            self._protect(self.told.said_by(source), Reason(reasons.OUTPUT, source.name))

    def visit_call_function(self, node: Node) -> None:
        if node.target is operator.getitem:
            source, position = node.args
            assert isinstance(source, Node) and isinstance(position, int)
            self.shapes[node.name] = self.shapes.get(source.name, ())[position : position + 1]
            self.consumption.note_part(node, source)
            self.told.note_part(node, source, position)
            return
        values = [v for v in _listed(node.meta.get("val")) if isinstance(v, torch.Tensor)]
        if not values and not any(n.name in self.shapes for n in node.all_input_nodes):
            return
        call = call_of(node, node.args, node.kwargs, self._as_seen, tuple(map(_sizes, values)))
        call = replace(call, meanings=self.told.of(node))
        rule = self.rules.get(call.op)
        equations = (rule or Refusal(reasons.no_rule(call.op)))(call)
        is_known = rule is not None or torch.Tag.pointwise in getattr(node.target, "tags", ())
        if values and not equations.macs and is_uncounted(call.op, is_known=is_known):
            self.uncounted.setdefault(call.op, []).append(owner_of(node) or node.name)
        self._check(node, call, equations)
        self._solve(node, call, equations)
        self._note(node, call, equations)

    def _as_seen(self, value: Any) -> Any:
        """Return an argument as a rule sees it."""
        if isinstance(value, Node):
            if value.name in self.shapes:
                shapes = tuple(map(TensorShape, self.shapes[value.name]))
                return shapes[0] if len(shapes) == 1 else shapes
            known = value.meta.get("val")
            return size_of(known) if isinstance(known, torch.SymInt | int) else known
        return tuple(map(self._as_seen, value)) if isinstance(value, list | tuple) else value

    def _check(self, node: Node, call: Call, equations: Equations) -> None:
        """Raise CompressorError where a rule says other sizes than the trace: a defect of ours."""
        said = tuple(tuple(dim.size for dim in shape) for shape in equations.outputs)
        if said != call.outputs and call.outputs:
            raise CompressorError(
                f"the rule for {call.op} says sizes {said}, the trace {call.outputs}",
                where=place_of(node),
                consequence="the analysis stops, since its equations would be wrong",
                next_step="please report it with the layer's code",
            )

    def _solve(self, node: Node, call: Call, equations: Equations) -> None:
        place = place_of(node)
        waiting = self._competing(equations)
        for dim, text in equations.keep:
            if any(dim is other for other in waiting):
                self.uses.routings.competing.append((dim, Reason(text, place)))
            else:
                self.solver.protect(dim, Reason(text, place))
        for dim in self.told.note(node, call, equations):
            self.solver.protect(dim, Reason(reasons.no_longer_followed(call.op), place))
        for left, right in equations.same:
            self.solver.unify(left, right, Reason(f"{call.op} relates it to another layout", place))
        for shape in equations.outputs:
            for leaf in self._axes(shape):
                if leaf.size % BATCH == 0:
                    self.solver.protect(leaf, Reason(reasons.GROWS, place))

    def _competing(self, equations: Equations) -> tuple[Dim, ...]:
        """Return what is kept unless it turns out to be experts."""
        routing = equations.routing
        return routing.competing if routing is not None and self.told.is_open else ()

    def _note(self, node: Node, call: Call, equations: Equations) -> None:
        tensors = [n for n in node.all_input_nodes if n.name in self.shapes]
        self.consumption.note(node, tensors, call, equations)
        if equations.outputs:
            self.shapes[node.name] = equations.outputs
        self.equations[node.name] = equations
        layer = owner_of(node)
        if node in self.live:
            self.uses.statistics.extend(equations.statistics)
        self.uses.equal.append(equations.equal)
        self.uses.level.extend(equations.level)
        if equations.routing is not None and self.told.is_open:
            self.uses.routings.note(node.name, equations.routing)
        if equations.remark:
            self.uses.remarks.setdefault(layer or node.name, equations.remark)
        self.work += [
            (node, Work(call.op, layer, tuple(dims), node.name)) for dims in equations.macs
        ]

    def _protect(self, shape: Iterable[Dim], reason: Reason) -> None:
        for dim in shape:
            self.solver.protect(dim, reason)

    def _axes(self, shape: Shape) -> Iterable[Axis]:
        return [leaf for dim in shape for leaf in leaves(self.solver.normal(dim))]

    # -- the result -----------------------------------------------------------------------------

    def network(self, batch: int | None) -> Network:
        """Return what the equations say; `batch` is the number of samples where it is fixed."""
        self._protect_what_cannot_go()
        normal, stored = self._normal, self.stored
        tensors = {name: normal(shape) for name, shape in stored.shapes.items()}
        parameters = set(self.program.graph_signature.parameters)
        axes, groups = form_groups(self.solver, stored.own, parameters, self.uses)
        work = [(node, replace(w, dims=normal(w.dims))) for node, w in self.work]
        return Network(
            groups=groups,
            protections=list_protections(self.solver, tensors, parameters),
            tensors=tensors,
            aliases=dict(stored.aliases),
            axes=axes,
            linked=self.uses.linked(self.solver, axes),
            level=self.uses.levelled(self.solver, axes),
            routers=self.uses.routings.routers(self.solver, axes),
            remarks=tuple(f"{place}: {text}" for place, text in self.uses.remarks.items()),
            consumers=tuple(self.consumption.consumers(self.solver, stored.own, self.shapes)),
            nodes={name: self._spelling(equations) for name, equations in self.equations.items()},
            cost=Cost(
                work=tuple(w for _, w in work),
                weights=tuple(tensors[name] for name in stored.own if name in parameters),
                widths=normal(tuple(self.consumption.widths)),
                batch=batch,
                tensors=tuple(name for name in stored.own if name in parameters),
            ),
            uncounted=tuple(
                Uncounted(op, len(owners), tuple(dict.fromkeys(owners)))
                for op, owners in self.uncounted.items()
            ),
            unread=_unread([(node, w) for node, w in work if node not in self.live], batch),
        )

    def _protect_what_cannot_go(self) -> None:
        """Protect what no operator uses, what stands twice in a dimension, what is thrown away."""
        for name, shape in self.stored.shapes.items():
            if not self.stored.is_used(name):
                self._protect(shape, Reason(reasons.UNUSED, name))
            for dim in shape:
                repeated = repeated_in_product(self.solver.normal(dim))
                self._protect(repeated, Reason(reasons.TWICE))
        seen = {axis for node in self.live for axis in self._axes_of(node)}
        for node in self.program.graph.nodes:
            if node.op == "call_function" and node not in self.live:
                own = {a for n in (node, *node.all_input_nodes) for a in self._axes_of(n)}
                self._protect(own - seen, Reason(reasons.UNREAD, place_of(node)))
        self.uses.settle_experts(self.solver)
        self.uses.settle_levels(self.solver)

    def _axes_of(self, node: Node) -> Iterable[Axis]:
        return [axis for shape in self.shapes.get(node.name, ()) for axis in self._axes(shape)]

    def _normal(self, value: Any) -> Any:
        """Return a dimension, or nested tuples of dimensions and numbers, in solved form."""
        if isinstance(value, tuple):
            return tuple(map(self._normal, value))
        return self.solver.normal(value) if isinstance(value, Axis | Product | Sum) else value

    def _spelling(self, equations: Equations) -> Spelling:
        pins = equations.pins.items()
        return Spelling(
            literals={name: self._normal(value) for name, value in equations.literals.items()},
            target=equations.target,
            pins={name: (self._normal(v), self._normal(dim)) for name, (v, dim) in pins},
            outputs=self._normal(equations.outputs),
        )


def _sizes(value: torch.Tensor) -> tuple[int, ...]:
    return tuple(map(size_of, value.shape))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _unread(work: list[tuple[Node, Work]], batch: int | None) -> Unread:
    """Return what thrown-away nodes compute: the layers, and their multiply-adds."""
    layers = tuple(dict.fromkeys(w.layer or node.name for node, w in work))
    return Unread(layers, Cost(tuple(w for _, w in work), (), (), batch).macs())
