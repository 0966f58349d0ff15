"""Tokens per second of transformers itself, several folders taking turns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tools.studies.language.network import load_model

TOKENS, ROUNDS = 128, 9
"""Tokens that are made in a turn, after one of the prompt; and how many turns each folder has."""
BATCHES = (1, 8)


def time_folders(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Make tokens greedily, with the cache, in one thread; the first folder takes a second turn.

    Args:
        folders: Name -> a transformers folder; the first is what the others are compared with.

    Returns:
        Per number of texts at once `batch`, `tokens_per_second` (name -> its median over the turns)
        and `noise` (by what share the first differs from itself).
    """
    models = {name: load_model(folder) for name, folder in folders.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_take_turns(models, batch) for batch in BATCHES]
    finally:
        torch.set_num_threads(threads)


def _take_turns(models: Mapping[str, Any], batch: int) -> dict[str, Any]:
    first = next(iter(models.values()))
    turns = [*models.items(), ("", first)]
    for _, model in turns:
        _generate(model, batch)
    seconds: dict[str, list[float]] = {name: [] for name, _ in turns}
    for _ in range(ROUNDS):
        for name, model in turns:
            begin = time.perf_counter()
            _generate(model, batch)
            seconds[name].append(time.perf_counter() - begin)
    speed = {name: batch * TOKENS / median(each) for name, each in seconds.items()}
    again, whole = speed.pop(""), speed[next(iter(models))]
    return {"batch": batch, "tokens_per_second": speed, "noise": abs(1 - again / whole)}


def _generate(model: Any, batch: int) -> None:
    begin = torch.full((batch, 1), model.config.bos_token_id)
    length = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    mask = torch.ones_like(begin)
    with torch.inference_mode():
        model.generate(begin, attention_mask=mask, do_sample=False, pad_token_id=0, **length)


def size_of_weights(folder: Path) -> int:
    """Return the bytes of a folder's weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
