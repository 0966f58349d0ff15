"""A rival made here: channels chosen by fluctuation, and the mean of what is gone put into biases.

After An et al. 2023, "Fluctuation-based Adaptive Structured Pruning for Large Language Models".
The choice is the product's `--criterion flap` without repair; the biases are added afterwards,
since the original's class has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import compressor
from compressor.records import Plan

SAMPLES = 256
"""Windows that the means are taken over."""


def cut_by_fluctuation(
    module: nn.Module, example: Tensor, train: Tensor, options: Mapping[str, Any]
) -> compressor.Result:
    """Return the result of the cut, whose biases are still to be added.

    Args:
        module: Not changed.
        example: What it takes [1, ...].
        train: Samples that channels are chosen by, and means taken over [n, ...].
        options: Those of `compressor.compress`.
    """
    asked = {"criterion": "flap", "repair": False, "format": (), "search": 0, **options}
    return compressor.compress(module, example, data=TensorDataset(train), **asked)


def add_biases(smaller: nn.Module, original: nn.Module, plan: Plan, train: Tensor) -> nn.Module:
    """Give each linear layer that lost inputs a bias, which adds what these added on average.

    Args:
        smaller: Changed in place.
        original: What it was cut out of; in eval mode.
        plan: What was kept.
        train: Samples that the means are taken over [n, ...].
    """
    kept = {
        name: plan.tensors[f"{name}.weight"][1]
        for name, layer in original.named_modules()
        if isinstance(layer, nn.Linear) and 1 in plan.tensors.get(f"{name}.weight", {})
    }
    for name, average in mean_inputs(original, list(kept), train).items():
        gone = torch.ones(len(average), dtype=torch.bool)
        gone[list(kept[name])] = False
        layer, whole = smaller.get_submodule(name), original.get_submodule(name)
        rows = plan.tensors[f"{name}.weight"].get(0)
        added = whole.weight.detach()[:, gone] @ average[gone]  # type: ignore[index]
        added = added if rows is None else added[list(rows)]
        before = layer.bias if layer.bias is not None else torch.zeros_like(added)
        layer.bias = nn.Parameter(before.detach() + added)  # type: ignore[operator]
    return smaller.eval()


def mean_inputs(module: nn.Module, names: list[str], train: Tensor) -> dict[str, Tensor]:
    """Return the mean of what linear layers are given [in_features], by their names."""
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(names, 0)

    def adding(name: str) -> Any:
        def add(_: nn.Module, given: tuple[Tensor]) -> None:
            rows = given[0].detach().flatten(0, -2).double()
            sums[name] = sums.get(name, 0) + rows.sum(0)
            counts[name] += len(rows)

        return add

    hooks = [module.get_submodule(n).register_forward_pre_hook(adding(n)) for n in names]
    with torch.inference_mode():
        for part in train[:SAMPLES].split(32):
            module(part)
    for hook in hooks:
        hook.remove()
    return {name: (sums[name] / counts[name]).float() for name in names}
