"""A trial of Torch-Pruning's importances, which has no repair of its own."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from compressor.graph.counting import count_macs
from tools.trials.networks import Measured
from tools.trials.ours import Batch, drawn, loss
from tools.trials.trial import Record, Trial

PREFIX = "tp "
IMPORTANCES: Mapping[str, Callable[[], Any]] = {
    "random": tp.importance.RandomImportance,
    "magnitude L1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "magnitude L2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "LAMP": lambda: tp.importance.LAMPImportance(p=2),
    "FPGM": tp.importance.FPGMImportance,
    "BN scale": tp.importance.BNScaleImportance,
    "Taylor": tp.importance.GroupTaylorImportance,
    "Hessian": tp.importance.GroupHessianImportance,
}
TOLERANCE = 0.005
"""Of the MACs, either way."""

Gradients = Sequence[torch.Tensor | None]


def run(trial: Trial, measured: Measured) -> Record:
    """What the smaller network is worth."""
    begin = time.perf_counter()
    module, macs, whole = smaller(trial, measured)
    seconds = {"all": time.perf_counter() - begin}
    judged = measured.judge(module.eval())
    return {"macs": macs, "original_macs": whole, "seconds": seconds, **judged}


def smaller(trial: Trial, measured: Measured) -> tuple[nn.Module, int, int]:
    """Bisect the pruning ratio until the share of MACs is met; widths inside blocks only. With its
    MACs, and those of the original."""
    batches = drawn(measured.train, trial.samples, trial.draw)
    whole = count_macs(measured.module, (measured.example[:1],), {})
    wants = trial.choice == PREFIX + "Taylor"
    gradients = _gradients(measured, batches) if wants else ()
    low, high = 0.0, 1.0
    for _ in range(16):
        share = (low + high) / 2
        module = _pruned(trial, measured, batches, gradients, share)
        macs = count_macs(module, (measured.example[:1],), {})
        if abs(macs / whole - (1 - trial.ratio)) < TOLERANCE:
            break
        low, high = (share, high) if macs > whole * (1 - trial.ratio) else (low, share)
    return module, macs, whole


def _pruned(
    trial: Trial,
    measured: Measured,
    batches: Sequence[Batch],
    gradients: Gradients,
    share: float,
) -> nn.Module:
    module = copy.deepcopy(measured.module).eval()
    torch.manual_seed(trial.draw)
    importance = IMPORTANCES[trial.choice.removeprefix(PREFIX)]()
    streams = [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not name.endswith(".conv1")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            module,
            measured.example,
            importance=importance,
            global_pruning=True,
            pruning_ratio=share,
            max_pruning_ratio=0.9,
            ignored_layers=streams,
        )
        _accumulate(module, importance, batches, gradients)
        pruner.step()
    module.zero_grad()
    return module


def _gradients(measured: Measured, batches: Sequence[Batch]) -> Gradients:
    """Of the mean loss, summed over the batches."""
    module = copy.deepcopy(measured.module).eval()
    for (x,), y in batches:
        torch.autograd.backward(loss(module(x), y))
    return [parameter.grad for parameter in module.parameters()]


def _accumulate(
    module: nn.Module, importance: Any, batches: Sequence[Batch], gradients: Gradients
) -> None:
    """Gradients as the importance wants them: of the mean loss, or squared per sample."""
    if isinstance(importance, tp.importance.GroupHessianImportance):
        importance.zero_grad()
        for (x,), y in batches:
            for each in nn.functional.cross_entropy(module(x), y, reduction="none"):
                module.zero_grad()
                torch.autograd.backward(each, retain_graph=True)
                importance.accumulate_grad(module)
    elif gradients:
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
