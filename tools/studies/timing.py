"""Modules timed against each other by `compress bench`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import compressor
from compressor.cli import main


def time_modules(
    modules: Mapping[str, nn.Module],
    example: Tensor,
    *,
    batches: Sequence[int] = (1,),
    seconds: float = 8.0,
    backends: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Time files of the modules, all taking turns, the first one twice.

    Args:
        modules: Name -> module; the first is what the others are compared with.
        example: What they take, [1, ...].
        batches: Numbers of samples in a call.
        seconds: How long each way is measured, all modules together.
        backends: What runs them, in one thread and in all; default ONNX Runtime in one thread.

    Returns:
        Per backend, number of threads and number of samples: these (`backend`, `threads`, `batch`),
        `first_ms` (the median call of the first), `noise` (by what share it differs from itself)
        and `share` (name -> time as a share of the first's). What could not be measured is left
        out.

    Raises:
        RuntimeError: A module cannot be exported or timed; the command's message says why.
    """
    with tempfile.TemporaryDirectory(prefix="timing-") as name:
        folder = Path(name)
        files = [folder / f"{number}.pt2" for number in range(len(modules))]
        for file, module in zip(files, modules.values(), strict=True):
            compressor.save(module, example, file)
        how = ("--backend", ",".join(backends)) if backends else ("--threads", "1")
        asked = (*how, "--batch", ",".join(map(str, batches)))
        told = ("--seconds", str(seconds), "--out", str(folder / "times.json"))
        shown = StringIO()
        with redirect_stdout(shown):
            code = main(["bench", *map(str, files), *asked, *told])
        if code:
            raise RuntimeError(f"compress bench ended with {code}: {shown.getvalue()[-300:]}")
        found = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    return [_way(list(modules), way) for way in found["ways"] if way["records"]]


def _way(names: Sequence[str], way: Mapping[str, Any]) -> dict[str, Any]:
    first, *others = way["records"]
    return {
        **{name: way[name] for name in ("backend", "threads", "batch")},
        "first_ms": first["ms"]["p50"],
        "noise": abs(1 - first["faster"]["value"]),
        "share": {
            name: 1 / record["faster"]["value"]
            for name, record in zip(names[1:], others, strict=True)
        },
    }
