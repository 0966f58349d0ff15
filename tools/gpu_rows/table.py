"""The page of all GPU rows: figures where there are records, else 'open'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tools.gpu_rows.networks import GROUPS, networks
from tools.gpu_rows.parts import language, latency, training
from tools.gpu_rows.records import Record, name_of
from tools.gpu_rows.scale import Scale
from tools.markdown import table
from tools.studies.tables import spread
from tools.surroundings import measured_on

OPEN = "open"
Records = Mapping[str, Record]

HEAD = """\
# On a GPU

Written by `tools/gpu --merge FOLDER`, from the records of `tools/gpu --out FOLDER` in
[gpu.jsonl](gpu.jsonl); [how](../guide/gpu.md). *open*: no record yet.
"""

_LATENCY = """\
## Latency at half of the MACs

Milliseconds of one call of the original by the device's events, and how many times faster the
smaller networks are; all take turns, the original a second time (*noise*). In brackets the share of
the MACs that is left. Weights are random: widths count. *ours, steps of this GPU*: widths in the
steps measured there in bf16 for a batch of 256 (`--latency-on cuda --latency-precision bf16`);
*ours, --of latency*: half of the time instead, as predicted from layers measured likewise. Aim:
1.7x at batch 256 in bf16.
"""

_TRAINING = """\
## ResNet-56 on CIFAR-10, fine-tuned

As in [training.md](training.md), last epoch, top-1 in per cent on the test images. Aims: 94.0 at
2.1x and 93.6 at 2.55x; two seconds an epoch.
"""

_LANGUAGE = """\
## A language model

Qwen3's architecture at 0.6 B parameters with random weights: structure and speed only. Half of the
hidden units and of the heads of each layer are gone. *reading*: whole texts, bf16, as a CUDA graph
(or eager, where the record says so);
*writing*: greedily, word by word, as `generate` does it.
"""


def to_markdown(records: Sequence[Record], *, is_dry: bool = False) -> str:
    """The page; of a dry run with its own tiny rows."""
    known, scale = {name_of(record): record for record in records}, Scale(Path(), is_dry=is_dry)
    sections = [
        HEAD,
        *(["A dry run: no figure means anything.\n"] if is_dry else []),
        "## Tests\n",
        _tests(known),
        _LATENCY,
        _table(_latency(known, scale)),
        _TRAINING,
        _table(_training(known, scale)),
        _LANGUAGE,
        _table(_language(known, scale)),
        measured_on(records),
    ]
    return "\n".join(sections).rstrip() + "\n"


def _found(known: Records, part: str, key: Mapping[str, Any]) -> Record | None:
    return known.get(name_of({"part": part, "key": key}))


def _table(rows: Iterable[Sequence[str]]) -> str:
    head, *body = rows
    return table(head, body) + "\n"


def _tests(known: Records) -> str:
    record = next((r for r in known.values() if r["part"] == "tests"), None)
    if record is None:
        return f"Tests marked `gpu`: {OPEN}.\n"
    stopped = ", then stopped at the limit" if record["is_stopped"] else ""
    return f"Tests marked `gpu`: {record['passed']} passed, {record['failed']} failed{stopped}.\n"


def _latency(known: Records, scale: Scale) -> Iterator[Sequence[str]]:
    """Ways as CUDA graphs, and whatever else was measured."""
    methods = [method for group in GROUPS.values() for method in group]
    yield ["network", "way", "batch", "original, ms", "noise", *methods]
    for name in networks(scale):
        for way in latency.ways(scale):
            found = [_found(known, "latency", latency.key_of(name, g, way)) for g in GROUPS]
            there = [record for record in found if record is not None]
            if there or way.backend == "torch-graphs":
                words = (
                    f"{way.backend.removeprefix('torch').strip('-') or 'eager'}, {way.precision}"
                )
                cells = [_faster(method, there) for method in methods]
                yield [name, words, str(way.batch), *_original(there), *cells]


def _original(records: Sequence[Record]) -> list[str]:
    if not records:
        return [OPEN, OPEN]
    times = [record["times"]["original"] for record in records]
    noise = max(abs(time["faster"]["value"] - 1) for time in times)
    return [f"{mean(time['ms'] for time in times):.3g}", f"{noise:.1%}"]


def _faster(method: str, records: Sequence[Record]) -> str:
    for record in records:
        if method in record["times"]:
            value = record["times"][method]["faster"]["value"]
            return f"{value:.2f}x ({record['macs_left'][method]:.0%})"
        if method in record["failures"]:
            return "failed"
    return OPEN


def _training(known: Records, scale: Scale) -> Iterator[Sequence[str]]:
    yield ["fewer MACs", "method", "seeds", "base", "sliced", "fine-tuned", "s per epoch"]
    keys = training.keys(scale)
    for times, method in dict.fromkeys((key["times"], key["method"]) for key in keys):
        same = [key for key in keys if (key["times"], key["method"]) == (times, method)]
        found = [r for key in same if (r := _found(known, "training", key)) is not None]
        if not found:
            yield [f"{times:g}x", method, "0", *[OPEN] * 4]
            continue
        before, after = (mean(record["macs"][i] for record in found) for i in (0, 1))
        numbers = [spread([100 * r["moments"][i][1] for r in found]) for i in (0, 1, -1)]
        epoch = f"{mean(record['epoch_s'] for record in found):.2f}"
        yield [f"{before / after:.2f}x", method, str(len(found)), *numbers, epoch]


def _language(known: Records, scale: Scale) -> Iterator[Sequence[str]]:
    yield ["model", "what", "batch", "before, tokens/s", "after, tokens/s", "faster", "parameters"]
    for key in language.keys(scale):
        record = _found(known, "language", key)
        cells = [OPEN] * 4
        if record is not None:
            tokens, params = record["tokens_per_s"], record["params"]
            faster = f"{tokens['after'] / tokens['before']:.2f}x" if "after" in tokens else OPEN
            states = ("before", "after")  # the records' own order is the alphabet's
            speeds = [f"{tokens[name]:.0f}" if name in tokens else OPEN for name in states]
            sizes = [f"{params[name] / 1e6:.0f} M" for name in states if name in params]
            cells = [*speeds, faster, " → ".join(sizes)]
        yield [key["model"], key["what"], str(key["batch"]), *cells]
