"""The same command twice, in two processes and two folders: the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.selfcheck.contents import SAME
from tools.selfcheck.refusal import INPUT
from tools.tiny import BRIEFLY_TIMED, write_model, write_samples

_DATA = ("--data", "data.npz", "--test", "data.npz")

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "tiny": ("net.pt", *INPUT, "--round-to", "1"),
    "tiny, random channels": ("net.pt", *INPUT, "--round-to", "1", "--criterion", "random"),
    "tiny, repaired and trained": (
        *("net.pt", *INPUT, *_DATA, "--round-to", "1", "--epochs", "2", "--batch-size", "8"),
    ),
    **{
        name: (f"torchvision:{name}", "--round-to", "1", "--input", "1x3x64x64")
        for name in ("resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x1_0", "swin_t")
    },
}
"""torchvision's with random weights, which the seed draws."""


def differences(command: tuple[str, ...]) -> list[str]:
    """Files that differ, or why there are none."""
    try:
        one, other = (_digests(command, seed) for seed in ("1", "2"))
    except RuntimeError as error:
        return [str(error)]
    return [f"{name} differs" for name in SAME if one.get(name) != other.get(name)]


def _digests(command: tuple[str, ...], hash_seed: str) -> dict[str, str]:
    """Of the files of a run in a folder of its own; the order of sets is another each time."""
    with tempfile.TemporaryDirectory(prefix=f"selfcheck-{hash_seed}-") as name:
        folder = Path(name)
        write_model(folder / "net.pt")
        write_samples(folder / "data.npz", 96)
        ended = subprocess.run(
            [sys.executable, "-c", BRIEFLY_TIMED, *command, "--out", "out"],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": _paths()},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"it fails: {ended.stderr[-500:]}")
        files: dict[str, Any] = {path.name: path for path in (folder / "out").iterdir()}
        return {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in SAME}


def _paths() -> str:
    return os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
