"""A network of the zoo cut by both tools, without hints: does it come out, and does it compute what
its masked twin computes?

Both leave axes alone that cross a statistic over channels: zeros there are not the same as nothing.
Torch-Pruning is told which layers make the outputs, since it would cut them.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from compressor.agreement import difference
from compressor.graph.analysis import analyse
from compressor.graph.counting import count_macs
from compressor.graph.network import Network
from compressor.graph.programs.attention_path import unfuse_attention
from compressor.graph.programs.beginning import end_after
from compressor.graph.programs.redraw import drawable, redraw_
from compressor.graph.trace import trace
from compressor.records import Trace
from compressor.slicing import slice_network, variants
from compressor.slicing.compare import outputs_of
from tools.studies.torch_pruning import pruner_of
from tools.zoo.failing import WrongError, describe, time_limit
from tools.zoo.float64 import InFloat64, double_
from tools.zoo.members import Subject
from tools.zoo.passing import (
    TWIN_TOLERANCE,
    Record,
    halve,
    settle_,
)
from tools.zoo.twin import in_double, live_shapes, twin_difference

SHARE = 0.3
"""Of each layer's channels that Torch-Pruning is to remove: about half of the multiply-adds."""

SECONDS = 240
"""Per tool: some networks it does not come back from."""

CHANNELS = {nn.Linear: -1, nn.LSTM: -1, nn.GRU: -1}
"""Where a layer's input has its channels; of convolutions in dimension 1."""


@unfuse_attention()
def compare(build: Callable[[], Subject], tell: Callable[[Record], None]) -> Record:
    """Return what both do with one network; `tell` hears what is known so far."""
    torch.manual_seed(0)
    subject = build()
    if subject.judge is None:
        redraw_(drawable(subject.module))
    found: Record = {}
    begin = time.perf_counter()
    traced = trace(subject.module, subject.examples)
    if subject.judge is None:
        settle_(traced)
    begin_of_ours = time.perf_counter()
    for name, run in (("ours", _ours), ("torch_pruning", _theirs)):
        tell(found)
        found[name] = _tried(run, subject, traced)
    found["params"] = sum(p.numel() for p in traced.module.parameters())
    return found | {"set_up_s": round(begin_of_ours - begin, 2)}


def _tried(run: Callable[[Subject, Trace], Record], subject: Subject, traced: Trace) -> Record:
    try:
        with time_limit(SECONDS), warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            found = run(subject, traced)
    except Exception as error:  # whatever a library raises on a network that it cannot read
        return {"status": "failed", "error": describe(error)}
    if not found["twin"] <= TWIN_TOLERANCE:
        said = f"differs from its masked twin by {found['twin']:.1e}"
        error = {"kind": "WrongError", "first_line": said, "where": ""}
        return found | {"status": "failed", "error": error}
    return found | {"status": "passed"}


def _ours(subject: Subject, traced: Trace) -> Record:
    begin = time.perf_counter()
    again = trace(subject.module, subject.examples)
    network = analyse(again)
    analysed = time.perf_counter()
    choice, _ = halve(network, traced)
    begin_slicing = time.perf_counter()
    sliced = slice_network(traced, network, choice.keep)
    end = time.perf_counter()
    return {
        "analyse_s": analysed - begin,
        "slice_s": end - begin_slicing,
        "removed": choice.removed,
        "form": sliced.plan.form,
        "twin": twin_difference(traced, network, network.masks(choice.keep), sliced.program),
    }


def _theirs(subject: Subject, traced: Trace) -> Record:
    network = analyse(traced)
    module = copy.deepcopy(traced.module).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    inputs, names = traced.examples, {layer: n for n, layer in module.named_modules()}
    ignored = [module.get_submodule(path) for path in _making_outputs(traced, network)]
    torch.manual_seed(0)
    begin = time.perf_counter()
    forward = {"forward_fn": lambda model, _: model(*inputs.args, **inputs.kwargs)}
    with torch.enable_grad():
        pruner = pruner_of(module, None, "random", SHARE, ignored_layers=ignored, **forward)
        analysed = time.perf_counter()
        lost = _pruned(pruner, names, network)
    end = time.perf_counter()
    if not lost:
        raise WrongError("nothing was pruned")
    wanted, _ = live_shapes(traced.module, traced)
    shapes, is_live = live_shapes(module, traced)
    if shapes != wanted:
        raise WrongError("the outputs have other shapes")
    if not is_live:
        raise WrongError("the outputs do not depend on the inputs")
    return {
        "analyse_s": analysed - begin,
        "slice_s": end - analysed,
        "removed": 1 - _macs(module, traced) / _macs(traced.module, traced),
        "twin": _twin_difference(traced, module, lost),
    }


def _macs(module: nn.Module, traced: Trace) -> int:
    with end_after(module, traced.ends_after):
        return count_macs(module, traced.examples.args, traced.examples.kwargs)


def _making_outputs(traced: Trace, network: Network) -> list[str]:
    """Layers whose outputs are the network's: the same memory, or what our equations call so."""
    made: dict[str, Tensor] = {}

    def hear(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                made[path] = output

        return hook

    layers = {path: layer for path, layer in traced.module.named_modules() if path}
    hooks = [layer.register_forward_hook(hear(path)) for path, layer in layers.items()]
    try:
        given = outputs_of(traced.module, traced.examples, traced.ends_after)
    finally:
        for each in hooks:
            each.remove()
    places = {output.untyped_storage().data_ptr() for output in given}
    found = {path for path, x in made.items() if x.untyped_storage().data_ptr() in places}
    found |= {
        tensor.rpartition(":")[0].rpartition(".")[0]
        for protection in network.protections
        if protection.reason == "a model output"
        for tensor in protection.tensors
        if tensor.endswith(":0")
    }
    return sorted(path for path in found & layers.keys() if not list(layers[path].children()))


Lost = list[tuple[str, int, list[int]]]
"""Layers that lose inputs: their path, where the channels lie, which are lost."""


def _pruned(pruner: Any, names: dict[nn.Module, str], network: Network) -> Lost:
    """Prune all groups but those that cross a statistic."""
    crossing = {f"{m.tensor}:{m.dim}" for g in network.groups if not g.exact for m in g.members}
    lost: Lost = []
    for group in pruner.step(interactive=True):
        if crossing & {_place(pruner.DG, dep, names) for dep, _ in group}:
            continue
        lost += [
            (names[dep.target.module], _channels(dep.target.module), list(indices))
            for dep, indices in group
            if _consumes(pruner.DG, dep)
        ]
        group.prune()
    return lost


def _place(graph: Any, dep: Any, names: dict[nn.Module, str]) -> str:
    """The dimension of a weight that is cut, as our groups name their members."""
    dim = 0 if graph.is_out_channel_pruning_fn(dep.handler) else 1
    return f"{names.get(dep.target.module)}.weight:{dim}"


def _channels(layer: nn.Module) -> int:
    return next((dim for kind, dim in CHANNELS.items() if isinstance(layer, kind)), 1)


def _consumes(graph: Any, dep: Any) -> bool:
    layer = dep.target.module
    is_layer = isinstance(layer, (*CHANNELS, nn.modules.conv._ConvNd))
    return is_layer and not graph.is_out_channel_pruning_fn(dep.handler)


def _twin_difference(traced: Trace, module: nn.Module, lost: Lost) -> float:
    """The dense network with zeros where lost channels enter a layer, beside the smaller one."""
    twin = double_(copy.deepcopy(traced.module))
    smaller = double_(copy.deepcopy(module))
    given = [in_double(inputs) for inputs in variants(traced)]
    with InFloat64(), _deaf(twin, lost), torch.no_grad():  # type: ignore[no-untyped-call]
        expected = [outputs_of(twin, x, traced.ends_after) for x in given]
        found = [outputs_of(smaller, x, traced.ends_after) for x in given]
    return difference(expected, found).size


@contextmanager
def _deaf(module: nn.Module, lost: Lost) -> Iterator[None]:
    hooks = [
        module.get_submodule(path).register_forward_pre_hook(_zeroing(dim, indices))
        for path, dim, indices in lost
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _zeroing(dim: int, indices: Sequence[int]) -> Callable[..., Any]:
    def hook(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        first: Tensor = given[0].clone()
        first.index_fill_(dim, torch.tensor(indices), 0)
        return (first, *given[1:])

    return hook
