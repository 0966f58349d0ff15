"""A trial of ours: score, select, slice, repair."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from compressor import slicing
from compressor.choose import Bounds, Budget, Choice, Ranking, Share, select
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.least_squares import refit
from compressor.loading.data.augmenting import AUGMENTATIONS
from compressor.records import ExampleInputs, Trace
from compressor.recover import recalibrate_batch_norm
from compressor.score import Calibration, Material, Scores, score
from tools.trials.networks import Measured
from tools.trials.trial import Record, Trial

Batch = tuple[tuple[Tensor, ...], Tensor]
BATCH = 64


def drawn(train: Dataset[Any], samples: int, draw: int) -> list[Batch]:
    """Calibration batches; at most as many samples as there are."""
    order = np.random.default_rng(draw).permutation(len(train))[:samples]  # type: ignore[arg-type]
    items = [train[int(index)] for index in order]
    inputs, targets = (torch.stack(tensors) for tensors in zip(*items, strict=True))
    return [
        ((inputs[i : i + BATCH],), targets[i : i + BATCH]) for i in range(0, len(inputs), BATCH)
    ]


def _changed(batches: Sequence[Batch], draw: int) -> list[Batch]:
    """Copies of images, each shifted by up to an eighth and flipped or not."""
    rng = np.random.default_rng(draw)
    whole = AUGMENTATIONS["crop-flip"]
    changed = [reduce(lambda x, change: change(x, rng), whole, x) for (x,), _ in batches]
    return [((x,), y) for x, (_, y) in zip(changed, batches, strict=True)]


def loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over the last dimension."""
    return functional.cross_entropy(outputs.flatten(0, -2), target.flatten())


def inner_groups(network: Network) -> Network:
    """Without the streams: groups with one producer alone stay."""
    made = {
        group.name: {m.tensor for m in group.members if not m.contracted and "conv" in m.tensor}
        for group in network.groups
    }
    inner = tuple(
        g for g in network.groups if len(made[g.name]) == 1 and ".conv1" in g.producer.tensor
    )
    return replace(network, groups=inner)


class Ours:
    """The network analysed once; the scores of the latest criterion and draw are kept."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self.trace: Trace = trace(measured.module, ExampleInputs((measured.example,)))
        self.network = analyse(self.trace)
        self.latest: tuple[tuple[Any, ...], Scores, float] | None = None

    def run(self, trial: Trial) -> Record:
        choice, sliced, seconds = self.sliced(trial)
        begin = time.perf_counter()
        self.repair(trial, choice, sliced)
        return {
            "macs": choice.after,
            "original_macs": choice.before,
            "seconds": {**seconds, "repair": time.perf_counter() - begin},
            **self.measured.judge(sliced.module.eval()),
        }

    def sliced(self, trial: Trial) -> tuple[Choice, slicing.Sliced, dict[str, float]]:
        """The choice, the network before repair, and seconds."""
        network = self._network(trial)
        scores, scoring_s = self._scores(trial, network, self._batches(trial))
        choice = select(
            network,
            Ranking(scores, trial.scope),
            Budget(Share(trial.ratio)),
            Bounds(round_to=trial.round_to),
        )
        begin = time.perf_counter()
        sliced = slicing.slice_network(self.trace, network, choice.keep)
        return choice, sliced, {"score": scoring_s, "slice": time.perf_counter() - begin}

    def repair(self, trial: Trial, choice: Choice, sliced: slicing.Sliced) -> None:
        """In place."""
        network, batches = self._network(trial), self._batches(trial)
        REPAIRS[trial.repair](self.trace, network, choice.keep, sliced, batches)

    def _network(self, trial: Trial) -> Network:
        return inner_groups(self.network) if trial.inner else self.network

    def _batches(self, trial: Trial) -> list[Batch]:
        batches = drawn(self.measured.train, trial.samples, trial.draw)
        return [*batches, *_changed(batches, trial.draw)] if trial.augment else batches

    def _scores(
        self, trial: Trial, network: Network, batches: Sequence[Batch]
    ) -> tuple[Scores, float]:
        key = (trial.choice, trial.draw, trial.samples, trial.inner, trial.augment)
        if self.latest is None or self.latest[0] != key:
            begin = time.perf_counter()
            parameters = dict(self.trace.module.named_parameters(remove_duplicate=False))
            found = score(
                Material(
                    network,
                    parameters,
                    Calibration(self.trace, batches, loss),
                    seed=trial.draw,
                ),
                trial.choice,
            )
            self.latest = key, found, time.perf_counter() - begin
        return self.latest[1], self.latest[2]


Repair = Callable[[Trace, Network, Any, slicing.Sliced, Sequence[Batch]], object]


def _least_squares(
    found: Trace,
    network: Network,
    keep: Any,
    sliced: slicing.Sliced,
    batches: Sequence[Batch],
    **options: Any,
) -> None:
    inputs = [x for x, _ in batches]
    masks = network.masks(keep)
    refit(found.program, sliced.program, network, masks, lambda: inputs, **options)
    slicing.carry_weights(sliced.program, sliced.module)


def _batch_norm(
    found: Trace, network: Network, keep: Any, sliced: slicing.Sliced, batches: Sequence[Batch]
) -> None:
    recalibrate_batch_norm(sliced.module, batches)


def _nothing(*_: Any) -> None:
    pass


REPAIRS: Mapping[str, Repair] = {
    "none": _nothing,
    "batch norm": _batch_norm,
    "least squares": _least_squares,
}
"""`least squares` is what `compress` does: weights and constants of all that is given a change."""
