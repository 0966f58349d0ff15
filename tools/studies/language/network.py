"""`stories260k` as a transformers folder: its text, its measure, and what Torch-Pruning is told."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from compressor.recover.evaluation import primary_output
from tools.studies.language.folder import write_folder
from tools.zoo import trained

LENGTH = 256
"""Tokens of a window, BEGIN included."""


class Logits(nn.Module):
    """A causal language model as a function of token ids [n, t] to scores [n, t, vocabulary]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return scores


@cache
def folder_of(root: Path) -> Path:
    """Write the folder, and the text beside it in two files, into torch's cache; return its place.

    A third of the text, the first, is calibrated and trained on; the rest is judged on. Blank lines
    become line ends, as the network has learnt them.
    """
    place = Path(torch.hub.get_dir()) / "compressor" / "stories260k"
    text = (root / "tinystories_sample.txt").read_text(encoding="utf-8").replace("\n\n", "\n")
    write_folder(root / "stories260k.safetensors", root / "stories260k_tok512.bin", place)
    at = text.index("\n", len(text) // 3) + 1
    (place / "train.txt").write_text(text[:at], encoding="utf-8")
    (place / "test.txt").write_text(text[at:], encoding="utf-8")
    return place


def windows(folder: Path, part: str) -> Tensor:
    """Return a text's windows [n, LENGTH], each with BEGIN before it; a rest is dropped."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = (folder / f"{part}.txt").read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    count = len(ids) // (LENGTH - 1)
    inner = torch.tensor(ids[: count * (LENGTH - 1)]).view(count, LENGTH - 1)
    return torch.cat([torch.full((count, 1), tokenizer.bos_token_id), inner], 1)


def samples(folder: Path, part: str) -> TensorDataset:
    """Return the windows, each its own target."""
    ids = windows(folder, part)
    return TensorDataset(ids, ids)


def next_token_loss(scores: Any, target: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of each next token, in nats."""
    return trained.next_token_loss(primary_output(scores)[:, :-1], target[:, 1:])


next_token_loss.higher_is_better = False  # type: ignore[attr-defined]


def load_model(folder: Path) -> Any:
    """Return the language model of a transformers folder, in eval mode and single precision."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def perceptron_widths(module: Logits) -> dict[str, Any]:
    """Return what Torch-Pruning has to be told of a Llama: it cuts its perceptrons alone.

    Where key/value heads are repeated for their query heads its search for groups does not end.
    """
    layers = list(module.model.model.layers)  # type: ignore[union-attr]
    attentions = [x for layer in layers for x in layer.self_attn.children()]
    streams = [layer.mlp.down_proj for layer in layers]
    tied = [module.model.lm_head, module.model.model.embed_tokens]  # type: ignore[union-attr]
    return {"ignored_layers": [*attentions, *streams, *tied]}
