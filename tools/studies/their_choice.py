"""Torch-Pruning's choice of channels as a plan of ours, to be cut and repaired by `--plan`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.records import ExampleInputs
from compressor.slicing import slice_network
from tools.studies.torch_pruning import Goal, Hint, History, find_history


def write_plan(module: nn.Module, example: Tensor, goal: Goal, hint: Hint, path: Path) -> None:
    """Write the plan.json of the network that Torch-Pruning makes of a module.

    Args:
        module: Not changed.
        example: What it takes, [1, ...].
        goal: How small, and by what.
        hint: What Torch-Pruning has to be told.
        path: The file.
    """
    history = find_history(module, example, goal, hint)
    traced = trace(module, ExampleInputs((example,)))
    network = analyse(traced)
    keep = _kept(network, replay_on_numbers(module, example, history))
    path.write_text(slice_network(traced, network, keep).plan.to_json(), encoding="utf-8")


def replay_on_numbers(module: nn.Module, example: Tensor, history: History) -> dict[str, Tensor]:
    """Cut a copy whose parameters hold their channels' numbers; return those that are left.

    Returns:
        Name of a parameter -> the numbers of its first dimension's channels.
    """
    copied = copy.deepcopy(module).eval()
    with torch.no_grad():
        for parameter in copied.parameters():
            numbers = torch.arange(len(parameter), dtype=parameter.dtype)
            parameter.copy_(numbers.view(-1, *[1] * (parameter.dim() - 1)).expand_as(parameter))
    graph = tp.DependencyGraph().build_dependency(copied, example)
    graph.load_pruning_history(history)
    left = ((name, parameter.detach()) for name, parameter in copied.named_parameters())
    return {name: numbers.reshape(len(numbers), -1)[:, 0].long() for name, numbers in left}


def _kept(network: Network, left: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return what is left of each group whose channels a parameter's first dimension makes."""
    keep: dict[str, tuple[int, ...]] = {}
    for group in network.groups:
        makers = [m for m in group.members if m.dim == 0 and not m.contracted and m.tensor in left]
        whole = [m for m in makers if network.tensors[m.tensor][0].size == group.size]
        if whole:
            keep[group.name] = tuple(left[whole[0].tensor].tolist())
    return keep
