"""Run an ONNX graph as a module: its steps are modules, its tensors parameters and buffers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.loading.onnx.contents import OnnxSource, as_float32
from compressor.loading.onnx.node_module import NodeModule, step_class
from compressor.loading.onnx.operators import BRANCH
from compressor.loading.onnx.operators.invocation import Value
from compressor.loading.onnx.plan_of_steps import plan_steps
from compressor.loading.onnx.planned_steps import (
    FromTensors,
    FromValue,
    GraphPlan,
    Planned,
    Source,
    every_step,
)
from compressor.loading.onnx.saying import refused
from compressor.loading.onnx.small_numbers import Numbers
from compressor.loading.onnx.uses import last_uses
from compressor.runtimes.inputs import words_of


class OnnxNetwork(nn.Module):
    """The network of an ONNX file.

    Attributes:
        source: The file that it was read from.
        layout: How the graph is run.
        sizes: The sizes of its example inputs, by their names in the file.
    """

    source: OnnxSource
    layout: GraphPlan
    sizes: Mapping[str, list[int]]

    def _run(self, inputs: tuple[Value, ...], watch: Callable[[str, Value], None]) -> list[Value]:
        """Run the graph; `watch` is told the name of every value, and the value."""
        values: dict[str, Value] = {}
        for declared, given in zip(self.source.graph.inputs, inputs, strict=True):
            values[declared.name] = given
            watch(declared.name, given)
        tensors = [given for given in inputs if isinstance(given, Tensor)]
        device = tensors[0].device if tensors else None
        last = last_uses(self.layout)
        for at, step in enumerate(self.layout.steps):
            self._step(step, values, device, watch)
            for name in last.get(at, ()):
                values.pop(name, None)
        return [self.value(source, values) for source in self.layout.results]

    def _step(
        self,
        step: Planned,
        values: dict[str, Value],
        device: torch.device | None,
        watch: Callable[[str, Value], None],
    ) -> None:
        inputs = [self.value(source, values) for source in step.inputs]
        if step.op == BRANCH:
            outputs = self._branch(step, inputs[0], values, device, watch)
        else:
            module = self.get_submodule(step.path)
            result = module(*inputs, device=device)
            outputs = result if isinstance(result, tuple) and len(step.outputs) > 1 else (result,)
        for name, value in zip(step.outputs, outputs, strict=False):
            if name:
                values[name] = value
                watch(name, value)

    def _branch(
        self,
        step: Planned,
        condition: Value,
        values: dict[str, Value],
        device: torch.device | None,
        watch: Callable[[str, Value], None],
    ) -> tuple[Value, ...]:
        if not isinstance(condition, Numbers):
            raise refused(
                f"{BRANCH} takes the branch that data choose", f"the node {step.node.name}"
            )
        steps, results = step.branches[0 if condition.listed[0] else 1]
        inner = dict(values)
        for each in steps:
            self._step(each, inner, device, watch)
        return tuple(self.value(source, inner) for source in results)

    def value(self, source: Source, values: Mapping[str, Value]) -> Value:
        """Return what a step takes: a value, tensors of the network, numbers, or None."""
        if isinstance(source, FromValue):
            return values[source.name]
        if isinstance(source, FromTensors):
            tensors = tuple(map(self._tensor, source.paths))
            return tensors if source.together else tensors[0]
        return source

    def _tensor(self, path: str) -> Tensor:
        owner, _, leaf = path.rpartition(".")
        tensor: Tensor = getattr(self.get_submodule(owner), leaf)
        return tensor

    def watch(self, inputs: tuple[Tensor, ...], watch: Callable[[str, Value], None]) -> None:
        """Run the network and hand every value that it computes to `watch`, with its name."""
        with torch.no_grad():
            self._run(inputs, watch)

    def note_literals(self, inputs: tuple[Tensor, ...]) -> None:
        """Run the network, and hold the sizes that its steps are given as their attributes.

        For inputs of the same sizes as before they are held already.
        """
        names = [declared.name for declared in self.source.graph.inputs]
        sizes = {n: list(x.shape) for n, x in zip(names, inputs, strict=True)}
        if sizes == self.sizes:
            return
        hooks = [
            step.register_forward_pre_hook(lambda step, given: step.note_literals(given))
            for step in self.modules()
            if isinstance(step, NodeModule)
        ]
        self.watch(inputs, lambda name, value: None)
        self.sizes = sizes
        for hook in hooks:
            hook.remove()


def build_network(source: OnnxSource) -> OnnxNetwork:
    """Build the module that runs a file's graph, in eval mode.

    Its forward takes the graph's inputs, by position or by their names as words of Python's, and
    returns its output, or a tuple of its outputs.
    """
    layout = plan_steps(source.graph)
    network = _class_for([declared.name for declared in source.graph.inputs])()
    network.source, network.layout, network.sizes = source, layout, {}
    planned = list(every_step(layout.steps))
    owned = {step.path: step for step in planned if step.op != BRANCH}
    paths = set(owned)
    for path in (*owned, *(p for held in layout.held.values() for p in held.paths)):
        parts = path.split(".")
        paths |= {".".join(parts[:i]) for i in range(1, len(parts))}
    for path in sorted(paths, key=lambda path: path.count(".")):
        owner, _, leaf = path.rpartition(".")
        step = owned.get(path)
        layer = nn.Module() if step is None else step_class(step.op)(step)
        network.get_submodule(owner).add_module(leaf, layer)
    _register(network)
    return network.eval()


def _register(network: OnnxNetwork) -> None:
    """Register the file's tensors, in place, as parameters and buffers under their names."""
    for name, held in network.layout.held.items():
        array = as_float32(network.source.graph.constants[name].array)
        parts = held.form.read(torch.from_numpy(array))
        for path, tensor in zip(held.paths, parts.values(), strict=True):
            owner, _, leaf = path.rpartition(".")
            layer = network.get_submodule(owner)
            if held.learns:
                layer.register_parameter(leaf, nn.Parameter(tensor.clone()))
            else:
                layer.register_buffer(leaf, tensor.clone())


def _class_for(names: list[str]) -> type[OnnxNetwork]:
    """Return a class of networks whose forward takes inputs of these names."""
    words = words_of(names)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [inspect.Parameter(w, inspect.Parameter.POSITIONAL_OR_KEYWORD) for w in words]
    signature = inspect.Signature([own, *given])

    def forward(self: OnnxNetwork, *args: Any, **kwargs: Any) -> Any:
        """Run the graph."""
        bound = signature.bind(self, *args, **kwargs).arguments
        results = self._run(tuple(bound[word] for word in words), lambda name, value: None)
        outputs = [value.tensor() if isinstance(value, Numbers) else value for value in results]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return type("OnnxNetwork", (OnnxNetwork,), {"forward": forward, "__module__": __name__})
