"""ResNet-56 made smaller and fine-tuned, one method and seed after the other: ours by the command,
which is resumed where it was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from compressor.cli import main
from compressor.options import Options
from compressor.run.journal import Journal, home_of
from tools import tiny
from tools.cifar_resnet import CifarResNet, arguments
from tools.gpu_rows import places
from tools.gpu_rows.records import Row
from tools.gpu_rows.scale import Scale
from tools.studies.making import make_theirs, numbers_of
from tools.studies.methods import METHODS, fewer
from tools.studies.networks import resnet
from tools.studies.trial import OURS, Trial

EPOCHS = 120
COMPARED = ("ours", "Torch-Pruning", "uniform L1")
DEPTH, TINY_DEPTH = 56, 8


def keys(scale: Scale) -> list[dict[str, Any]]:
    """Return the rows' keys: one seed of all methods at 2.1x, then further seeds, then 2.55x."""
    found = [
        {"network": "ResNet-56", "method": method, "times": times, "epochs": EPOCHS, "seed": seed}
        for times in (2.1, 2.55)
        for seed in range(3)
        for method in COMPARED
    ]
    return [{**key, "epochs": 1} for key in found[:2]] if scale.is_dry else found


def rows(scale: Scale) -> Iterator[Row]:
    """Yield the rows; none while a piece of the data is missing, which is said."""
    if not scale.is_dry and (missing := places.missing_data()):
        print(f"training waits for {', '.join(missing)}: further pieces of the pack bring them")
        return
    for key in keys(scale):
        yield Row("training", key, partial(_train, key, scale))


def _train(key: Mapping[str, Any], scale: Scale) -> Mapping[str, Any]:
    root, depth = (made_up(scale.out), TINY_DEPTH) if scale.is_dry else (scale.data, DEPTH)
    method = METHODS[key["method"]]
    options = method.at(ratio=fewer(key["times"]), epochs=key["epochs"], seed=key["seed"])
    folder = scale.out / Trial(key["network"], method.tool, options).file
    if method.tool == OURS:
        found = _ours(folder, root, depth, {**options, **_how(scale)})
    else:
        journal = Journal(home_of(folder))
        home_of(folder).mkdir(exist_ok=True)
        _, found = make_theirs(resnet(depth, root), options, journal, device=scale.device)
        journal.close()
    seconds = sorted(epoch["seconds"] for epoch in found["epochs"])
    return {**found, "epoch_s": seconds[len(seconds) // 2]}


def _how(scale: Scale) -> dict[str, Any]:
    capture = {} if scale.is_dry else {"capture": True, "device": scale.device}
    return {"augment": "crop-flip", "batch_size": 128, "format": ("pt2",), **capture}


def _ours(folder: Path, root: Path, depth: int, options: dict[str, Any]) -> dict[str, Any]:
    """Compress by the command, or go on where it was stopped.

    Raises:
        RuntimeError: It failed; the log has its message.
    """
    is_begun = (home_of(folder) / "run.json").exists()
    words = ["resume", str(folder)]
    if not is_begun or main(words):
        spelled = Options.of_keywords(options).spelled()
        words = [*arguments(depth, root), *spelled, "--out", str(folder), "--force"]
        if code := main(words):
            raise RuntimeError(f"compress ended with {code}")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    epochs = report["recovery"][-1]["training"]["epochs"]
    return {**numbers_of(report), "epochs": epochs}


def made_up(out: Path) -> Path:
    """Write a few images in CIFAR-10's place, and a small network that knows nothing of them."""
    root = out / "made" / "data"
    root.mkdir(parents=True, exist_ok=True)
    for name in ("test", *(f"train_{shard}" for shard in range(1, 6))):
        tiny.write_samples(root / f"cifar10_{name}.npz", 40, classes=10, side=32)
    torch.manual_seed(0)
    weights = CifarResNet(TINY_DEPTH).state_dict()
    save_file(weights, root / f"cifar10_resnet{TINY_DEPTH}.safetensors")
    return root
