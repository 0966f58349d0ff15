"""Load `hf:FOLDER`: a model folder of the transformers library, on disk."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from compressor import extras
from compressor.errors import CompressorError, UsageError
from compressor.loading.wording import one_line
from compressor.records import RANDOM, ExampleInputs, LoadedModel, ModelFolder

CONFIG_KEYS = frozenset(("architectures", "model_type", "transformers_version"))
SENTENCE_MODULES = "modules.json"
"""The file of a sentence-transformers folder that says where its transformer lies."""

TOKENS = 16
"""Length of the example text, in tokens."""

FRAMES = 50
"""Length of the example sound, in positions that the network makes of it: a second of speech."""

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
    root, folder = folder, folder / transformer_in(folder)
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
        name=root.resolve().name,
        recognised=f"a transformers folder, {type(module).__name__}",
        weights="loaded" if has_weights else RANDOM,
        examples=_examples(module, config),
        folder=ModelFolder(root, str(folder.relative_to(root))),
    )


def transformer_in(folder: Path) -> str:
    """Return where in a folder the transformer lies: "", or a folder in it.

    The latter is one of sentence-transformers; whatever its file says, the place is within it.
    """
    try:
        told = json.loads((folder / SENTENCE_MODULES).read_text(encoding="utf-8"))
        place = str(told[0]["path"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return place if (folder / place).resolve().parent == folder.resolve() else ""


def _make(kind: Any, config: Any, folder: Path | None) -> nn.Module:
    made: nn.Module
    if folder is not None:
        options = {"config": config, "local_files_only": True, "use_safetensors": True}
        with contextlib.redirect_stderr(io.StringIO()):  # its own bars of progress
            made = kind.from_pretrained(folder, **options)
    else:
        made = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return made


def _examples(module: nn.Module, config: Any) -> ExampleInputs | None:
    """Draw example inputs for the model: those of `_DRAWN` that its forward has parameters for.

    None if it asks for none of them, or the configuration does not tell a size.
    """
    names = inspect.signature(module.forward).parameters
    generator = torch.Generator().manual_seed(0)
    try:
        drawn = {n: draw(config, generator) for n, draw in _DRAWN.items() if n in names}
    except AttributeError:
        return None
    if "input_ids" in drawn and "decoder_input_ids" in drawn:
        drawn["decoder_input_ids"] = drawn["input_ids"].clone()
    return ExampleInputs((), drawn, FROM_CONFIGURATION, has_free_sizes=True) if drawn else None


def _tokens(config: Any, generator: Generator) -> Tensor:
    """Draw the ids of a text, [1, tokens]."""
    text = getattr(config, "text_config", config)
    return torch.randint(0, text.vocab_size, (1, TOKENS), generator=generator)


def _image(config: Any, generator: Generator) -> Tensor:
    """Draw an image, [1, channels, height, width]."""
    seen = getattr(config, "vision_config", config)
    size, channels = getattr(seen, "image_size", 224), getattr(seen, "num_channels", 3)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return torch.randn(1, channels, height, width, generator=generator)


def _spectrum(config: Any, generator: Generator) -> Tensor:
    """Draw a sound as its spectrum, [1, bins, times], as long as the encoder has positions for."""
    times = 2 * config.max_source_positions
    return torch.randn(1, config.num_mel_bins, times, generator=generator)


def _wave(config: Any, generator: Generator) -> Tensor:
    """Draw a sound, [1, times]."""
    return torch.randn(1, FRAMES * config.inputs_to_logits_ratio, generator=generator)


_DRAWN: Mapping[str, Callable[[Any, Generator], Tensor]] = {
    "pixel_values": _image,
    "input_features": _spectrum,
    "input_values": _wave,
    "input_ids": _tokens,
    "decoder_input_ids": _tokens,
}
"""Name of a forward's parameter -> what draws an example for it from a configuration."""
