"""Results that are exported again: for weights trained further, and for other versions of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tools.selfcheck.bad_results import write_result
from tools.selfcheck.refusal import BadInput
from tools.tiny import sequential


def _result_and_weights(
    change: Callable[[dict[str, torch.Tensor]], Any],
) -> Callable[[Path], object]:
    """A result of the tiny network, and weights made of its own by `change`; pickled where that
    makes no state dict."""

    def make(folder: Path) -> None:
        changed = change(load_file(write_result(folder) / "model.safetensors"))
        if isinstance(changed, dict):
            save_file(changed, folder / "new.safetensors")
        else:
            torch.save(changed, folder / "new.safetensors")

    return make


_CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "the same": lambda s: s,
    "other shapes": lambda s: {n: torch.cat([t, t]) if t.dim() else t for n, t in s.items()},
    "NaN": lambda s: {n: t * torch.nan if t.is_floating_point() else t for n, t in s.items()},
    "missing names": lambda s: dict([*s.items()][1:]),
    "names too many": lambda s: {**s, "extra": torch.ones(2)},
    "half types": lambda s: {n: t.half() if t.is_floating_point() else t for n, t in s.items()},
    "a pickled network": lambda s: sequential(),
}

OUT = ("--out", "new")
ODD_RESULTS = [
    *(
        BadInput(f"export --weights with {name}",
                 ("export", "result", "--weights", "new.safetensors", *OUT), (),
                 _result_and_weights(change), is_odd=True)
        for name, change in _CHANGES.items()
    ),
    *(
        BadInput(f"export --opset {version}", ("export", "result", "--opset", version, *OUT), (),
                 write_result, is_odd=True)
        for version in ("3", "11", "99", "-1")
    ),
]  # fmt: skip
