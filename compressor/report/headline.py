"""Sum up a run in a few lines: how much smaller, how much faster, at what loss, how near."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from compressor.files.format_table import FORMATS, ONNX
from compressor.metrics import FIDELITY, TOP1
from compressor.report.formatting import describe_timing, large, own_ms, points, share

_NORMAL = 1.96
"""95 % of a normal distribution lie within this many standard deviations."""

_SPEEDS = ((1.05, "{:.2f}× faster"), (0.95, "as fast ({:.2f}×)"), (0.0, "slower ({:.2f}×)"))


@dataclass(frozen=True)
class Line:
    """One line of the headline: what the number is of, the number, and where it comes from."""

    title: str
    number: str
    detail: str


def headline(report: Mapping[str, Any]) -> list[Line]:
    """Return the lines for size, time and quality; what was not measured says so."""
    lines = [_smaller(report), _faster(report), _quality(report)]
    near = _nearness(report)
    if near is not None and not report["before"]["metrics"].keys() - {near.title}:
        lines.pop()
    return [*lines, near] if near is not None else lines


def half_width(value: float, samples: int) -> float:
    """Return half the width of a share's 95 % interval (Wilson), measured on so many samples."""
    z2 = _NORMAL**2 / samples
    spread = sqrt(value * (1 - value) / samples + z2 / (4 * samples))
    return _NORMAL * spread / (1 + z2)


def _smaller(report: Mapping[str, Any]) -> Line:
    before, after = report["before"], report["after"]
    parts = [f"multiply-adds {large(before['macs'])} → {large(after['macs'])}"]
    for words, key in (("parameters", "params"), (FORMATS[ONNX].label, "size_bytes")):
        if before[key]:
            parts.append(f"{words} {share(before[key], after[key])}")
    return Line("smaller", f"{share(before['macs'], after['macs'])} MACs", ", ".join(parts))


def _faster(report: Mapping[str, Any]) -> Line:
    times = [report[moment]["latency"][:1] for moment in ("before", "after")]
    if not all(times) or not all(own_ms(time[0]) for time in times):
        return Line("faster", "not measured", "no latency was measured")
    before, after = times[0][0], times[1][0]
    factor, interval = own_ms(before) / own_ms(after), ""
    words = next(words for least, words in _SPEEDS if factor >= least).format(factor)
    if report.get("speedups"):
        speedup = report["speedups"][0]
        interval = f"; 95 % interval {speedup['low']:.2f} to {speedup['high']:.2f}"
        words += ", noisy" if speedup.get("is_noisy") else ""
    detail = f"median {own_ms(before):.3g} → {own_ms(after):.3g} ms"
    if before.get("cpu_ms") is None and before["p90_ms"] and after["p90_ms"]:
        detail += f", 90th percentile {before['p90_ms']:.3g} → {after['p90_ms']:.3g} ms"
    return Line("faster", words, f"{detail}{interval}; {describe_timing(before)}")


def _quality(report: Mapping[str, Any]) -> Line:
    where = report["evaluated_on"]
    for name, before in report["before"]["metrics"].items():
        after = report["after"]["metrics"].get(name)
        if before is None or after is None:
            return Line(name, "no number", f"it is no finite number on {where}")
        if name == TOP1:
            return _accuracy(report, before, after)
        is_lower = name in report.get("lower_is_better", ())
        where = f"less is better; on {where}" if is_lower else f"on {where}"
        return Line(name, f"{after - before:+.4g}", f"{before:.4g} → {after:.4g}, {where}")
    return Line("accuracy", "not measured", where)


def _nearness(report: Mapping[str, Any]) -> Line | None:
    """Return how near the outputs are to the original's; of several the one that is furthest."""
    fidelity = report.get("fidelity")
    if not fidelity or not fidelity["outputs"]:
        return None
    worst = min(fidelity["outputs"], key=lambda each: float(each["cosine"]))
    several = f" ({worst['output']}, the furthest of {len(fidelity['outputs'])} outputs)"
    same = worst["same_argmax"]
    parts = [
        f"relative error {worst['relative_error']:.3g}",
        *([] if same is None else [f"the same largest entry in {same:.2%}"]),
    ]
    words = f"cosine {worst['cosine']:.4f}" + (several if len(fidelity["outputs"]) > 1 else "")
    where = f"on {fidelity['samples']} samples: {report['evaluated_on']}"
    return Line(FIDELITY, words, f"{', '.join(parts)}, {where}")


def _accuracy(report: Mapping[str, Any], before: float, after: float) -> Line:
    samples, where = report.get("evaluated_samples", 0), report["evaluated_on"]
    show: Callable[[float], str] = "{:.2%}".format
    if samples:
        show = lambda value: f"{value:.2%} ± {100 * half_width(value, samples):.2f}"  # noqa: E731
        where += "; ± is what so many samples leave open (95 %)"
    detail = f"top-1 {show(before)} → {show(after)}, on {where}"
    return Line("accuracy", points(before, after), detail)
