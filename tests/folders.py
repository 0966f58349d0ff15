"""Small transformers models with random weights, and the folders that they are saved in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
TEXT = {**SIZES, "vocab_size": 60, "max_position_embeddings": 64}
DECODER = {**TEXT, "num_key_value_heads": 2}
SEQUENCES = {
    "vocab_size": 60,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
}
WHISPER = {
    **SEQUENCES,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "begin_suppress_tokens": None,
}
SPEECH = {
    **SIZES,
    "vocab_size": 30,
    "conv_dim": [16, 24, 20],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
IMAGE = {**SIZES, "image_size": 16, "patch_size": 4, "num_labels": 5}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "image_size": 64, "num_labels": 5}
CLIP = {
    "text_config": {**TEXT, "max_position_embeddings": 32, "eos_token_id": 59},
    "vision_config": {**IMAGE, "intermediate_size": 40},
    "projection_dim": 24,
}
EXPERTS = {**DECODER, "num_experts_per_tok": 2, "num_hidden_layers": 2}
MIXTRAL = {**EXPERTS, "num_local_experts": 6}
QWEN_EXPERTS = {**EXPERTS, "head_dim": 16, "num_experts": 6, "moe_intermediate_size": 24}
QWEN2_EXPERTS = {**EXPERTS, "num_experts": 6, "moe_intermediate_size": 24}
QWEN2_EXPERTS |= {"shared_expert_intermediate_size": 40}
GPT_OSS = {**EXPERTS, "head_dim": 8, "num_local_experts": 6, "rope_parameters": None}
DISTILBERT = {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
T5 |= {"decoder_start_token_id": 0}
SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "num_labels": 5,
}
SEGFORMER = {
    **STAGES,
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 4],
    "mlp_ratios": [4, 4, 4, 4],
    "decoder_hidden_size": 24,
}

MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "BertForSequenceClassification": ("BertConfig", TEXT),
    "DistilBertForMaskedLM": ("DistilBertConfig", {**DISTILBERT, "max_position_embeddings": 64}),
    "RobertaForMaskedLM": ("RobertaConfig", TEXT),
    "MPNetModel": ("MPNetConfig", TEXT),
    "GPT2LMHeadModel": ("GPT2Config", GPT2),
    "OPTForCausalLM": ("OPTConfig", {**TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "LlamaForCausalLM": ("LlamaConfig", DECODER),
    "MistralForCausalLM": ("MistralConfig", DECODER),
    "Qwen2ForCausalLM": ("Qwen2Config", {**DECODER, "tie_word_embeddings": True}),
    "Qwen3ForCausalLM": ("Qwen3Config", {**DECODER, "head_dim": 16}),
    "GemmaForCausalLM": ("GemmaConfig", {**DECODER, "head_dim": 16}),
    "MixtralForCausalLM": ("MixtralConfig", MIXTRAL),
    "Qwen3MoeForCausalLM": ("Qwen3MoeConfig", QWEN_EXPERTS),
    "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", QWEN2_EXPERTS),
    "OlmoeForCausalLM": ("OlmoeConfig", {**EXPERTS, "num_experts": 6}),
    "GptOssForCausalLM": ("GptOssConfig", GPT_OSS),
    "PhiForCausalLM": ("PhiConfig", TEXT),
    "T5ForConditionalGeneration": ("T5Config", T5),
    "BartForConditionalGeneration": ("BartConfig", {**SEQUENCES, "max_position_embeddings": 64}),
    "ViTForImageClassification": ("ViTConfig", IMAGE),
    "DeiTForImageClassification": ("DeiTConfig", IMAGE),
    "SwinForImageClassification": ("SwinConfig", SWIN),
    "ConvNextForImageClassification": ("ConvNextConfig", {**STAGES, "depths": [1, 1, 2, 1]}),
    "SegformerForSemanticSegmentation": ("SegformerConfig", SEGFORMER),
    "CLIPModel": ("CLIPConfig", CLIP),
    "WhisperForConditionalGeneration": ("WhisperConfig", WHISPER),
    "Wav2Vec2ForCTC": ("Wav2Vec2Config", SPEECH),
}
"""Name of a class -> name of its configuration's class and what that is given."""


DEPTHS = ("num_hidden_layers", "n_layer")


def make_model(name: str, *, deep: bool = False) -> nn.Module:
    """Build a model whose outputs depend on its inputs, which drawn weights of 0.02 hardly do.

    It has two layers, or four.
    """
    import transformers

    configuration, sizes = MODELS[name]
    sizes = {**sizes, **{depth: 4 for depth in DEPTHS if deep and depth in sizes}}
    torch.manual_seed(0)
    model: Any = getattr(transformers, name)(getattr(transformers, configuration)(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model.eval()


def save_model(
    name: str,
    folder: Path,
    change: Callable[[Any], Any] = lambda model: model,
    *,
    deep: bool = False,
    **how: Any,
) -> Path:
    """Save a model in a folder, changed before, and return the folder."""
    change(make_model(name, deep=deep)).save_pretrained(folder, **how)
    return folder
