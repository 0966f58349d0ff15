"""Compute a key from all that a trial's result follows from: the same key, the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.choose.budget import is_timed
from compressor.files.hashes import sha256_of
from compressor.loading.data import Data
from compressor.options import SweepOptions
from compressor.report import versions
from compressor.run.loaded import tensors_sha256
from compressor.run.opened import Opened
from compressor.studies.sweep.trials import DENSE, Trial

_SAMPLES = 16
_LENGTH = 20

_THE_NETWORK_SAYS = (
    *("input", "factory", "factory_arg", "weights", "pretrained", "trust_pickle"),
    *("weights_key", "ignore_unexpected"),
    *("data", "test"),
    "format",
)
_CLOCKS = ("threads", "batch", "latency_on", "latency_precision", "latency_table")
_CONTENTS = ("validation", "use", "rewind_to", "loss", "metric", "train")
_WITHOUT_CUT = (
    *("ratio", "criterion", "scope", "seed", "of", "round_to", "norm_p", "reduction", "normalise"),
    *("protect", "prune", "layer_ratio", "use", "search", "keep_class", "calibration", "augment"),
)
"""Options that do not apply to a network that is not cut."""


def surroundings_of(opened: Opened, options: SweepOptions) -> dict[str, Any]:
    """Return what all trials of a sweep share: hashes of network and data, and versions."""
    module, program = opened.trace.module, opened.trace.program
    code = str(getattr(program.graph_module, "code", ""))
    own = versions()
    return {
        "network": _sha256(code.encode() + tensors_sha256(module).encode()),
        "data": [*map(content_of, options.data), _of_samples(opened.samples.train)],
        "test": [*map(content_of, options.test), _of_samples(opened.samples.test)],
        "callables": [
            f"{given.__module__}.{getattr(given, '__qualname__', type(given).__qualname__)}"
            for given in (opened.subject.loss, opened.subject.metric)
            if given is not None
        ],
        "versions": {name: own[name] for name in ("compressor", "torch")},
    }


def key_of(trial: Trial, surroundings: Mapping[str, Any]) -> str:
    """Return the trial's key, which also names its files."""
    options = asdict(trial.options)
    left_out = {*_THE_NETWORK_SAYS}
    if not is_timed(trial.options) and options["round_to"] != "auto":
        left_out |= {*_CLOCKS}
    if trial.kind == DENSE:
        left_out |= {*_WITHOUT_CUT, *_CLOCKS}
    known = {name: value for name, value in options.items() if name not in left_out}
    for name in _CONTENTS:
        if known.get(name):
            known[name] = _contents(known[name])
    text = json.dumps([trial.kind, known, dict(surroundings)], sort_keys=True)
    return _sha256(text.encode())[:_LENGTH]


def content_of(spec: str) -> str:
    """Return a hash of what a spec names, else the spec itself.

    Specs may name a file, a folder (its listing is hashed), or a callable (its file is).
    """
    path, home = Path(spec), Path(spec.rpartition(":")[0])
    if path.is_file():
        return sha256_of(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        states = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
        lines = [f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states]
        return _sha256("\n".join(lines).encode())
    if home.suffix == ".py" and home.is_file():
        return f"{spec.rpartition(':')[2]} of {sha256_of(home)}"
    return spec


def _contents(value: Any) -> Any:
    return [*map(content_of, value)] if isinstance(value, list | tuple) else content_of(value)


def _of_samples(data: Data | None) -> str:
    """Return a hash of some samples, evenly spread, and of how many there are."""
    if data is None:
        return ""
    digest = hashlib.sha256(str(len(data)).encode())
    indices = range(0, len(data), max(1, len(data) // _SAMPLES))
    parts = [[index] for index in indices] if data.is_ragged else [indices]
    samples = [data.fetch(part) for part in parts]
    for leaf in pytree.tree_leaves([(some.inputs, some.target) for some in samples]):
        given = leaf.contiguous().numpy().tobytes() if isinstance(leaf, Tensor) else repr(leaf)
        digest.update(given if isinstance(given, bytes) else given.encode())
    return digest.hexdigest()


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
