"""docs/results/training.md from the records of trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from tools.training.studies import STUDIES
from tools.training.trial import Record, Trial

INTRODUCTION = """\
# Made smaller, then trained

Written by `python -m tools.training table`; run by `python -m tools.training --data-root FOLDER`
(`--only gpu --device cuda` for the second part), records in
[training.jsonl](training.jsonl), one line per trial with every epoch.

CIFAR-10: 45 000 images to train on, 5 000 to compare epochs on, 10 000 test images that decide
nothing (top-1 in per cent, mean ± standard deviation over seeds). The original weights were
trained by their author, on all 50 000: of the 5 000 it remembers much, so they compare epochs of
one training, not methods. Every row has the same training, that of `compress --epochs` with
`--batch-size 128 --augment crop-flip` and defaults: SGD, half a cosine from 0.01, half of the
weight on the original's outputs. *fine-tuned* is after the last epoch, *difference* is from the
base.

*ours*: chosen by reconstruction, to within one channel (`--round-to 1`), repaired on 1 024 images.
*Torch-Pruning*: its group magnitude (L2), global, or Taylor, by bisection to within 0.5 % of
the MACs, inside blocks (its streams break at the padded shortcut). *ours inside blocks*: ours
without the streams; *uniform*: of each layer the same share. *uniform L1* and *random*: each
layer loses the same share of the channels inside blocks, nothing is repaired. *from scratch*: the
widths of *ours*, weights drawn anew. *time*: of one call of the network's ONNX file, one thread,
all taking turns, as a share of the original's (on a GPU: PyTorch's)."""

OPEN = {
    "gpu": "Open: `python -m tools.training --data-root FOLDER --only gpu --device cuda`, then "
    "`python -m tools.training table --out docs/results/training.md`. It can be stopped at any "
    "epoch and goes on there.",
    "decisions": "Open: `python -m tools.training --data-root FOLDER --only decisions`.",
}
ABOUT = {
    "decisions": "What a default is decided by: a network trained here, for 15 epochs on the "
    "45 000. All accuracies are of the 5 000 images, which neither it nor its smaller forms saw; "
    "the test images are not looked at."
}
TITLES = {"cpu": "On a CPU", "gpu": "On a GPU", "decisions": "Streams or not"}
HEAD = (
    "network",
    "fewer MACs",
    "method",
    "seeds",
    "epochs",
    "base",
    "sliced",
    "repaired",
    "fine-tuned",
    "difference",
    "best on validation",
    "fewer parameters",
    "time",
)


def to_markdown(records: Sequence[Record]) -> str:
    """The page; what was not run is said to be open."""
    parts = [INTRODUCTION]
    for study, title in TITLES.items():
        found = [r for r in records if r["trial"]["study"] == study]
        parts.append(f"## {title}\n\n{ABOUT.get(study, '')}")
        parts.append(study_table(found, STUDIES[study]) if found else OPEN.get(study, "Open."))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def study_table(records: Sequence[Record], trials: Sequence[Trial]) -> str:
    """A row per method, seeds side by side, and where and with what noise it was measured."""
    known = {Trial(**record["trial"]).key: record for record in records}
    rows: dict[tuple[Any, ...], list[Record]] = {}
    times: dict[tuple[Any, ...], Record] = {}
    for trial in trials:
        if trial.key in known:
            at = (trial.network, trial.times)
            if trial.method:
                rows.setdefault((*at, trial.method, trial.epochs), []).append(known[trial.key])
            else:
                times[at] = known[trial.key]
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    lines += [
        _row(key, found, times.get(key[:2])) for key, found in sorted(rows.items(), key=_order)
    ]
    return "\n".join([*lines, "", *_surroundings(records), "", *map(_noise, times.items())])


def _order(entry: tuple[tuple[Any, ...], list[Record]]) -> tuple[Any, ...]:
    (network, times, _, _), found = entry
    return network, times, -mean(record["tuned"] for record in found)


def _row(key: tuple[Any, ...], found: Sequence[Record], timed: Record | None) -> str:
    network, _, method, epochs = key
    share = "" if timed is None else " / ".join(f"{t['share'][method]:.2f}" for t in timed["times"])
    cells = (
        network,
        f"{mean(r['base_macs'] / r['macs'] for r in found):.2f}×",
        method,
        len(found),
        epochs,
        _spread(found, "base"),
        _spread(found, "sliced"),
        _spread(found, "repaired"),
        f"**{_spread(found, 'tuned')}**",
        f"{mean(r['tuned'] - r['base'] for r in found):+.2f}",
        _spread(found, "best"),
        f"{mean(r['base_params'] / r['params'] for r in found):.2f}×",
        share,
    )
    return f"| {' | '.join(map(str, cells))} |"


def _spread(records: Iterable[Record], name: str) -> str:
    numbers = [record[name] for record in records if name in record]
    if not numbers:
        return ""
    spread = stdev(numbers) if len(set(numbers)) > 1 else 0.0
    return f"{mean(numbers):.2f} ± {spread:.2f}" if spread else f"{mean(numbers):.2f}"


def _surroundings(records: Sequence[Record]) -> list[str]:
    found = {
        f"{w['device']}, {w['threads']} threads, torch {w['torch']}, {w['date']}"
        for w in (record["where"] for record in records)
    }
    return [f"Measured on: {'; '.join(sorted(found))}."]


def _noise(entry: tuple[tuple[Any, ...], Record]) -> str:
    (network, times), found = entry
    said = "; ".join(
        f"{t.get('way', 'ONNX Runtime')}, batch {t['batch']}: {t['original_ms']:.3g} ms, "
        f"noise {t['noise']:.1%}"
        for t in found["times"]
    )
    return f"Times of {network} at {times:g}×, in the order of the column: {said}."
