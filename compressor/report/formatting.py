"""Format numbers of a report for people: counts, sizes, changes, and how something was timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def share(before: float, after: float) -> str:
    """Format a change as a share of the value before."""
    return f"{after / before - 1:+.1%}" if before else ""


def points(before: float, after: float) -> str:
    """Format the change of a share between 0 and 1, in hundredths."""
    return f"{100 * (after - before):+.2f} points"


def difference(before: float, after: float) -> str:
    """Format the change of any other metric."""
    return f"{after - before:+.4g}"


def own_ms(latency: Mapping[str, Any]) -> float:
    """Return the milliseconds that a call takes by itself.

    That is the processor's time where it is known, else the median by the wall clock.
    """
    ms: float = latency["p50_ms"] if latency.get("cpu_ms") is None else latency["cpu_ms"]
    return ms


def describe_timing(latency: Mapping[str, Any]) -> str:
    """Return in words the runtime, the way, and which time was taken."""
    known = latency.get("cpu_ms") is not None
    return f"{latency['runtime']}, {way(latency)}{', CPU time' if known else ''}"


def interval(speedup: Mapping[str, Any]) -> str:
    """Format the interval of a change with 95 % confidence, and whether the times are noisy."""
    low, high = speedup["low"], speedup["high"]
    noisy = ", noisy" if speedup.get("is_noisy") else ""
    if not (low and high) or low == high:
        return noisy
    return f" ({1 / high - 1:+.0%} to {1 / low - 1:+.0%}){noisy}"


def noisy_words(latency: Mapping[str, Any], speedup: Mapping[str, Any]) -> str:
    """Return a note that something else kept the machine busy while this way was timed."""
    return (
        f"noisy times ({describe_timing(latency)}): {speedup['low']:.2f} to "
        f"{speedup['high']:.2f} times faster, and the original "
        f"{speedup['noise']['value']:.2f} times as fast as itself; "
        "compress bench times again, on a quiet machine"
    )


def way(latency: Mapping[str, Any]) -> str:
    """Return in words the threads, and the device and number of samples where they are unusual."""
    threads = latency["threads"]
    words = ["1 thread" if threads == 1 else f"{threads} threads"]
    words += [f"on {latency['host']}"] if latency.get("host") else []
    words += [latency["device"]] if latency["device"] != "cpu" else []
    words += [f"batch {latency['batch']}"] if latency["batch"] != 1 else []
    return ", ".join(words)


def machine_words(machine: Mapping[str, Any]) -> str:
    """Return in words the host (if it is another machine), processor, cores and runtime."""
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    host = f"{machine['host']}: " if machine.get("host") else ""
    return f"{host}{machine['processor']}, {cores}, {machine['runtime']}"


def large(number: float) -> str:
    """Format a count in thousands, millions or billions."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            return f"{number / limit:.2f} {unit}" if unit != "k" else f"{number / 1e3:.1f} k"
    return f"{number:.0f}"


def in_bytes(number: float) -> str:
    """Format a size that is given in bytes."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= limit:
            return f"{number / limit:.2f} {unit}"
    return f"{number:.0f} B"
