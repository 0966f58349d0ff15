"""Ways to a smaller network, and rows of a study that try them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.studies.trial import CLOCK, OURS, RIVAL, THEIR_CHOICE, Trial

SEEDS = (0, 1, 2)
RUNTIMES, IN_8_BITS = ("onnxruntime", "openvino", "executorch", "ncnn"), ("onnxruntime", "openvino")
STREAMS = ("bn1", "*.bn2")
"""What holds the residual streams of a CIFAR ResNet: protected, channels inside blocks alone go."""
UNIFORM: Mapping[str, Any] = {"protect": STREAMS, "scope": "layer", "repair": False}


@dataclass(frozen=True)
class Method:
    """A way to a smaller network: a tool, and its options beside the ratio."""

    tool: str
    options: Mapping[str, Any]

    def at(self, **options: Any) -> dict[str, Any]:
        """Return its options with these beside them."""
        return {**self.options, **options}


METHODS: Mapping[str, Method] = {
    "ours": Method(OURS, {"round_to": 1}),
    "ours, defaults": Method(OURS, {}),
    "ours, --criterion l2": Method(OURS, {"criterion": "l2"}),
    "ours, --criterion l2 --no-repair": Method(OURS, {"criterion": "l2", "repair": False}),
    "ours, --criterion wanda --no-repair": Method(OURS, {"criterion": "wanda", "repair": False}),
    "ours, --round-to 8": Method(OURS, {"round_to": 8}),
    "ours, inside blocks": Method(OURS, {"round_to": 1, "protect": STREAMS}),
    "ours, --of latency": Method(OURS, {"of": "latency"}),
    "ours, --of latency --search 0": Method(OURS, {"of": "latency", "search": 0}),
    "ours, --prune block": Method(OURS, {"round_to": 1, "prune": "block"}),
    "uniform L1": Method(OURS, {"round_to": 1, "criterion": "l1", **UNIFORM}),
    "random": Method(OURS, {"round_to": 1, "criterion": "random", **UNIFORM}),
    "Torch-Pruning": Method(RIVAL, {}),
    "Torch-Pruning, round_to=8": Method(RIVAL, {"round_to": 8}),
    "Torch-Pruning, batch norm re-estimated": Method(RIVAL, {"batch_norm": True}),
    "Torch-Pruning Taylor": Method(RIVAL, {"importance": "Taylor"}),
    "Torch-Pruning, by measured time": Method(RIVAL, {"of": "latency"}),
    "Torch-Pruning, round_to=8, by measured time": Method(RIVAL, {"of": "latency", "round_to": 8}),
    **{
        f"Torch-Pruning's choice, round_to={step}, our repair": Method(
            THEIR_CHOICE, {"round_to": step}
        )
        for step in (1, 8, 16)
    },
}


@dataclass(frozen=True)
class Row:
    """A trial under the name that tables give it."""

    label: str
    trial: Trial


def fewer(times: float) -> float:
    """Return the share that is gone where so many times fewer are left."""
    return round(1 - 1 / times, 4)


def of(
    network: str,
    labels: Sequence[str],
    times: float = 2.0,
    seeds: Sequence[int] = (0,),
    **options: Any,
) -> Iterator[Row]:
    """Yield the rows of some methods at a budget; a seed only where it is not the default."""
    for label in labels:
        method = METHODS[label]
        for seed in seeds:
            seeded = {"seed": seed} if seed else {}
            asked = method.at(ratio=fewer(times), **options, **seeded)
            yield Row(label, Trial(network, method.tool, asked))


def timed(
    network: str, labels: Sequence[str], times: float = 2.0, batches: Sequence[int] = (1, 32)
) -> Row:
    """Return the row in which the methods' networks take turns with the original."""
    forms = {
        label: {"tool": METHODS[label].tool, "options": METHODS[label].at(ratio=fewer(times))}
        for label in labels
    }
    return Row("time", Trial(network, CLOCK, {"forms": forms, "batches": list(batches)}))


def timed_on(network: str, labels: Sequence[str]) -> Row:
    """Return the row in which all runtimes run the methods' networks at half of the MACs."""
    row = timed(network, labels, batches=(1, 8))
    options = {**row.trial.options, "backends": list(RUNTIMES), "int8": list(IN_8_BITS)}
    return Row(row.label, Trial(network, CLOCK, options))
