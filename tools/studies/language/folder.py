"""Write a checkpoint of llama2.c as the folder that transformers loads, tokenizer included."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from tools.stories import Shape

STORIES = Shape()
"""The sizes of `stories260k`."""
UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
"""The first three pieces, which stand for no text."""
SPACE = "\u2581"
"""What SentencePiece writes for a space."""

LAYERS: Mapping[str, str] = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""The names of a layer's parts, here and there."""
ENDS: Mapping[str, str] = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm"}
TURNED = ("attention.wq", "attention.wk")
"""Rotary pairs lie side by side here, half a head apart there."""


def write_folder(weights: Path, pieces: Path, folder: Path, shape: Shape = STORIES) -> None:
    """Write the folder of a Llama with its configuration, weights and tokenizer.

    Args:
        weights: The state dict of `tools.stories.Stories` (.safetensors).
        pieces: The tokenizer in the form of llama2.c.
        folder: Is made.
        shape: The network's sizes.
    """
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    module = LlamaForCausalLM(config)
    named = dict(rename(load_file(weights), shape))
    module.load_state_dict(named | {"lm_head.weight": named["model.embed_tokens.weight"]})
    module.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    module.save_pretrained(folder)
    tokenizer_of(pieces, shape.context).save_pretrained(folder)


def rename(state: Mapping[str, Tensor], shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters by the names, and in the order of rows, that transformers has."""
    for name, tensor in state.items():
        path, _, kind = name.rpartition(".")
        if path in ENDS:
            yield f"{ENDS[path]}.{kind}", tensor
            continue
        _, number, part = path.split(".", 2)
        rows = _pairs_apart(tensor, shape.width // shape.heads) if part in TURNED else tensor
        yield f"model.layers.{number}.{LAYERS[part]}.{kind}", rows


def _pairs_apart(weight: Tensor, head_width: int) -> Tensor:
    """Return rows [heads * head_width, in] with the first of all pairs of a head before the second
    ones."""
    pairs = weight.view(-1, head_width // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape).contiguous()


def read_pieces(file: Path) -> list[tuple[str, float]]:
    """Return the pieces of a tokenizer of llama2.c with their scores, by number."""
    content, at = file.read_bytes(), 4
    found = []
    while at < len(content):
        score, length = struct.unpack_from("<fi", content, at)
        found.append((content[at + 8 : at + 8 + length].decode(), score))
        at += 8 + length
    return found


def tokenizer_of(file: Path, context: int) -> Any:
    """Return the tokenizer in the form of transformers; windows begin with BEGIN.

    Pieces are merged in the order of their scores, and bytes stand for what no piece spells.
    """
    from transformers import PreTrainedTokenizerFast

    scored = read_pieces(file)
    spelt = [UNKNOWN, BEGIN, END, *(piece.replace(" ", SPACE) for piece, _ in scored[3:])]
    vocabulary = {piece: number for number, piece in enumerate(spelt)}
    made = Tokenizer(
        BPE(
            vocabulary,
            merges_of(vocabulary, scored),
            unk_token=UNKNOWN,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.post_processor = TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 1)])
    made.add_special_tokens([AddedToken(name, special=True) for name in (UNKNOWN, BEGIN, END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=context,
    )


def merges_of(
    vocabulary: Mapping[str, int], scored: list[tuple[str, float]]
) -> list[tuple[str, str]]:
    """Return the pairs of pieces that make a piece, those of the highest score first."""
    found = []
    for piece, number in vocabulary.items():
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in vocabulary and right in vocabulary:
                found.append((-scored[number][1], vocabulary[left], vocabulary[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]
