"""The trials, and how each is run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import compressor
from compressor import slicing
from compressor.graph.counting import count_macs
from compressor.least_squares import refit
from compressor.options import Options
from compressor.run.cutting import cut
from compressor.run.decide import Goal, decide, plan, predict
from compressor.run.opened import Run
from compressor.run.opening import open_run
from compressor.run.subject import Subject
from compressor.watch import Silent, Stopwatch
from tools.latency import incumbent
from tools.latency.networks import CALIBRATION, NETWORKS, Timed
from tools.latency.timing import exported, exported_module, timed
from tools.latency.trial import Record, Trial
from tools.trials.networks import NETWORKS as TRAINED
from tools.trials.ours import Ours, drawn

BATCHES = (1, 32)
SLOW_BATCHES = (1, 8)
"""For a network whose batch of 32 takes a quarter of a minute."""
DRAW = 0


class Bench:
    """Networks stay loaded while trials are of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, ""

    def run(self, trial: Trial) -> Record:
        if trial.network != self.name:
            self.name = trial.network
            self.network = NETWORKS[self.name](self.root)
            self.repaired: Repaired | None = None
            self.prepared: dict[str, Run] = {}
        with tempfile.TemporaryDirectory(prefix="latency-") as folder:
            begin = time.perf_counter()
            found = _RUNS[trial.study](self, trial, Path(folder))
            return {**found, "seconds": time.perf_counter() - begin}


# -- at equal multiply-adds ----------------------------------------------------------------------


def _macs(bench: Bench, trial: Trial, folder: Path) -> Record:
    """Ours with defaults and to within one channel, and Torch-Pruning's, in one comparison."""
    network = bench.network
    original = exported_module(network.module, network.example, folder / "original.onnx")
    files: dict[str, Path] = {}
    left: dict[str, float] = {}
    failures: dict[str, str] = {}
    for name, make in _RIVALS.items():
        try:
            files[name], left[name] = make(network, trial.ratio, folder / f"{name}.onnx")
        except Exception as error:  # the incumbent's, which is recorded
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    batches = SLOW_BATCHES if trial.network == "vit_b_16" else BATCHES
    times = [timed(original, files, batch=batch) for batch in batches]
    return {"macs_left": left, "failures": failures, "times": times}


def _ours(network: Timed, ratio: float, path: Path, **options: Any) -> tuple[Path, float]:
    subject = Subject(network.module, network.example, data=network.train)
    run, decision = plan(subject, Options(ratio=ratio, **options), Silent())
    made = cut(run, decision)
    before, after = predict(run, made.decision)["macs"]
    return exported(run.trace, made.sliced.program, path), after / before


def _incumbent(network: Timed, ratio: float, path: Path, step: int | None) -> tuple[Path, float]:
    module, left = incumbent.pruned(
        *(network.module, network.example, ratio, step), inside_blocks=network.streams_break
    )
    return exported_module(module, network.example, path), left


_RIVALS: Mapping[str, Callable[[Timed, float, Path], tuple[Path, float]]] = {
    "defaults": _ours,
    "defaults, no data": lambda n, ratio, path: _ours(n, ratio, path, criterion="l2"),
    "--round-to 1": lambda n, ratio, path: _ours(n, ratio, path, round_to=1),
    "Torch-Pruning": lambda n, ratio, path: _incumbent(n, ratio, path, None),
    "Torch-Pruning, round_to=8": lambda n, ratio, path: _incumbent(n, ratio, path, 8),
}


# -- at a share of the time ----------------------------------------------------------------------


def _share(bench: Bench, trial: Trial, folder: Path) -> Record:
    """What --of latency measured, and what a second measurement says of its file."""
    network = bench.network
    found = compressor.compress(
        *(network.module, network.example, trial.ratio), of="latency", data=network.train
    )
    found.save(folder / "out")
    report = found.report
    original = exported_module(network.module, network.example, folder / "original.onnx")
    stages = ("time layers", "select", "correct by the clock")
    return {
        "measured": report["budget"]["measured"],
        "macs_left": report["after"]["macs"] / report["before"]["macs"],
        "times": [timed(original, {"result": folder / "out" / "model.onnx"})],
        "stages": {name: report["seconds"][name] for name in stages},
    }


# -- accuracy at equal latency -------------------------------------------------------------------


class Repaired:
    """ResNet-56: a choice becomes a repaired network, judged on the test images."""

    def __init__(self, bench: Bench) -> None:
        self.measured = TRAINED["ResNet-56"](bench.root, decide=False)
        self.ours = Ours(self.measured)
        self.batches = drawn(self.measured.train, CALIBRATION, DRAW)
        self.folder = tempfile.TemporaryDirectory(prefix="latency-")
        trace = self.ours.trace
        self.original = exported(trace, trace.program, Path(self.folder.name) / "original.onnx")
        self.top1 = self.measured.judge(self.measured.module)["top1"]

    def run(self, keep: Mapping[str, tuple[int, ...]], folder: Path) -> Record:
        trace, network = self.ours.trace, self.ours.network
        sliced = slicing.slice_network(trace, network, keep)
        inputs = [x for x, _ in self.batches]
        refit(trace.program, sliced.program, network, network.masks(keep), lambda: inputs)
        slicing.carry_weights(sliced.program, sliced.module)
        smaller = exported(trace, sliced.program, folder / "smaller.onnx")
        example = (self.measured.example[:1],)
        whole, left = (count_macs(m, example, {}) for m in (trace.module, sliced.module))
        return {
            **self.measured.judge(sliced.module.eval()),
            "original_top1": self.top1,
            "macs_left": left / whole,
            "times": [timed(self.original, {"result": smaller}, seconds=6.0)],
        }


def _accuracy(bench: Bench, trial: Trial, folder: Path) -> Record:
    if bench.repaired is None:
        bench.repaired = Repaired(bench)
    return bench.repaired.run(METHODS[trial.method](bench, trial.ratio), folder)


def _planned(bench: Bench, ratio: float, **options: Any) -> Mapping[str, tuple[int, ...]]:
    key = str(options)
    if key not in bench.prepared:
        subject = Subject(bench.network.module, bench.network.example, data=bench.network.train)
        bench.prepared[key] = open_run(subject, Options(**options), Stopwatch(Silent()))
    return decide(bench.prepared[key], Goal(ratio)).keep


def _theirs(bench: Bench, ratio: float, step: int | None) -> Mapping[str, tuple[int, ...]]:
    assert bench.repaired is not None
    module, network = bench.network.module, bench.repaired.ours.network
    return incumbent.chosen(module, bench.network.example, network, ratio, step)


METHODS: Mapping[str, Callable[[Bench, float], Mapping[str, tuple[int, ...]]]] = {
    "--of latency": lambda bench, ratio: _planned(bench, ratio, of="latency"),
    "--of macs": _planned,
    "--of macs --round-to 1": lambda bench, ratio: _planned(bench, ratio, round_to=1),
    "Torch-Pruning": lambda bench, ratio: _theirs(bench, ratio, None),
    "Torch-Pruning, round_to=8": lambda bench, ratio: _theirs(bench, ratio, 8),
}
RATIOS: Mapping[str, tuple[float, ...]] = {
    "--of latency": (0.25, 0.35, 0.45, 0.5),
    "--of macs": (0.35, 0.5, 0.6),
    "--of macs --round-to 1": (0.5, 0.65, 0.8),
    "Torch-Pruning": (0.5, 0.65, 0.8),
    "Torch-Pruning, round_to=8": (0.35, 0.5, 0.6),
}
"""Shares of the time for the first, of the MACs for the others: they cover the same latencies."""


# -- how small without losing more than a point --------------------------------------------------


def _drop(bench: Bench, trial: Trial, folder: Path) -> Record:
    """--max-drop 1.0 decides on the first half of the test images; the second half is the test."""
    network = bench.network
    stored = np.load(bench.root / "cifar10_test.npz")
    half = len(stored["labels"]) // 2
    parts = {"validation": slice(half), "test": slice(half, None)}
    for name, part in parts.items():
        images, labels = stored["images"][part], stored["labels"][part]
        np.savez(folder / f"{name}.npz", images=images, labels=labels)
    found = compressor.compress(
        *(network.module, network.example),
        of="latency",
        max_drop=1.0,
        data=network.train,
        validation=str(folder / "validation.npz"),
        test=str(folder / "test.npz"),
    )
    found.save(folder / "out")
    original = exported_module(network.module, network.example, folder / "original.onnx")
    report = found.report
    return {
        "floor": report["budget"]["accuracy_floor"],
        "test": _paired(network.module, found.module, folder / "test.npz"),
        "validation": _paired(network.module, found.module, folder / "validation.npz"),
        "reported": report["after"]["metrics"],
        "macs_left": report["after"]["macs"] / report["before"]["macs"],
        "times": [
            timed(original, {"result": folder / "out" / "model.onnx"}, batch=batch)
            for batch in BATCHES
        ],
    }


def _paired(before: nn.Module, after: nn.Module, path: Path) -> dict[str, float]:
    """Points lost, with the standard error of the paired difference."""
    from tools.zoo.trained import MEAN, STD

    stored = np.load(path)
    images = (torch.from_numpy(stored["images"]).permute(0, 3, 1, 2) / 255 - MEAN) / STD
    labels = torch.from_numpy(stored["labels"].astype(np.int64))

    def right(module: nn.Module) -> Tensor:
        with torch.inference_mode():
            parts = [module(images[i : i + 250]).argmax(1) for i in range(0, len(labels), 250)]
        return torch.cat(parts) == labels

    one, other = right(before.eval()), right(after.eval())
    lost = one.double() - other.double()
    return {
        "before": 100 * float(one.double().mean()),
        "after": 100 * float(other.double().mean()),
        "lost": 100 * float(lost.mean()),
        "error": 100 * float(lost.std() / len(lost) ** 0.5),
        "samples": len(lost),
    }


_RUNS: Mapping[str, Callable[[Bench, Trial, Path], Record]] = {
    "macs": _macs,
    "share": _share,
    "accuracy": _accuracy,
    "drop": _drop,
}

STUDIES: Mapping[str, list[Trial]] = {
    "macs": [Trial("macs", name) for name in NETWORKS],
    "share": [Trial("share", name) for name in NETWORKS],
    "accuracy": [
        Trial("accuracy", "ResNet-56", method, ratio)
        for method, ratios in RATIOS.items()
        for ratio in ratios
    ],
    "drop": [Trial("drop", "ResNet-56", "--max-drop 1.0", 0.0)],
}
