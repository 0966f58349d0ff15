"""Toy text, tokenizers that are trained on it on the spot, and folders of small random networks."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

VOCABULARY = 96
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_WHO = ("the cat", "a dog", "the old man", "my sister", "a small bird", "the king", "nobody")
_DOES = ("sees", "likes", "follows", "never finds", "eats", "sings of", "waits for")
_WHAT = ("the moon", "a red house", "bread", "the river", "an apple", "music", "the long road")


def toy_text(sentences: int = 200, seed: int = 0) -> str:
    """Draw sentences of a small language, two or three on a line."""
    drawn = random.Random(seed)
    lines, left = [], sentences
    while left > 0:
        count = min(left, drawn.choice((2, 3)))
        each = (" ".join(map(drawn.choice, (_WHO, _DOES, _WHAT))) for _ in range(count))
        lines.append(". ".join(each) + ".")
        left -= count
    return "\n".join(lines) + "\n"


@cache
def tokenizer(kind: str = "words") -> Any:
    """Train a tokenizer: of words, between [CLS] and [SEP]; or of bytes, after <s>."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "words":
        made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(vocab_size=VOCABULARY, special_tokens=[*SPECIAL])
        made.train_from_iterator(toy_text().splitlines(), trainer)
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        return PreTrainedTokenizerFast(
            tokenizer_object=made, mask_token="[MASK]", model_input_names=inputs, **names
        )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(toy_text().splitlines(), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
}
_BERT = {
    **_SIZES,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,  # else a network so narrow hardly looks at its input
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True}
_POSITIONS = {"n_embd": 16, "n_layer": 1, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 64}
_T5 = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4}

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _GROUPED),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _GROUPED),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {**_POSITIONS, "bos_token_id": 2, "eos_token_id": 3}),
    "bert": ("BertModel", "BertConfig", _BERT),
    "bert_masked": ("BertForMaskedLM", "BertConfig", _BERT),
    "bert_classes": ("BertForSequenceClassification", "BertConfig", {**_BERT, "num_labels": 3}),
    "bert_words": ("BertForTokenClassification", "BertConfig", {**_BERT, "num_labels": 3}),
    "roberta": (
        "RobertaForMaskedLM",
        "RobertaConfig",
        {**_BERT, "max_position_embeddings": 26, "pad_token_id": 0},
    ),
    "t5": ("T5ForConditionalGeneration", "T5Config", {**_T5, "vocab_size": VOCABULARY}),
    "vit": ("ViTModel", "ViTConfig", {"hidden_size": 16, "num_attention_heads": 2}),
}
"""Name -> class, configuration and its arguments."""


def network(kind: str, **others: Any) -> nn.Module:
    """Build a small network of transformers with random weights, in eval mode."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    name, config, arguments = KINDS[kind]
    torch.manual_seed(0)
    made: nn.Module = getattr(transformers, name)(
        getattr(transformers, config)(**{**arguments, **others})
    )
    return made.eval()


def folder_of(
    path: Path, kind: str, *, train: Callable[[nn.Module], None] | None = None, **others: Any
) -> Path:
    """Write a folder of a small network with its tokenizer."""
    made = network(kind, **others)
    if train is not None:
        train(made)
    made.eval().save_pretrained(path)  # type: ignore[operator]
    tokenizer().save_pretrained(path)
    return path


def train_on(text: str, steps: int, length: int = 16) -> Callable[[nn.Module], None]:
    """Return what trains a language model on windows of a text."""
    ids = torch.tensor(tokenizer()(text, add_special_tokens=False)["input_ids"])
    mask_id = tokenizer().mask_token_id

    def train(made: nn.Module) -> None:
        optimizer = torch.optim.AdamW(made.train().parameters(), 3e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            starts = torch.randint(len(ids) - length, (16,), generator=generator)
            given = labels = torch.stack([ids[start : start + length] for start in starts])
            if type(made).__name__.endswith("MaskedLM"):
                hidden = torch.rand(given.shape, generator=generator) < 0.15
                labels, given = given.masked_fill(~hidden, -100), given.masked_fill(hidden, mask_id)
            loss = made(input_ids=given, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train
