"""Compare our groups with torch-pruning's dependency graph of the same network.

For each group, torch-pruning is asked what else must go when the group's first channel goes from
the layer that makes it; the answers are compared as sets of (parameter, dimension).
"""

from __future__ import annotations

import copy
import ctypes
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.graph.axes import keep_mask
from compressor.graph.network import Network
from compressor.on_demand import read_all
from compressor.records import Group, Trace

Places = frozenset[str]
"""Parameters' dimensions, as "conv1.weight:0"."""

SECONDS = 60.0
"""How long torch-pruning may take, in seconds: it does not come back from some networks."""


def second_opinion(trace: Trace, network: Network, seconds: float = SECONDS) -> dict[str, Any]:
    """Find where torch-pruning and we differ; a failure of its own is a result, not an error.

    Args:
        trace: The traced network; not changed.
        network: Our analysis of it.
        seconds: How long torch-pruning may take.

    Returns:
        `by` (library and version), `failure` ("" or what it says), `agree` (how many groups are the
        same) and `differences`: per group what only one of both couples, and the reasons for which
        we keep what it would prune.
    """
    import torch_pruning

    opinion: dict[str, Any] = {
        "by": f"torch-pruning {torch_pruning.__version__}",
        "failure": "",
        "agree": 0,
        "differences": [],
    }
    try:
        with _within(seconds), redirect_stdout(io.StringIO()), torch.enable_grad():
            theirs = _Theirs(trace, network.aliases)
            differences = [*_on_our_groups(theirs, network), *_beyond_them(theirs, network)]
    except Exception as error:  # whatever its code raises on a network that it cannot read
        said = " ".join(str(error).split())[:300]
        opinion["failure"] = f"{type(error).__name__}: {said}" if said else type(error).__name__
        return opinion
    opinion["differences"] = [d for d in differences if d["only_ours"] or d["only_theirs"]]
    opinion["agree"] = len(differences) - len(opinion["differences"])
    return opinion


def _on_our_groups(theirs: _Theirs, network: Network) -> Iterator[dict[str, Any]]:
    for group in network.groups:
        ours = frozenset(
            f"{m.tensor}:{m.dim}" for m in group.members if m.tensor in theirs.parameters
        )
        found = next(
            (
                theirs.places_removed_with(layer, _first_channel(network, group, tensor, dim))
                for tensor, dim in _producers(group)
                if (layer := theirs.layer_of(tensor)) is not None
            ),
            frozenset[str](),
        )
        yield _difference(group.name, ours, found, network)


def _beyond_them(theirs: _Theirs, network: Network) -> Iterator[dict[str, Any]]:
    """Yield the differences at layers whose outputs it would prune and we would not."""
    ours = {m.tensor for g in network.groups for m in g.members if not m.contracted}
    seen: set[Places] = set()
    for path, layer in theirs.layers.items():
        if theirs.stored(f"{path}.weight") not in ours:
            found = theirs.places_removed_with(layer, [0])
            if found not in seen:
                seen.add(found)
                yield _difference(f"{path}.weight:0", frozenset(), found, network)


def _difference(name: str, ours: Places, theirs: Places, network: Network) -> dict[str, Any]:
    only_theirs = theirs - ours
    return {
        "group": name,
        "only_ours": sorted(ours - theirs),
        "only_theirs": sorted(only_theirs),
        "reasons": sorted({p.reason for p in network.protections if only_theirs & {*p.tensors}}),
    }


def _producers(group: Group) -> list[tuple[str, int]]:
    return [(m.tensor, m.dim) for m in group.members if not m.contracted]


def _first_channel(network: Network, group: Group, tensor: str, dim: int) -> list[int]:
    """Return the positions of the group's first channel in one dimension of one of its tensors."""
    keep = {network.axes[group.name]: np.arange(group.size) != 0}
    lost = ~keep_mask(network.tensors[tensor][dim], keep)
    return [int(i) for i in lost.nonzero()[0]]


class _Theirs:
    """torch-pruning's graph of a copy of the network, with what is asked of it."""

    def __init__(self, trace: Trace, aliases: Mapping[str, str]) -> None:
        import torch_pruning

        self.aliases = aliases
        model = copy.deepcopy(trace.module)
        read_all(model)
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        self.graph = torch_pruning.DependencyGraph().build_dependency(
            model,
            example_inputs=None,
            forward_fn=lambda model, _: model(*trace.examples.args, **trace.examples.kwargs),
            verbose=False,
        )
        known = set(self.graph.module2node)
        self.paths = {layer: path for path, layer in model.named_modules() if layer in known}
        self.parameters = dict(model.named_parameters())
        self.names = {id(p): name for name, p in self.parameters.items()}
        kinds = (torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR)
        self.layers = {p: layer for layer, p in self.paths.items() if isinstance(layer, kinds)}
        if not self.layers:
            raise LookupError("it finds no layer that it knows how to prune")
        self._changed: dict[tuple[int, str], Places] = {}

    def layer_of(self, tensor: str) -> nn.Module | None:
        return self.layers.get(tensor.rpartition(".")[0])

    def places_removed_with(self, layer: nn.Module, channels: list[int]) -> Places:
        """Return the places where it removes something when these output channels of a layer go."""
        prune = self.graph.get_pruner_of_module(layer).prune_out_channels
        group = self.graph.get_pruning_group(layer, prune, channels)
        return frozenset().union(*(self._dims_changed_by(dependency) for dependency, _ in group))

    def _dims_changed_by(self, dependency: Any) -> Places:
        """Return the dimensions that shrink by a dependency, seen on a copy of what is pruned."""
        target, handler = dependency.target.module, dependency.handler
        is_parameter = id(target) in self.names
        if not is_parameter and target not in self.paths:
            return frozenset()
        key = (id(target), handler.__name__)
        if key not in self._changed:
            if is_parameter:
                dim = dependency.target.pruning_dim % target.dim()
                self._changed[key] = frozenset({f"{self.names[id(target)]}:{dim}"})
            else:
                self._changed[key] = self._shrunk(target, handler)
        return self._changed[key]

    def _shrunk(self, layer: nn.Module, handler: Any) -> Places:
        is_output = self.graph.is_out_channel_pruning_fn(handler)
        count = (self.graph.get_out_channels if is_output else self.graph.get_in_channels)(layer)
        smaller = copy.deepcopy(layer)
        handler(smaller, [count - 1])
        before, after = (dict(m.named_parameters()) for m in (layer, smaller))
        return frozenset(
            f"{self.stored(f'{self.paths[layer]}.{name}')}:{dim}"
            for name, tensor in after.items()
            for dim, size in enumerate(tensor.shape)
            if size != before[name].shape[dim]
        )

    def stored(self, name: str) -> str:
        """Return the name under which a tensor is stored, which may be tied to another."""
        return self.aliases.get(name, name)


class _ExpiredError(BaseException):
    """Is raised where the time is over; code that catches every Exception lets it through."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this thread after some seconds, at its next step in Python.

    No signal does that: threads of other libraries that are loaded may not survive one.
    """
    thread = ctypes.c_ulong(threading.get_ident())

    def expire() -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_ExpiredError))

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    try:
        try:
            timer.start()
            yield
        finally:
            timer.cancel()
    except _ExpiredError:
        said = f"it had found no answer after {seconds:g} seconds"
        raise TimeoutError(said) from None
