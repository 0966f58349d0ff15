"""docs/results/reconstruction.md from the records of trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

from tools.surroundings import measured_on
from tools.trials.studies import STUDIES
from tools.trials.trial import Record, Trial

INTRODUCTION = """\
# Choice and repair by what the rest of the network can make up for

Written by `python -m tools.trials table`; run by `python -m tools.trials --data-root FOLDER`.

Nothing is trained. Means and standard deviations are over three draws of calibration samples (one
number where no draw matters). CIFAR-10 networks are judged on its whole test set, once per trial;
what is compared was decided on images kept from the training data. Labels are used by gradient,
Taylor, Fisher and Hessian criteria alone."""

TITLES = {
    "selection": """\
## Selection alone

ResNet-56, original weights sliced, nothing re-fitted; channels inside blocks alone, the same
images and MACs (within 1 %) for all. `tp` is Torch-Pruning's importance of that name, its pruning
ratio bisected until the MACs are met (the Hessian one sees 64 of the images, one by one). Top-1 in
per cent, by how many times fewer MACs.""",
    "repair": """\
## With repair

`--criterion reconstruction` and least squares, the defaults with data, on 1 024 unlabelled images.
Top-1 in per cent. (With `--augment crop-flip`: below.)""",
    "parts": """\
## What each part brings

ResNet-56 at half of its MACs: choices in rows, repairs in columns. *bias*: the mean of what was
removed goes into the constants alone; *batch norm*: its statistics re-estimated; *least squares*:
weights and constants, as `compress` does.""",
    "samples": """\
## How many images

ResNet-56 at half of its MACs, chosen by reconstruction and repaired on so many unlabelled
images.""",
    "augmented": """\
## With changed copies

Chosen by reconstruction and repaired, `--round-to 1`; the same 1 024 images twice: as they are, and
shifted and flipped at random (`--augment crop-flip`). Tried after the numbers without were known,
since on the images kept for decisions it was better.""",
    "networks": """\
## Other networks

A quarter fewer MACs, nothing trained afterwards. *stories260k*: loss on text that was not
calibrated on. *MobileNet-V2*: divergence of its outputs from the original's (nats) on sample photos
that it was not calibrated on. *Vision Transformer*: trained for 12 minutes on one core, top-1
on the whole test set.""",
}


def to_markdown(records: Sequence[Record]) -> str:
    """The page; studies without records are left out."""
    parts = [INTRODUCTION]
    for study in STUDIES:
        found = [r for r in records if r["trial"]["study"] == study]
        if found:
            parts += [TITLES[study], TABLES[study](found)]
    parts.append(measured_on(records))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _grid(
    records: Sequence[Record],
    row: Callable[[Record], Any],
    column: Callable[[Record], Any],
    head: str,
) -> str:
    rows, columns = (list(dict.fromkeys(map(by, records))) for by in (row, column))
    lines = [
        f"| {head} | " + " | ".join(map(str, columns)) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for r in rows:
        cells = [[x for x in records if row(x) == r and column(x) == c] for c in columns]
        lines.append(f"| {r} | " + " | ".join(map(_spread, cells)) + " |")
    return "\n".join(lines)


def _spread(records: Sequence[Record]) -> str:
    """Mean ± standard deviation of the number that the network shows."""
    if not records:
        return ""
    numbers = [float(record[record["shows"]]) for record in records]
    digits = 2 if records[0]["shows"] == "top1" else 4
    deviation = f" ± {stdev(numbers):.{digits}f}" if numbers[1:] else ""
    return f"{mean(numbers):.{digits}f}{deviation}"


def _ordered(records: Sequence[Record], study: str) -> list[Record]:
    places = {trial.key: place for place, trial in enumerate(STUDIES[study])}
    known = [r for r in records if Trial(**r["trial"]).key in places]
    return sorted(known, key=lambda r: places[Trial(**r["trial"]).key])


def _times(record: Record) -> str:
    return f"{1 / (1 - record['trial']['ratio']):.3g}×"


def _selection(records: Sequence[Record]) -> str:
    found = _ordered(records, "selection")
    return _grid(found, lambda r: r["trial"]["choice"], _times, "importance")


def _repair(records: Sequence[Record]) -> str:
    found = _ordered(records, "repair")
    large = [r for r in found if r["trial"]["network"] == "ResNet-56"]
    small = [r for r in found if r["trial"]["network"] == "ResNet-20"]
    parts = []
    if large:
        grid = _grid(
            large, _times, lambda r: f"`--round-to {r['trial']['round_to']}`", "fewer MACs"
        )
        parts.append(f"ResNet-56, {_shows(large[0]['original'], large[0])} before:\n\n{grid}")
        parts.append(_seconds(large))
    if small:
        before = small[0]["original"]
        parts.append(
            f"ResNet-20 at {_times(small[0])} fewer: {_spread(small)}, "
            f"{_shows(before, small[0])} before."
        )
    return "\n\n".join(parts)


def _shows(found: Record, record: Record) -> str:
    return f"{found[record['shows']]:.4g}"


def _seconds(records: Sequence[Record]) -> str:
    spent = {part: [r["seconds"][part] for r in records] for part in records[0]["seconds"]}
    said = [
        f"{part} {mean(numbers):.0f} (at most {max(numbers):.0f})"
        for part, numbers in spent.items()
    ]
    return f"Seconds: {', '.join(said)}."


def _parts(records: Sequence[Record]) -> str:
    found = _ordered(records, "parts")
    return _grid(found, lambda r: r["trial"]["choice"], lambda r: r["trial"]["repair"], "choice")


def _samples(records: Sequence[Record]) -> str:
    found = _ordered(records, "samples")
    return _grid(found, lambda r: "top-1", lambda r: r["trial"]["samples"], "images")


def _augmented(records: Sequence[Record]) -> str:
    found = _ordered(records, "augmented")
    return _grid(found, lambda r: "top-1", lambda r: f"{r['trial']['network']} {_times(r)}", "")


def _networks(records: Sequence[Record]) -> str:
    found = _ordered(records, "networks")
    named = {r["trial"]["network"]: r for r in found}
    grid = _grid(
        found,
        lambda r: f"{r['trial']['choice']}, {r['trial']['repair']}".removesuffix(", none"),
        lambda r: r["trial"]["network"],
        "choice, repair",
    )
    first, rule, *rows = grid.splitlines()
    before = " | ".join(_shows(r["original"], r) for r in named.values())
    return "\n".join([first, rule, f"| *original* | {before} |", *rows])


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    "selection": _selection,
    "repair": _repair,
    "parts": _parts,
    "samples": _samples,
    "augmented": _augmented,
    "networks": _networks,
}
