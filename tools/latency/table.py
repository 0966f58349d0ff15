"""docs/results/latency.md from the records, and the picture beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from tools.latency.trial import Record

INTRODUCTION = """\
# Latency: measured, and as a budget

Run by `python -m tools.latency --data-root FOLDER`, written by `python -m tools.latency table`.

Times are of the processor in one thread of ONNX Runtime (the median call). All networks of a row
or table take turns call by call with the original, which runs twice: *noise* is by how much it
differed from itself. ResNet-56 is the trained one of CIFAR-10, calibrated on 1 024 unlabelled
images (seed 0); the others have weights drawn at random (seed 0), since weights have no
influence on time, and are chosen by L2 norms."""

MACS = """\
## At half of the multiply-adds

How many times faster than the original, with the share of the MACs that is left. *defaults*:
`--ratio 0.5` (ResNet-56 with data: chosen by reconstruction); *no data*: chosen by L2 norms.
Torch-Pruning by group magnitude (L2), globally, its ratio bisected; in ResNet-56 inside the
blocks alone, since its network no longer runs when it prunes streams with zero-padded shortcuts."""

SHARE = """\
## Half of the time

`--of latency --ratio 0.5`, defaults otherwise. *again*: the resulting file measured once more,
by itself. Seconds are those of the stages; layers were timed on the first run of this machine."""

ACCURACY = """\
## Accuracy at equal latency

ResNet-56, chosen as the row says, sliced, and repaired by our least squares (Torch-Pruning's
choices, too); nothing is trained. Top-1 on the 10 000 test images ({original:.2f} before) and
the share of the original's time."""

EQUAL = """\
At equal measured latency, between neighbouring points linearly, in per cent:"""

DROP = """\
## How small without losing a point

`--max-drop 1.0 --of latency`, ResNet-56, repaired, nothing trained. It decides on the first half
of the test images; the second half decides nothing. The error is the standard error of the
paired difference."""

SHARES = (0.8, 0.7, 0.6, 0.5)

_COLOURS = ("#b30000", "#08519c", "#6baed6", "#737373", "#bdbdbd")


def to_markdown(records: Sequence[Record], picture: str = "") -> str:
    """The page; studies without records are left out."""
    parts = [INTRODUCTION]
    for study, part in _PARTS.items():
        found = [record for record in records if record["trial"]["study"] == study]
        parts += part(found, picture) if found else []
    return "\n\n".join([*parts, _machines(records)]) + "\n"


def _machines(records: Iterable[Record]) -> str:
    where = dict.fromkeys(
        f"{w['processor']}, {w['cores']} cores, onnxruntime {w['onnxruntime']}, "
        f"torch {w['torch']}, {w['date']}"
        for w in (record["where"] for record in records)
    )
    return "Measured on: " + "; ".join(where) + "."


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _macs(records: Sequence[Record], _: str) -> list[str]:
    names = list(dict.fromkeys(n for r in records for n in (*r["macs_left"], *r["failures"])))

    def cell(record: Record, times: Any, name: str) -> str:
        if name not in times["share"]:
            return "fails"
        return f"{1 / times['share'][name]:.2f}× ({record['macs_left'][name]:.3f})"

    rows = [
        [
            record["trial"]["network"],
            str(times["batch"]),
            f"{times['original_ms']:.4g} ms",
            f"{times['noise']:.1%}",
            *(cell(record, times, name) for name in names),
        ]
        for record in records
        for times in record["times"]
    ]
    failures = [
        f"- {record['trial']['network']}, {name}: {why}"
        for record in records
        for name, why in record["failures"].items()
    ]
    table = _rows(["network", "batch", "original", "noise", *names], rows)
    return [MACS, table, *(["\n".join(failures)] if failures else [])]


def _share(records: Sequence[Record], _: str) -> list[str]:
    header = ["network", "original", "share of time", "again", "noise", "predicted", "tries"]
    header += ["MACs left", "time layers", "correct"]
    rows = []
    for record in records:
        measured, again = record["measured"], record["times"][0]
        stages = record["stages"]
        rows.append(
            [
                record["trial"]["network"],
                f"{measured['before_ms']:.4g} ms",
                f"**{measured['share']:.3f}**",
                f"{again['share']['result']:.3f}",
                f"{again['noise']:.1%}",
                f"{measured['predicted']:.3f}",
                str(measured["tries"]),
                f"{record['macs_left']:.3f}",
                f"{stages['time layers']:.0f} s",
                f"{stages['correct by the clock']:.0f} s",
            ]
        )
    return [SHARE, _rows(header, rows)]


Curve = list[tuple[float, float]]
"""Share of the time and top-1, from the quickest on."""


def curves(records: Iterable[Record]) -> dict[str, Curve]:
    """Per method its points, with the original at the end."""
    found: dict[str, Curve] = {}
    for record in records:
        point = (record["times"][0]["share"]["result"], record["top1"])
        end = (1.0, record["original_top1"])
        found.setdefault(record["trial"]["method"], [end]).append(point)
    return {method: sorted(points) for method, points in found.items()}


def top1_at(curve: Curve, share: float) -> float | None:
    """Between the neighbouring points; None beyond them."""
    shares, values = zip(*curve, strict=True)
    if not shares[0] <= share <= shares[-1]:
        return None
    return float(np.interp(share, shares, values))


def _accuracy(records: Sequence[Record], picture: str) -> list[str]:
    points = [
        [
            record["trial"]["method"],
            f"{record['trial']['ratio']:.0%}",
            f"{record['macs_left']:.3f}",
            f"{record['times'][0]['share']['result']:.3f}",
            f"{record['times'][0]['noise']:.1%}",
            f"{record['top1']:.2f}",
        ]
        for record in records
    ]
    header = ["chosen by", "removed", "MACs left", "share of time", "noise", "top-1"]
    equal = []
    for method, curve in curves(records).items():
        values = (top1_at(curve, share) for share in SHARES)
        equal.append([method, *("" if v is None else f"{v:.2f}" for v in values)])
    drawn = [f"![top-1 against the share of time]({picture})"] if picture else []
    return [
        ACCURACY.format(original=records[0]["original_top1"]),
        *drawn,
        EQUAL,
        _rows(["chosen by", *(f"{share:.0%} of the time" for share in SHARES)], equal),
        _rows(header, points),
    ]


def _drop(records: Sequence[Record], _: str) -> list[str]:
    (record,) = records[-1:]
    trials = [
        [f"{t['removed']:.3f}", f"{t['drop']:+.2f}", "within" if t["is_within"] else "too much"]
        for t in record["floor"]["trials"]
    ]
    halves = [
        [
            name,
            f"{half['before']:.2f}",
            f"{half['after']:.2f}",
            f"{half['lost']:+.2f} ± {half['error']:.2f}",
        ]
        for name, half in ((n, record[n]) for n in ("validation", "test"))
    ]
    speeds = [
        f"batch {t['batch']}: {1 / t['share']['result']:.2f}× (noise {t['noise']:.1%})"
        for t in record["times"]
    ]
    return [
        DROP,
        _rows(["predicted time removed", "points lost on validation", ""], trials),
        _rows(["half", "top-1 before", "after", "points lost"], halves),
        f"Faster by: {', '.join(speeds)}; {record['macs_left']:.3f} of the MACs are left.",
    ]


_PARTS: dict[str, Callable[[Sequence[Record], str], list[str]]] = {
    "macs": _macs,
    "share": _share,
    "accuracy": _accuracy,
    "drop": _drop,
}


def draw(records: Iterable[Record], path: Path) -> None:
    """Top-1 against the share of time, a line per method."""
    found = curves(r for r in records if r["trial"]["study"] == "accuracy")
    with mpl.rc_context({"svg.hashsalt": "compressor"}):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots()
        for (method, curve), colour in zip(found.items(), _COLOURS, strict=False):
            axes.plot(*zip(*curve, strict=True), "o-", markersize=3, color=colour, label=method)
        axes.set_xlabel("share of the original's time, measured")
        axes.set_ylabel("top-1, %")
        axes.set_xlim(0.4, 1.02)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
        figure.savefig(path, metadata={"Date": None})
