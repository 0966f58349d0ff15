"""Torch-Pruning's smaller networks of this comparison, with the hints that each needs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch_pruning as tp
from torch import nn

from compressor.graph.counting import count_macs
from tools.latency.incumbent import bisected, pruned
from tools.peers.shakespeare import CharacterModel
from tools.training.methods import METHODS, Bench, Made
from tools.training.trial import Trial


def whole_network(bench: Bench, trial: Trial) -> Made:
    """By group magnitude, globally; all but the last layer's outputs."""
    module, _ = pruned(bench.module, bench.example, 1 - 1 / trial.times, None)
    return module, {"sliced": bench.data.test(module)}


def heads_and_widths(bench: Bench, trial: Trial) -> Made:
    """The same of a transformer: whole heads, and the widths inside its perceptrons. What it has to
    be told: where heads are, and which layers make the stream."""

    def smaller(share: float) -> tuple[nn.Module, float]:
        module = copy.deepcopy(bench.module)
        assert isinstance(module, CharacterModel)
        blocks = list(module.blocks)
        heads = {block.attention.qkv: block.attention.heads for block in blocks}
        streams = [block.attention.out for block in blocks] + [block.down for block in blocks]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = tp.pruner.BasePruner(
                module,
                bench.example,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                global_pruning=True,
                pruning_ratio=share,
                max_pruning_ratio=0.9,
                ignored_layers=[module.token, module.head, *streams],
                num_heads=dict(heads),
                prune_num_heads=True,
                prune_head_dims=False,
                head_pruning_ratio=share,
            )
            pruner.step()
        for block in blocks:
            block.attention.heads = pruner.num_heads[block.attention.qkv]
        return module, count_macs(module, (bench.example[:1],), {}) / bench.macs

    module, _ = bisected(smaller, 1 / trial.times)
    return module, {"sliced": bench.data.test(module)}


WAYS: Mapping[str, Callable[[Bench, Trial], Made]] = {
    "ResNet-20": METHODS["Torch-Pruning"],
    "ResNet-56": METHODS["Torch-Pruning"],
    "MobileNet-V1": whole_network,
    "MobileNet-V2": whole_network,
    "character GPT": heads_and_widths,
}


def made(bench: Bench, trial: Trial) -> Made:
    """As is best for the network."""
    return WAYS[trial.network](bench, trial)


def taylor(bench: Bench, trial: Trial) -> Made:
    return METHODS["Torch-Pruning Taylor"](bench, trial)


METHODS_HERE: Mapping[str, Any] = {
    "ours": METHODS["ours"],
    "ours in steps of 8": METHODS["ours in steps of 8"],
    "Torch-Pruning": made,
    "Torch-Pruning Taylor": taylor,
}
