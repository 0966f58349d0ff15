"""PyTorch's time of networks on a GPU, as they are and compiled, by the device's own events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import nn

ROUNDS, CALLS = 30, 20


def timed_modules(
    original: nn.Module, smaller: Mapping[str, nn.Module], batches: Sequence[int]
) -> list[dict[str, Any]]:
    """Milliseconds of one call of 3x32x32 images by way of running; all networks take turns, the
    original twice, which shows the noise."""
    networks = {"original": original, "original again": original, **smaller}
    placed = {name: module.cuda().eval() for name, module in networks.items()}
    found = []
    for way, prepare in _WAYS.items():
        for batch in batches:
            images = torch.randn(batch, 3, 32, 32, device="cuda")
            calls = {name: prepare(module) for name, module in placed.items()}
            found.append({"way": way, **_shares(_in_turns(calls, images), batch)})
    return found


_WAYS: Mapping[str, Callable[[nn.Module], Callable[..., Any]]] = {
    "eager": lambda module: module,
    "compiled": lambda module: torch.compile(module, mode="reduce-overhead"),
}


def _in_turns(
    calls: Mapping[str, Callable[..., Any]], images: torch.Tensor
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for round_ in range(ROUNDS + 3):
            for name, call in calls.items():
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                call(images)
                begin.record()
                for _ in range(CALLS):
                    call(images)
                end.record()
                end.synchronize()
                if round_ >= 3:
                    times[name].append(begin.elapsed_time(end) / CALLS)
    return times


def _shares(times: Mapping[str, list[float]], batch: int) -> dict[str, Any]:
    middle = {name: median(values) for name, values in times.items()}
    one, other = middle.pop("original"), middle.pop("original again")
    whole = (one + other) / 2
    return {
        "batch": batch,
        "original_ms": whole,
        "noise": abs(one - other) / whole,
        "ms": middle,
        "share": {name: value / whole for name, value in middle.items()},
    }
