"""Read a traced program's operators as equations, and solve them into groups of channels."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import InputKind
from torch.fx import Node

from compressor.errors import CompressorError
from compressor.graph.axes import (
    Axis,
    Dim,
    Reason,
    Solver,
    coordinates,
    leaves,
    repeated_in_product,
)
from compressor.graph.groups import Uses, grouped, protections
from compressor.graph.network import (
    BATCH,
    Consumer,
    Cost,
    Network,
    Shape,
    Spelling,
    Uncounted,
    Unread,
    size_of,
)
from compressor.graph.programs.lifting import stored_tensors
from compressor.graph.programs.nodes import given_arguments, keeps_zeros, live_nodes, operand
from compressor.graph.rules import RULES, Call, Equations, Rule, reasons
from compressor.graph.rules.call import Refusal, TensorShape
from compressor.graph.rules.uncounted import is_uncounted
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
    analysis = _Analysis(trace, rules)
    if trace.training is not None:
        analysis.walk(trace.training)
    analysis.walk(trace.program)
    return analysis.network()


class _Analysis:
    """A walk over programs that share their tensors; `solver` holds what is known so far.

    What belongs to single nodes is that of the last program.
    """

    def __init__(self, trace: Trace, rules: Mapping[str, Rule]) -> None:
        self.trace, self.rules = trace, rules
        self.solver = Solver()
        self.tensors: dict[str, Shape] = {}
        self.aliases: dict[str, str] = {}
        self.stored_at: dict[Any, str] = {}
        self.used: set[str] = set()
        self.uses = Uses()

    def walk(self, program: torch.export.ExportedProgram) -> None:
        """Add the equations of every node of the program to the solver."""
        self.program = program
        self.shapes: dict[str, tuple[Shape, ...]] = {}
        self.equations: dict[str, Equations] = {}
        self.from_weights: set[str] = set()
        self.summed: list[tuple[Node, Dim]] = []
        self.plain: set[str] = set()
        self.widths: list[Dim] = []
        self.products: list[tuple[Node, Shape]] = []
        self.worked: dict[str, list[str]] = {}
        self.stored = stored_tensors(program)
        self.inputs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self.live = live_nodes(program.graph)
        for node in program.graph.nodes:
            getattr(self, f"visit_{node.op}")(node)

    # -- nodes ----------------------------------------------------------------------------------

    def visit_placeholder(self, node: Node) -> None:
        spec = self.inputs.get(node.name)
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return
        if spec is not None and spec.kind in STORED and spec.target is not None:
            self.shapes[node.name] = (self._stored(spec.target, value),)
            self.from_weights.add(node.name)
            self.plain.add(node.name)
            if node.users:
                self.used.add(self.aliases.get(spec.target, spec.target))
            return
        shape = tuple(Axis(size) for size in self._sizes(value))
        self._protect(shape, Reason(reasons.INPUT, node.name))
        self.shapes[node.name] = (shape,)

    def _stored(self, name: str, value: torch.Tensor) -> Shape:
        """Return the dimensions of a stored tensor: one expression per storage.

        Tied tensors share theirs; views that overlap otherwise are protected.
        """
        if name in self.tensors:
            return self.tensors[name]
        tensor = self.stored[name]
        if tensor.layout != torch.strided:
            raise CompressorError(
                f"a tensor of the network is not dense: {name} ({tensor.layout})",
                consequence="its channels cannot be cut",
                next_step="make it dense (tensor.to_dense()): what is zero in it stays zero",
            )
        storage = tensor.untyped_storage().data_ptr()
        key = (storage, tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset())
        if storage and key in self.stored_at:
            self.aliases[name] = self.stored_at[key]
            shape = self.tensors[self.stored_at[key]]
        else:
            shape = tuple(Axis(size) for size in value.shape)
        for other_key, other in self.stored_at.items():
            if storage and other_key[0] == storage and other_key != key:
                self._protect((*shape, *self.tensors[other]), Reason(reasons.SHARES_MEMORY, name))
        self.stored_at.setdefault(key, name)
        self.tensors[name] = shape
        return shape

    def visit_get_attr(self, node: Node) -> None:
        """Ignore sub-graphs of higher-order operators; whatever takes them has no rule."""

    def visit_output(self, node: Node) -> None:
        for source in node.all_input_nodes:
            for shape in self.shapes.get(source.name, ()):
                self._protect(shape, Reason(reasons.OUTPUT, source.name))

    def visit_call_function(self, node: Node) -> None:
        values = _tensor_values(node.meta.get("val"))
        if node.target is _GETITEM:
            source, position = node.args
            assert isinstance(source, Node) and isinstance(position, int)
            found = self.shapes.get(source.name, ())
            self.shapes[node.name] = found[position : position + 1]
            for kind in (self.from_weights, self.plain):
                if source.name in kind:
                    kind.add(node.name)
            return
        if not values and not any(n.name in self.shapes for n in node.all_input_nodes):
            return
        call = self._call(node, values)
        rule = self.rules.get(call.op)
        equations = (rule or Refusal(reasons.no_rule(call.op)))(call)
        is_known = rule is not None or torch.Tag.pointwise in getattr(node.target, "tags", ())
        if values and not equations.macs and is_uncounted(call.op, is_known=is_known):
            self.worked.setdefault(call.op, []).append(owner_of(node) or node.name)
        self._solve(node, call, equations)

    def _call(self, node: Node, values: list[torch.Tensor]) -> Call:
        sizes = tuple(self._sizes(value) for value in values)
        target = node.target
        if not isinstance(target, torch._ops.OpOverload):
            operands = enumerate((*node.args, *node.kwargs.values()))
            return Call(str(target), {str(i): self._argument(a) for i, a in operands}, sizes)
        given = given_arguments(node)
        arguments = {
            a.name: self._argument(
                given.get(a.name, a.default_value if a.has_default_value() else None)
            )
            for a in target._schema.arguments
        }
        return Call(str(target).removeprefix("aten."), arguments, sizes)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Node):
            if value.name in self.shapes:
                shapes = tuple(TensorShape(shape) for shape in self.shapes[value.name])
                return shapes[0] if len(shapes) == 1 else shapes
            meta = value.meta.get("val")
            return size_of(meta) if isinstance(meta, torch.SymInt | int) else meta
        if isinstance(value, list | tuple):
            return tuple(self._argument(item) for item in value)
        return value

    def _solve(self, node: Node, call: Call, equations: Equations) -> None:
        place = place_of(node)
        for dim, text in equations.keep:
            self.solver.protect(dim, Reason(text, place))
        for left, right in equations.same:
            self.solver.unify(left, right, Reason(f"{call.op} relates it to another layout", place))
        self._check(node, call, equations)
        for shape in equations.outputs:
            for leaf in (leaf for dim in shape for leaf in leaves(self.solver.normal(dim))):
                if leaf.size % BATCH == 0:
                    self.solver.protect(leaf, Reason(reasons.GROWS, place))
        if equations.outputs:
            self.shapes[node.name] = equations.outputs
        self.equations[node.name] = equations
        self._note_roles(node, call, equations)

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

    def _note_roles(self, node: Node, call: Call, equations: Equations) -> None:
        tensors = [n for n in node.all_input_nodes if n.name in self.shapes]
        weights = [n for n in tensors if n.name in self.from_weights]
        if len(weights) == len(tensors):
            self.from_weights.add(node.name)
            if keeps_zeros(node) and all(n.name in self.plain for n in weights):
                self.plain.add(node.name)
        if node in self.live:
            self.uses.statistics.extend(equations.statistics)
        self.uses.equal.append(equations.equal)
        self.products += [(node, tuple(product)) for product in equations.macs]
        names = {n.name for n in weights}
        operands = [operand(node, argument) for argument, _ in equations.contracted]
        by_weights = any(source is not None and source.name in names for source in operands)
        if not by_weights:
            self.uses.heads.extend(equations.heads)
            self.uses.head_width.extend(equations.head_width)
        elif equations.width is not None:
            self.widths.append(equations.width)
        for (argument, dim), source in zip(equations.contracted, operands, strict=True):
            if source is None or (by_weights and source.name not in names):
                continue
            summed = call.shape(argument)[dim]
            if by_weights:
                self.uses.contracted.add(summed)
                self.summed.append((node, summed))
            if source.name not in self.plain:
                self.uses.computed.add(summed)

    # -- sizes ----------------------------------------------------------------------------------

    def _sizes(self, value: torch.Tensor) -> tuple[int, ...]:
        return tuple(size_of(size) for size in value.shape)

    def _protect(self, shape: Iterable[Dim], reason: Reason) -> None:
        for dim in shape:
            self.solver.protect(dim, reason)

    # -- the result -----------------------------------------------------------------------------

    def network(self) -> Network:
        normal = self.solver.normal
        for name, shape in self.tensors.items():
            if self.aliases.get(name, name) not in self.used:
                self._protect(shape, Reason(reasons.UNUSED, name))
            for dim in shape:
                for axis in repeated_in_product(normal(dim)):
                    self.solver.protect(axis, Reason(reasons.TWICE))
        self._keep_unread()
        tensors = {name: tuple(map(normal, shape)) for name, shape in self.tensors.items()}
        parameters = set(self.program.graph_signature.parameters)
        stored = {n: shape for n, shape in self.tensors.items() if n not in self.aliases}
        axes, groups = grouped(self.solver, stored, parameters, self.uses)
        batch = None if self.trace.batch_symbol else self.trace.batch
        return Network(
            groups=groups,
            protections=protections(self.solver, tensors, parameters),
            tensors=tensors,
            aliases=dict(self.aliases),
            axes=axes,
            linked=self.uses.linked(self.solver, axes),
            consumers=tuple(self._consumers()),
            nodes={name: self._spelling(equations) for name, equations in self.equations.items()},
            cost=Cost(
                products=tuple(tuple(map(normal, product)) for _, product in self.products),
                weights=tuple(tensors[name] for name in stored if name in parameters),
                widths=tuple(map(normal, self.widths)),
                batch=batch,
            ),
            uncounted=tuple(
                Uncounted(op, len(owners), tuple(dict.fromkeys(owners)))
                for op, owners in self.worked.items()
            ),
            unread=self._unread(batch),
        )

    def _keep_unread(self) -> None:
        """Protect axes that only thrown-away results have: nothing tells what they matter."""
        seen = {a for node in self.live for a in self._axes(node)}
        for node in self.program.graph.nodes:
            if node.op == "call_function" and node not in self.live:
                own = [a for n in (node, *node.all_input_nodes) for a in self._axes(n)]
                self._protect(set(own) - seen, Reason(reasons.UNREAD, place_of(node)))

    def _axes(self, node: Node) -> Iterable[Axis]:
        for shape in self.shapes.get(node.name, ()):
            for dim in shape:
                yield from leaves(self.solver.normal(dim))

    def _unread(self, batch: int | None) -> Unread:
        dead = [(node, product) for node, product in self.products if node not in self.live]
        layers = tuple(dict.fromkeys(owner_of(node) or node.name for node, _ in dead))
        return Unread(layers, Cost(tuple(product for _, product in dead), (), (), batch).macs())

    def _consumers(self) -> Iterable[Consumer]:
        """Yield the consumers: where exactly one dimension of an activation meets a parameter's."""
        places = {
            dim: (name, i)
            for name, shape in self.tensors.items()
            for i, dim in enumerate(shape)
            if name not in self.aliases
        }
        for node, summed in self.summed:
            met = [
                (source.name, at)
                for source in node.all_input_nodes
                if source.name not in self.from_weights
                for shape in self.shapes.get(source.name, ())
                for at, dim in enumerate(shape)
                if self._runs_along(dim, summed)
            ]
            if summed in places and len(met) == 1:
                yield Consumer(node.name, *places[summed], *met[0])

    def _runs_along(self, dim: Dim, other: Dim) -> bool:
        """Return whether each channel has the same positions in both; `dim` may repeat `other`."""
        dim, other = self.solver.normal(dim), self.solver.normal(other)
        free = {axis for axis in leaves(other) if not self.solver.is_kept(axis)}
        if not free or dim.size % other.size or not free <= set(leaves(dim)):
            return False
        return all(
            np.array_equal(
                coordinates(dim, axis),
                np.tile(coordinates(other, axis), dim.size // other.size),
            )
            for axis in free
        )

    def _spelling(self, equations: Equations) -> Spelling:
        normal = self.solver.normal

        def solved(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(solved, value))
            return value if isinstance(value, int) else normal(value)

        return Spelling(
            literals={name: solved(value) for name, value in equations.literals.items()},
            target=equations.target,
            pins={name: (value, normal(dim)) for name, (value, dim) in equations.pins.items()},
            outputs=tuple(tuple(map(normal, shape)) for shape in equations.outputs),
        )


# -- reading programs --------------------------------------------------------------------------

_GETITEM = operator.getitem


def _tensor_values(value: Any) -> list[torch.Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [v for v in values if isinstance(v, torch.Tensor)]
