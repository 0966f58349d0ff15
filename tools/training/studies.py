"""Which trials there are, the most telling first."""

from __future__ import annotations

from collections.abc import Mapping

from tools.training.trial import Trial

SEEDS = (0, 1, 2)
OURS, INCUMBENT = "ours", "Torch-Pruning"
CONTROLS = ("uniform L1", "random")
FURTHER = (
    "ours inside blocks",
    "ours inside blocks, uniform",
    "ours in steps of 8",
    "Torch-Pruning Taylor",
)


def _cpu() -> list[Trial]:
    small = ("cpu", "ResNet-20")
    large = ("cpu", "ResNet-56")
    first = [Trial(*small, name, 2.0, 5) for name in (OURS, INCUMBENT, *CONTROLS)]
    deep = [Trial(*large, name, 2.0, 1) for name in (OURS, INCUMBENT, *CONTROLS)]
    more = [Trial(*small, name, 2.0, 5, seed) for seed in SEEDS[1:] for name in (OURS, INCUMBENT)]
    again = [Trial(*small, CONTROLS[0], 2.0, 5, seed) for seed in SEEDS[1:]]
    further = [Trial(*small, name, 2.0, 5) for name in FURTHER]
    timed = [Trial(*network, "", 2.0, 0) for network in (small, large)]
    return [*first, *deep, *more, *again, *further, *timed]


def _gpu() -> list[Trial]:
    large, epochs = ("gpu", "ResNet-56"), 120
    methods = (OURS, "ours with sparsity learning", INCUMBENT, "uniform L1", "from scratch")
    return [
        *(
            Trial(*large, name, times, epochs, seed)
            for seed in SEEDS
            for times in (2.1, 2.55)
            for name in methods
        ),
        *(Trial(*large, "", times, 0) for times in (2.1, 2.55)),
    ]


def _decisions() -> list[Trial]:
    """Inside blocks alone, or streams too?"""
    names = (OURS, "ours inside blocks", "uniform L1", INCUMBENT)
    small = ("decisions", "ResNet-20")
    return [Trial(*small, name, 2.0, 2, seed) for seed in SEEDS for name in names]


Studies = Mapping[str, list[Trial]]
STUDIES: Studies = {"cpu": _cpu(), "gpu": _gpu(), "decisions": _decisions()}
