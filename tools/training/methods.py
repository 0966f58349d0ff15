"""Ways to a smaller network, before it is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from compressor.graph.counting import count_macs
from compressor.recover import GroupSparsity, Objective, Recipe, fine_tune
from tools.latency import incumbent as magnitude
from tools.training.data import Judged
from tools.training.kept import Kept
from tools.training.trial import Trial
from tools.trials import incumbent, ours
from tools.trials.networks import Measured
from tools.trials.trial import Trial as Choosing

SPARSE_EPOCHS, STRENGTH = 40, 5e-4

Accuracies = dict[str, float]
"""In per cent, on the test images, by the moment: sliced, repaired."""
Made = tuple[nn.Module, Accuracies]


class Bench:
    """A trained network, analysed once, with its data."""

    def __init__(self, name: str, data: Judged, kept: Kept, methods: Methods | None = None) -> None:
        self.name, self.data, self.kept = name, data, kept
        self.methods = METHODS if methods is None else methods
        self.module = data.network(name)
        self.example = data.calibration.images[:2]
        self.base = data.test(self.module)
        self.macs = count_macs(self.module, (self.example[:1],), {})
        self.measured = Measured(self.module, self.example, data.calibration, lambda _: {}, "top1")
        self.ours = ours.Ours(self.measured)

    def make(self, trial: Trial) -> Made:
        """The smaller network, in eval mode on the CPU."""
        return self.methods[trial.method](self, trial)


def _ours(bench: Bench, trial: Trial, choice: str = "reconstruction", **options: Any) -> Made:
    repair = "least squares" if choice == "reconstruction" else "none"
    ratio = 1 - 1 / trial.times
    choosing = Choosing(trial.study, bench.name, choice, repair, ratio, draw=trial.seed, **options)
    chosen, sliced, _ = bench.ours.sliced(choosing)
    moments = {"sliced": bench.data.test(sliced.module)}
    if repair != "none":
        bench.ours.repair(choosing, chosen, sliced)
        moments["repaired"] = bench.data.test(sliced.module)
    return sliced.module, moments


def _sparse(bench: Bench, trial: Trial) -> Made:
    """Ours, of the network after sparsity learning."""
    module, name = copy.deepcopy(bench.module), f"{trial.file}-sparse"
    network = bench.ours.network
    module.to(bench.data.device)
    fine_tune(
        module,
        bench.data.epochs(trial.seed),
        Recipe(SPARSE_EPOCHS, seed=trial.seed),
        Objective(teacher=copy.deepcopy(bench.module)),
        device=bench.data.device,
        penalty=GroupSparsity(network, module, network.groups, STRENGTH),
        state=bench.kept.state(name),
        after_epoch=lambda reached: bench.kept.keep(name, reached),
    )
    module.cpu()
    learnt = copy.copy(bench)
    learnt.measured = replace(bench.measured, module=module)
    learnt.ours = ours.Ours(learnt.measured)
    smaller, moments = _ours(learnt, trial)
    return smaller, {"sparse": bench.data.test(module), **moments}


def _incumbent(bench: Bench, trial: Trial) -> Made:
    module, _ = magnitude.pruned(
        *(bench.module, bench.example, 1 - 1 / trial.times, None), inside_blocks=True
    )
    return module, {"sliced": bench.data.test(module)}


def _taylor(bench: Bench, trial: Trial) -> Made:
    choosing = Choosing(
        *(trial.study, bench.name, "tp Taylor"), ratio=1 - 1 / trial.times, draw=trial.seed
    )
    module = incumbent.smaller(choosing, bench.measured)[0].eval()
    return module, {"sliced": bench.data.test(module)}


def _from_scratch(bench: Bench, trial: Trial) -> Made:
    """The sizes of ours, with weights drawn anew."""
    module, _ = _ours(bench, trial)
    module = copy.deepcopy(module)
    torch.manual_seed(trial.seed)
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return module, {}


_inner: Mapping[str, Any] = {"inner": True, "scope": "layer"}

Methods = Mapping[str, Callable[[Bench, Trial], Made]]
METHODS: Methods = {
    "ours": _ours,
    "ours in steps of 8": partial(_ours, round_to=8),
    "ours inside blocks": partial(_ours, inner=True),
    "ours inside blocks, uniform": partial(_ours, **_inner),
    "ours with sparsity learning": _sparse,
    "Torch-Pruning": _incumbent,
    "Torch-Pruning Taylor": _taylor,
    "uniform L1": partial(_ours, choice="l1", **_inner),
    "random": partial(_ours, choice="random", **_inner),
    "from scratch": _from_scratch,
}
"""Torch-Pruning's group magnitude and the controls prune inside blocks, each layer the same share
in the controls; ours is the default with data, to within one channel or in steps."""
