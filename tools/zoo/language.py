"""Networks of transformers, as small random configurations: two layers, width 64, four heads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compressor.records import ExampleInputs
from tools.zoo.members import Settings, Subject

VOCABULARY = 99
LENGTH = 12

Inputs = Callable[[], dict[str, Tensor]]


def _ids(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (1, LENGTH), generator=generator)


def _tokens() -> dict[str, Tensor]:
    return {"input_ids": _ids()}


def _pair() -> dict[str, Tensor]:
    return {"input_ids": _ids(), "decoder_input_ids": _ids(1)}


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _image(size: int) -> Inputs:
    return lambda: {"pixel_values": _noise(1, 3, size, size)}


@dataclass(frozen=True)
class Network:
    """A model class, its configuration class and how small it is made."""

    model: str
    config: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs = _tokens


_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
_DECODER = {**_ENCODER, "use_cache": False, "pad_token_id": 0}
_GROUPED = {**_DECODER, "num_key_value_heads": 2, "head_dim": 16}
_SEQUENCE = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "use_cache": False,
}
_PATCHES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}

NETWORKS: Mapping[str, Network] = {
    "bert": Network("BertForMaskedLM", "BertConfig", _ENCODER),
    "distilbert": Network(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": VOCABULARY, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96},
    ),
    "roberta": Network("RobertaForMaskedLM", "RobertaConfig", _ENCODER),
    "gpt2": Network(
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "use_cache": False,
        },
    ),
    "opt": Network(
        "OPTForCausalLM",
        "OPTConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "word_embed_proj_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 96,
            "max_position_embeddings": 64,
            "use_cache": False,
        },
    ),
    "llama": Network("LlamaForCausalLM", "LlamaConfig", _GROUPED),
    "mistral": Network("MistralForCausalLM", "MistralConfig", _GROUPED),
    "qwen2": Network("Qwen2ForCausalLM", "Qwen2Config", _GROUPED),
    "qwen3": Network("Qwen3ForCausalLM", "Qwen3Config", _GROUPED),
    "gemma": Network("GemmaForCausalLM", "GemmaConfig", _GROUPED),
    "phi": Network("PhiForCausalLM", "PhiConfig", {**_DECODER, "num_key_value_heads": 2}),
    "t5": Network(
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 96,
            "num_layers": 2,
            "num_heads": 4,
            "use_cache": False,
        },
        _pair,
    ),
    "bart": Network("BartForConditionalGeneration", "BartConfig", _SEQUENCE, _pair),
    "vit": Network("ViTForImageClassification", "ViTConfig", _PATCHES, _image(32)),
    "deit": Network("DeiTForImageClassification", "DeiTConfig", _PATCHES, _image(32)),
    "swin": Network(
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 32,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        _image(32),
    ),
    "convnext": Network(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [2, 2, 2, 2], "image_size": 64},
        _image(64),
    ),
    "segformer": Network(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {
            "depths": [2, 2, 2, 2],
            "hidden_sizes": [16, 32, 48, 64],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 64,
            "num_labels": 5,
        },
        _image(64),
    ),
    "detr": Network(
        "DetrForObjectDetection",
        "DetrConfig",
        {
            **{name: size for name, size in _SEQUENCE.items() if name.startswith(("d_", "e"))},
            "decoder_layers": 2,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 96,
            "num_queries": 6,
            "num_labels": 5,
        },
        _image(96),
    ),
    "clip": Network(
        "CLIPModel",
        "CLIPConfig",
        {
            "text_config": {**_ENCODER, "bos_token_id": 1, "eos_token_id": 2},
            "vision_config": _PATCHES,
            "projection_dim": 48,
        },
        lambda: {**_tokens(), **_image(32)()},
    ),
    "whisper": Network(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            **_SEQUENCE,
            "num_mel_bins": 20,
            "max_source_positions": 30,
            "max_target_positions": 40,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
            "decoder_start_token_id": 2,
        },
        lambda: {"input_features": _noise(1, 20, 60), "decoder_input_ids": _ids()},
    ),
    "wav2vec2": Network(
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        {
            **{name: size for name, size in _ENCODER.items() if "position" not in name},
            "conv_dim": [32, 32, 32],
            "conv_kernel": [8, 3, 3],
            "conv_stride": [4, 2, 2],
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        lambda: {"input_values": _noise(1, 1024)},
    ),
    "mobilevit": Network(
        "MobileViTForImageClassification",
        "MobileViTConfig",
        {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 96],
        },
        _image(64),
    ),
    "mamba": Network(
        "MambaForCausalLM",
        "MambaConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "state_size": 8,
            "num_hidden_layers": 2,
            "use_cache": False,
        },
    ),
    "mixtral": Network(
        "MixtralForCausalLM",
        "MixtralConfig",
        {
            **_GROUPED,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "experts_implementation": "batched_mm",
        },
    ),
}


def skipped(_: Settings) -> dict[str, str]:
    if importlib.util.find_spec("transformers") is None:
        return dict.fromkeys(NETWORKS, "transformers is not installed")
    return {}


def build(name: str, _: Settings) -> Subject:
    import transformers

    network = NETWORKS[name]
    config = getattr(transformers, network.config)(**network.sizes)
    module = getattr(transformers, network.model)(config).eval()
    return Subject(module, ExampleInputs((), network.inputs()))
