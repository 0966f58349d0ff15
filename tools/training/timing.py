"""The networks of a study timed against the original: widths count, weights don't."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.graph.counting import count_macs
from tools.latency.timing import exported_module
from tools.latency.timing import timed as timed_files
from tools.training.gpu import timed_modules
from tools.training.methods import Bench
from tools.training.trial import Record, Trial

BATCHES = {"cpu": (1, 32), "cuda": (1, 256)}


def timed(bench: Bench, trial: Trial, study: Sequence[Trial], device: str) -> Record:
    """ONNX Runtime in one thread, or PyTorch eager and compiled on a GPU; all taking turns."""
    methods = dict.fromkeys(
        other.method
        for other in study
        if other.method and (other.network, other.times) == (trial.network, trial.times)
    )
    made = {
        method: bench.make(Trial(trial.study, trial.network, method, trial.times, 0))[0]
        for method in methods
    }
    left = {
        method: count_macs(module, (bench.example[:1],), {}) / bench.macs
        for method, module in made.items()
    }
    times: list[Any]
    if device == "cuda":
        times = timed_modules(bench.module, made, BATCHES[device])
    else:
        with tempfile.TemporaryDirectory(prefix="training-") as name:
            files = {
                method: exported_module(module, bench.example, Path(name) / f"{number}.onnx")
                for number, (method, module) in enumerate(made.items())
            }
            original = exported_module(bench.module, bench.example, Path(name) / "original.onnx")
            times = [timed_files(original, files, batch=batch) for batch in BATCHES[device]]
    return {"macs_left": left, "times": times}
