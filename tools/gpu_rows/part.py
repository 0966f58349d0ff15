"""One part, in this process: `python -m tools.gpu_rows.part NAME OUT SECONDS [--dry-run]`."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path

import torch

from compressor.run import deliver
from tools.gpu_rows import places
from tools.gpu_rows.parts import NO_GPU, PARTS
from tools.gpu_rows.records import known
from tools.gpu_rows.scale import Scale
from tools.jsonl import append_line
from tools.surroundings import where

BRIEFLY = 0.05
"""How long, in seconds, a dry run times each network that it makes."""


def main(name: str, out: str, seconds: str, *flags: str) -> int:
    """Find the rows that no record has yet, one after the other; one that fails is recorded with
    its reason, is printed, and is tried again by the next call."""
    scale = Scale(Path(out), is_dry="--dry-run" in flags)
    if not scale.is_dry and not torch.cuda.is_available():
        return NO_GPU
    if scale.is_dry:
        deliver.LATENCY_SECONDS = BRIEFLY
    file, end = scale.out / places.RECORDS, time.monotonic() + float(seconds)
    before = known([places.EARLIER / places.RECORDS, file] if not scale.is_dry else [file])
    done = {name for name, record in before.items() if "failure" not in record}
    for row in PARTS[name].rows(scale):
        if row.name in done or time.monotonic() > end:
            continue
        begin = time.perf_counter()
        try:
            found = dict(row.find())
        except Exception as error:
            traceback.print_exc()
            found = {"failure": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        seconds_taken = round(time.perf_counter() - begin, 2)
        about = {"seconds": seconds_taken, "where": where(scale.device), "is_dry": scale.is_dry}
        append_line(file, {"part": row.part, "key": dict(row.key), **found, **about})
        print(f"{row.name}: {seconds_taken} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
