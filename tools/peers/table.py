"""docs/results/peers.md from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from tools.peers.studies import STUDIES
from tools.training.table import study_table
from tools.training.trial import Trial

Record = dict[str, Any]


def to_markdown(accuracy: Sequence[Record], coverage: Sequence[Record]) -> str:
    """The page; rows that were not run are named."""
    parts = [INTRODUCTION, _ahead(accuracy, coverage), "## Accuracy", ACCURACY]
    if accuracy:
        parts.append(study_table(accuracy, STUDIES["accuracy"]))
    parts += [_open(accuracy), "## Coverage", COVERAGE]
    found = [record for record in coverage if "ours" in record]
    if found:
        parts += [_totals(found), _named(found), _seconds(found)]
        parts += [_failures(found), _surroundings(found)]
    cut = [f"{r['zoo']}/{r['name']}" for r in coverage if "ours" not in r]
    if cut:
        parts.append(f"Ended before either was done: {', '.join(cut)}.")
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


AHEAD = "Where Torch-Pruning is ahead of us:"
OURS, THEIRS = "ours", "Torch-Pruning"


def _ahead(accuracy: Sequence[Record], coverage: Sequence[Record]) -> str:
    """What this page's records say, before anything else."""
    found = [*_more_accurate(accuracy), *_smaller(accuracy), *_faster(accuracy)]
    found += _quicker(coverage)
    alone = [
        f"{r['zoo']}/{r['name']}"
        for r in coverage
        if _passed(r, "torch_pruning") and not _passed(r, "ours")
    ]
    found += [f"it alone passes on {', '.join(alone)}."] if alone else []
    return "\n".join([AHEAD, "", *(f"- {line}" for line in found or ["nowhere in what was run."])])


def _more_accurate(records: Sequence[Record]) -> list[str]:
    """After the same training; ours at its best way."""
    lines = []
    for network, rows in _by_network(records).items():
        best = {
            tool: max(
                (r["tuned"] for r in rows if r["trial"]["method"].startswith(tool)), default=0
            )
            for tool in (OURS, THEIRS)
        }
        if best[THEIRS] > best[OURS]:
            lines.append(
                f"accuracy after training, {network}: {best[THEIRS]:.2f} and not {best[OURS]:.2f}."
            )
    return lines


def _smaller(records: Sequence[Record]) -> list[str]:
    """At the same multiply-adds, by more than a twentieth."""
    lines = []
    for network, rows in _by_network(records).items():
        left = {r["trial"]["method"]: r["params"] / r["base_params"] for r in rows}
        if {OURS, THEIRS} <= left.keys() and left[THEIRS] < 0.95 * left[OURS]:
            lines.append(
                f"parameters left, {network}: {left[THEIRS]:.0%} and not {left[OURS]:.0%}, at the "
                "same multiply-adds."
            )
    return lines


def _by_network(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        if "tuned" in record:
            found.setdefault(record["trial"]["network"], []).append(record)
    return found


def _faster(records: Sequence[Record]) -> list[str]:
    """By more than the noise, at widths that nothing rounds."""
    return [
        f"time of a call, {record['trial']['network']}, batch {timed['batch']}, free widths: "
        f"{timed['share'][THEIRS]:.2f} of the original's and not {timed['share'][OURS]:.2f}."
        for record in records
        for timed in record.get("times", ())
        if timed["share"][THEIRS] < timed["share"][OURS] * (1 - timed["noise"])
    ]


def _quicker(records: Sequence[Record]) -> list[str]:
    both = [r for r in records if all(_passed(r, tool) for tool in TOOLS)]
    lines = []
    for words, key in (("analysis", "analyse_s"), ("slicing", "slice_s")):
        ours, theirs = (median([r[tool][key] for r in both] or [0]) for tool in TOOLS)
        if theirs < ours:
            lines.append(f"{words} takes {theirs:.2f} s and not {ours:.2f} s (median).")
    return lines


def _open(records: Sequence[Record]) -> str:
    known = {Trial(**record["trial"]).key for record in records}
    left = [t for t in STUDIES["accuracy"] if t.key not in known]
    named = ", ".join(f"{t.network} ({t.method or 'latency'})" for t in left)
    return f"Open, not run yet: {named}." if left else ""


TOOLS = {"ours": "ours", "torch_pruning": "Torch-Pruning"}


def _passed(record: Record, tool: str) -> bool:
    return bool(record.get(tool, {}).get("status") == "passed")


def _totals(records: Sequence[Record]) -> str:
    head = ["zoo", "networks", *(f"{name} passes" for name in TOOLS.values())]
    head += ["only ours", "only Torch-Pruning"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for zoo in dict.fromkeys(r["zoo"] for r in records):
        found = [r for r in records if r["zoo"] == zoo]
        passed = {tool: {r["name"] for r in found if _passed(r, tool)} for tool in TOOLS}
        one, other = passed["ours"], passed["torch_pruning"]
        cells = (zoo, len(found), len(one), len(other), len(one - other), len(other - one))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _named(records: Sequence[Record]) -> str:
    """Who was run, since all others of the zoo are open."""
    kinds = {
        (True, True): "Both pass",
        (True, False): "Only ours passes",
        (False, True): "Only Torch-Pruning passes",
        (False, False): "Neither passes",
    }
    lines = []
    for outcome, words in kinds.items():
        names = [
            f"{r['zoo']}/{r['name']}"
            for r in records
            if (_passed(r, "ours"), _passed(r, "torch_pruning")) == outcome
        ]
        lines += [f"{words}: {', '.join(names)}."] if names else []
    lines.append("All other members of the zoo are open: not run yet.")
    return "\n\n".join(lines)


def _seconds(records: Sequence[Record]) -> str:
    both = [r for r in records if all(_passed(r, tool) for tool in TOOLS)]
    if not both:
        return ""
    lines = ["| tool | analysis, s | slicing, s | share of MACs removed |", "|---|---|---|---|"]
    for tool, name in TOOLS.items():
        keys = ("analyse_s", "slice_s", "removed")
        cells = (_spread([r[tool][key] for r in both]) for key in keys)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    said = f"Median and range over the {len(both)} networks on which both pass:"
    return "\n\n".join((said, "\n".join(lines)))


def _spread(numbers: Sequence[float]) -> str:
    return f"{median(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


def _failures(records: Sequence[Record]) -> str:
    parts = []
    for tool, name in TOOLS.items():
        rows = [
            f"| {r['zoo']} | {r['name']} | {_reason(r[tool])} |"
            for r in records
            if tool in r and not _passed(r, tool)
        ]
        if rows:
            head = [f"{name} fails:", "", "| zoo | network | reason |", "|---|---|---|"]
            parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts)


def _reason(found: Record) -> str:
    error = found["error"]
    kind = "" if error["kind"] == "WrongError" else f"{error['kind']}: "
    return " ".join(f"{kind}{error['first_line'][:140]}".replace("|", "\\|").split())


def _surroundings(records: Sequence[Record]) -> str:
    machines = Counter((r["machine"], r["threads"], r["date"]) for r in records)
    said = "; ".join(
        f"{machine}, threads of torch: {threads}, {day}" for machine, threads, day in machines
    )
    versions = records[0]["versions"]
    return f"Run on {said}; {', '.join(f'{name} {v}' for name, v in versions.items())}."


INTRODUCTION = """\
# Torch-Pruning beside us

Written by `python -m tools.peers table`; run by `python -m tools.peers --data-root FOLDER`, records
in [peers.jsonl](peers.jsonl) and [peers-coverage.jsonl](peers-coverage.jsonl)."""

ACCURACY = """\
Same weights, data, training code and budget of multiply-adds, in one run. *ours*: chosen by
reconstruction, to within one channel (or in steps of 8), repaired by least squares on unlabelled
training samples. *Torch-Pruning*: its group magnitude (L2), global, by bisection to within 0.5 % of
the MACs, or the nearest that whole heads allow; in ResNets inside blocks (its streams break at the
padded shortcut), in the character GPT whole heads and inner widths, told where they
are. Every row has the same training (*fine-tuned*:
after the last epoch). *time*: one call of the network's ONNX file, one thread, all taking turns, as
a share of the original's, at a batch of 1 / 32.

ResNets: as in [training.md](training.md), one epoch. MobileNets: 125 photos of ImageNet alone are
at hand, most likely of its training set; a third is trained and calibrated on, the other 83 are the
test data, so that one photo is 1.2 points and training is on 42 photos. That is next to none,
on which Torch-Pruning relies, since it repairs nothing: these rows show what repair is worth where
there is hardly any data, not which choice is better. Character GPT: 4 blocks of
width 128, trained here on tiny Shakespeare; per cent of next characters that are right."""

COVERAGE = """\
The [zoo](../zoo.md)'s networks without hints to either tool, weights drawn anew (trained ones keep
theirs), about half of the MACs gone at random. A tool passes when the smaller network runs, has
outputs of the same shapes that depend on its inputs, and equals its masked twin in float64 to
1e-8: the dense network with zeros where the channels that this tool dropped are consumed. Both
leave axes alone that cross a statistic over channels (ours takes them where nothing else reaches
half, and computes that statistic on what is kept). Torch-Pruning is told which layers make the
outputs. It has options for what it does not find out by itself (numbers of heads, parameters that
are no layer's, forward functions of detectors): with these, and edits of the class, more networks
pass than here. Analysis: ours traces and solves; theirs builds its graph. Slicing: ours rewrites
program and class, and compares them; theirs cuts the class's tensors. Seconds are those of the
clock, and other work ran on the machine meanwhile, for both alike."""
