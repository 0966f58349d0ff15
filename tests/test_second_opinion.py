"""torch-pruning's dependency graph as a second opinion: on networks that it handles, its groups of
coupled (tensor, dimension) places and ours are the same, position by position."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch_pruning as tp
import torchvision
from torch import nn

from compressor.graph.analysis import analyse
from compressor.graph.axes import keep_mask
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.records import ExampleInputs

Place = tuple[str, int]
Lost = frozenset[tuple[Place, frozenset[int]]]
"""What removing one channel removes: the positions in every place."""

CHANNEL = 1


def our_groups(network: Network) -> set[Lost]:
    found = set()
    for group in network.groups:
        keep = {network.axes[group.name]: np.arange(group.size) != CHANNEL}
        lost = {
            (m.tensor, m.dim): ~keep_mask(network.tensors[m.tensor][m.dim], keep)
            for m in group.members
        }
        found.add(frozenset((place, _positions(mask)) for place, mask in lost.items()))
    return found


def _positions(mask: np.ndarray) -> frozenset[int]:
    return frozenset(int(i) for i in mask.nonzero()[0])


def their_groups(model: nn.Module, example: torch.Tensor) -> set[Lost]:
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=example)
    names = {layer: path for path, layer in model.named_modules()}
    found = set()
    for layer in (m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        group = graph.get_pruning_group(layer, prune, [CHANNEL])
        lost = {
            (place, frozenset(map(int, idxs)))
            for dependency, idxs in group
            if dependency.target.module in names
            for place in _places(names, dependency)
        }
        found.add(frozenset(lost))
    return found


def _places(names: dict[nn.Module, str], dependency: tp.Dependency) -> Iterator[Place]:
    layer = dependency.target.module
    path, taken = names[layer], dependency.handler.__name__
    if taken == "prune_in_channels" and not isinstance(layer, nn.BatchNorm2d):
        yield f"{path}.weight", 1
        return
    assert taken == "prune_out_channels"
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(layer, name, None) is not None:
            yield f"{path}.{name}", 0


OUTPUT = {"resnet18": "fc", "mobilenet_v2": "classifier.1", "vgg16_bn": "classifier.6"}


@pytest.mark.parametrize(
    ("name", "side", "groups"),
    [("resnet18", 64, 12), ("mobilenet_v2", 64, 25), ("vgg16_bn", 32, 15)],
)
def test_both_find_the_same_couplings(name: str, side: int, groups: int) -> None:
    """But for one: torch-pruning also offers the classes of the last layer, which we protect."""
    model = getattr(torchvision.models, name)(weights=None).eval()
    example = torch.randn(1, 3, side, side)
    theirs = their_groups(model, example)
    ours = our_groups(analyse(trace(model, ExampleInputs((example,)))))
    classes = frozenset(
        ((f"{OUTPUT[name]}.{tensor}", 0), frozenset({CHANNEL})) for tensor in ("weight", "bias")
    )
    assert len(ours) == groups
    assert theirs - ours == {classes}
    assert ours <= theirs
