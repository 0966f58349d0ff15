"""Whether a redesign left every result as it was, byte for byte.

    python -m tools.selfcheck unchanged FOLDER [--data-root DATA]

The first call keeps in FOLDER what the code at hand makes: hashes of plans, weights and ONNX files,
and the latency table that they follow. Each later call makes everything again and names what
differs. The hashes hold for one machine and one set of packages, so they are kept by whoever
redesigns, not with the project.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.selfcheck import determinism
from tools.selfcheck.refusal import INPUT
from tools.tiny import BRIEFLY_TIMED, write_model, write_samples

RECORD, TABLE = "unchanged.json", "latency.json"
FILES = ("plan.json", "model.onnx", "model.safetensors")
"""What is compared of a result; of a sweep, all networks that it made."""

_DATA = ("--data", "data.npz", "--test", "data.npz")
_TIMED = ("torchvision:resnet18", "--input", "1x3x64x64", "--of", "latency", "--ratio", "0.3")

Digests = dict[str, str]


def commands(folder: Path, data_root: Path | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give every command that is compared, with its name; FOLDER holds the latency table."""
    yield "the demo", ("demo", "--out", "out")
    for name, words in determinism.COMMANDS.items():
        yield name, (*words, "--out", "out")
    two = ("net.pt", *INPUT, *_DATA, "--steps", "2", "--ratio", "0.6", "--round-to", "1")
    yield "tiny, in two steps", (*two, "--out", "out")
    table = ("--latency-table", str(folder.resolve() / TABLE))
    yield "resnet18, by the clock", (*_TIMED, *table, "--out", "out")
    yield (
        "a sweep of two trials",
        (
            *("sweep", "net.pt", *INPUT, *_DATA, "--ratios", "0.2,0.4", "--criteria", "l2"),
            *("--seeds", "1", "--recoveries", "none", "--out", "out"),
        ),
    )
    if data_root is not None:
        root = data_root.resolve()
        resnet = Path(__file__).parents[1] / "cifar_resnet.py"
        yield (
            "ResNet-20, chosen and repaired by data",
            (
                f"{resnet}:resnet20",
                *("--weights", str(root / "cifar10_resnet20.safetensors")),
                *("--data", str(root / "cifar10_train_1.npz"), "--round-to", "1"),
                *("--test", str(root / "cifar10_test.npz"), "--out", "out"),
            ),
        )


def compare(folder: Path, data_root: Path | None) -> list[str]:
    """Make every result again; say what differs from the record, which the first call writes.

    A command that the record lacks is added to it: the data may have come later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / TABLE).exists():
        _measure(folder / TABLE)
    kept = folder / RECORD
    record: dict[str, Digests] = json.loads(kept.read_text()) if kept.exists() else {}
    problems: list[str] = []
    for name, words in commands(folder, data_root):
        found = _digests(words)
        before = record.setdefault(name, found)
        changed = sorted(file for file in before | found if before.get(file) != found.get(file))
        print(f"{name}: {', '.join(changed) + ' differ' if changed else 'as recorded'}", flush=True)
        problems += [f"{name}: {file}" for file in changed]
        kept.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return problems


def _digests(words: tuple[str, ...]) -> Digests:
    """Run a command in a folder of its own; the hash of every file that must not change."""
    with tempfile.TemporaryDirectory(prefix="unchanged-") as name:
        folder = Path(name)
        _run(words, folder)
        out = folder / "out"
        if words[0] == "sweep":
            return {"networks": _digest_of_networks(out)}
        return {file: hashlib.sha256((out / file).read_bytes()).hexdigest() for file in FILES}


def _digest_of_networks(sweep: Path) -> str:
    """Return one hash of all networks that a sweep made; their names follow from the data file's
    bytes, which hold the time when it was written."""
    files = (sweep / "trials").glob("*.onnx")
    each = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    return hashlib.sha256(" ".join(each).encode()).hexdigest()


def _measure(table: Path) -> None:
    """Write the latency table that the commands follow, measured once on this machine."""
    with tempfile.TemporaryDirectory(prefix="unchanged-") as name:
        _run((*_TIMED, "--out", "out"), Path(name), XDG_CACHE_HOME=name)
        (measured,) = (Path(name) / "compressor" / "latency").glob("*.json")
        table.write_bytes(measured.read_bytes())


def _run(words: tuple[str, ...], folder: Path, **environment: str) -> None:
    """Run the command in a folder that holds tiny networks and samples.

    Raises:
        RuntimeError: The command failed.
    """
    write_model(folder / "net.pt")
    write_samples(folder / "data.npz", 96)
    ended = subprocess.run(
        [sys.executable, "-c", BRIEFLY_TIMED, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(words)} fails: {ended.stderr[-500:]}")
