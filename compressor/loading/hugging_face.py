"""Load `hf:FOLDER`: a model folder of the transformers library, on disk."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor import extras
from compressor.errors import CompressorError, UsageError
from compressor.loading.wording import one_line
from compressor.records import RANDOM, ExampleInputs, LoadedModel

CONFIG_KEYS = frozenset(("architectures", "model_type", "transformers_version"))
TOKENS = 16
"""Length of the example text, in tokens."""

FROM_CONFIGURATION = "the configuration"
"""Origin of example inputs that nobody gave; samples of the data show better what is passed."""


def is_hugging_face(folder: Path) -> bool:
    """Return whether a folder's config.json is that of a transformers model."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and not CONFIG_KEYS.isdisjoint(config)


def load_hugging_face(spec: str, folder: Path) -> LoadedModel:
    """Load the architecture that a folder's config.json names, with its safetensors weights.

    No code of the folder is run, nothing is fetched, and caches of keys and values are switched
    off.

    Raises:
        UsageError: transformers is not installed, or the folder holds no configuration.
        CompressorError: transformers cannot load it.
    """
    transformers = extras.load("transformers", spec)
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} holds no config.json",
            where=spec,
            next_step="give a folder of save_pretrained",
        )
    has_weights = any(folder.glob("*.safetensors"))
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        config.use_cache = False
        kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
        module = _make(kind, config, folder if has_weights else None)
    except Exception as error:
        raise CompressorError(
            f"transformers cannot load {folder}: {one_line(error)}",
            where=spec,
            consequence="there is no model to compress",
            next_step="check the folder with transformers itself; weights must be safetensors",
        ) from error
    return LoadedModel(
        module=module.eval(),
        name=folder.resolve().name,
        recognised=f"a transformers folder, {type(module).__name__}",
        weights="loaded" if has_weights else RANDOM,
        examples=_examples(module, config),
    )


def _make(kind: Any, config: Any, folder: Path | None) -> nn.Module:
    made: nn.Module
    if folder is not None:
        options = {"config": config, "local_files_only": True, "use_safetensors": True}
        made = kind.from_pretrained(folder, **options)
    else:
        made = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return made


def _examples(module: nn.Module, config: Any) -> ExampleInputs | None:
    """Draw example inputs for the model: images (1 x channels x height x width) or token ids.

    The names of the forward's parameters decide; None if it asks for neither.
    """
    names = list(inspect.signature(module.forward).parameters)
    generator = torch.Generator().manual_seed(0)
    if "pixel_values" in names:
        size, channels = getattr(config, "image_size", 224), getattr(config, "num_channels", 3)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        pixels = torch.randn(1, channels, height, width, generator=generator)
        return ExampleInputs((), {"pixel_values": pixels}, FROM_CONFIGURATION, has_free_sizes=True)
    if "input_ids" not in names:
        return None
    ids = torch.randint(0, config.vocab_size, (1, TOKENS), generator=generator)
    inputs = {"input_ids": ids}
    if "decoder_input_ids" in names:
        inputs["decoder_input_ids"] = ids.clone()
    return ExampleInputs((), inputs, FROM_CONFIGURATION, has_free_sizes=True)
