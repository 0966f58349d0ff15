"""Which trials of accuracy there are, the quickest first."""

from __future__ import annotations

from tools.training.studies import Studies
from tools.training.trial import Trial

TIMES = {"MobileNet-V1": 1.25, "MobileNet-V2": 1.25, "character GPT": 1.5}
EPOCHS = {"MobileNet-V1": 3, "MobileNet-V2": 3, "character GPT": 1, "ResNet-20": 1, "ResNet-56": 1}
NAMES = ("ours", "Torch-Pruning")
FURTHER = {
    "ResNet-20": ("ours in steps of 8", "Torch-Pruning Taylor"),
    "ResNet-56": ("ours in steps of 8",),
    "MobileNet-V1": ("ours in steps of 8",),
    "MobileNet-V2": ("ours in steps of 8",),
}


def _of(network: str) -> list[Trial]:
    given = ("accuracy", network)
    times, epochs = TIMES.get(network, 2.0), EPOCHS[network]
    further = FURTHER.get(network, ())
    made = [Trial(*given, name, times, epochs) for name in (*NAMES, *further)]
    return [*made, Trial(*given, "", times, 0)]


NETWORKS = ("MobileNet-V1", "character GPT", "ResNet-20", "MobileNet-V2", "ResNet-56")
STUDIES: Studies = {"accuracy": [trial for network in NETWORKS for trial in _of(network)]}
