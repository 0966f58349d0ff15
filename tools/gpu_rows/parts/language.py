"""Tokens per second of a language model before and after. Its weights are random: structure and
speed are real, what it says is not."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.graph.counting import count_params
from compressor.options import Options
from compressor.run.cutting import cut
from compressor.run.decide import plan
from compressor.run.subject import Subject
from compressor.studies.bench import Way, time_modules
from compressor.torch_calls import place
from compressor.watch import Silent
from tools.gpu_rows.records import Row
from tools.gpu_rows.scale import Scale

LAYERS = ("*.mlp*=0.5", "*.self_attn*=0.5")
"""Half of the hidden units and half of the heads of each layer."""


@dataclass(frozen=True)
class Size:
    """Of a model, and of what it reads and writes."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head: int
    inner: int
    words: int
    batches: tuple[int, ...] = (8, 1)
    length: int = 512
    written: int = 64


WHOLE = Size(1024, 28, 16, 8, 128, 3072, 151936)
TINY = Size(32, 2, 4, 2, 8, 64, 128, (1,), 8, 2)


def rows(scale: Scale) -> Iterator[Row]:
    """Reading whole texts, then writing word by word."""
    size = TINY if scale.is_dry else WHOLE
    find = {"reading": _reading, "writing": _writing}
    for key in keys(scale):
        yield Row("language", key, partial(find[key["what"]], size, key["batch"], scale))


def keys(scale: Scale) -> list[dict[str, Any]]:
    """Of all rows."""
    size = TINY if scale.is_dry else WHOLE
    return [
        {"model": "Qwen3 of 0.6 B", "what": what, "batch": batch}
        for what in ("reading", "writing")
        for batch in size.batches
    ]


def _model(size: Size) -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=size.words,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        head_dim=size.head,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    model: nn.Module = Qwen3ForCausalLM(config).eval()
    return model


def _ids(size: Size, batch: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, size.words, (batch, length), generator=generator)


@cache
def _both(size: Size) -> Mapping[str, nn.Module]:
    before = _model(size)
    subject = Subject(before, {"input_ids": _ids(size, 1, 16), "use_cache": False})
    asked = {"criterion": "l2", "round_to": 1, "format": ("pt2",), "best_effort": True}
    run, decision = plan(subject, Options(layer_ratio=LAYERS, **asked), Silent())
    after = cut(run, decision).sliced.module.cpu().eval()
    return {"before": before, "after": after}


def _about(size: Size) -> dict[str, Any]:
    return {"params": {name: count_params(model) for name, model in _both(size).items()}}


def _reading(size: Size, batch: int, scale: Scale) -> Mapping[str, Any]:
    kwargs = {"input_ids": _ids(size, batch, size.length), "use_cache": False}

    def found_by(backend: str) -> list[dict[str, Any]]:
        way = Way(backend, scale.device, 1, batch, "fp32" if scale.is_dry else "bf16")
        seconds = 0.05 if scale.is_dry else 2.0
        return time_modules(_both(size), (), kwargs, way, seconds=seconds)

    try:
        found = found_by("torch" if scale.is_dry else "torch-graphs")
    except CompressorError as error:  # a forward that waits for the GPU cannot be recorded
        print(error)
        found = found_by("torch")
    tokens = {each["name"]: size.length * each["samples_per_s"] for each in found}
    how = {"backend": found[0]["backend"], "faster": found[1]["faster"]}
    return {"tokens_per_s": tokens, **how, **_about(size)}


def _writing(size: Size, batch: int, scale: Scale) -> Mapping[str, Any]:
    """Greedily, with a cache of keys and values, as `generate` does it; by the clock."""
    precision, tokens = "fp32" if scale.is_dry else "bf16", dict[str, float]()
    ids = _ids(size, batch, 8).to(scale.device)
    for name, model in _both(size).items():
        placed: Any = place(copy.deepcopy(model), scale.device, precision)
        for written in (2, size.written):
            begin = time.perf_counter()
            placed.generate(
                ids, max_new_tokens=written, min_new_tokens=written, do_sample=False, pad_token_id=0
            )
            tokens[name] = batch * written / (time.perf_counter() - begin)
    return {"tokens_per_s": tokens, **_about(size)}
