"""Records of a model as it is given: its module, its weights, the inputs that it accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

RANDOM = "random weights"
AS_MADE = "as the factory made them"
"""Origin of the weights of a factory that is not a library's own: it may draw or load them."""


@dataclass(frozen=True)
class ExampleInputs:
    """Inputs that the model accepts: `model(*args, **kwargs)`.

    Attributes:
        args: Positional inputs.
        kwargs: Inputs by name.
        origin: Where they come from, in words that are printed ("--input", "a guess").
        has_free_sizes: Whether sizes were made up that the model leaves open: samples, where there
            are some, say them.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "given"
    has_free_sizes: bool = False


@dataclass(frozen=True)
class ModelFolder:
    """The transformers folder that a model was loaded from.

    Attributes:
        root: The folder that was given.
        transformer: Where in it config.json and the weights lie: "." or, in a folder of
            sentence-transformers, the name of a folder.
    """

    root: Path
    transformer: str = "."

    @property
    def home(self) -> Path:
        """Return the folder that holds config.json and the weights."""
        return self.root / self.transformer


@dataclass(frozen=True)
class LoadedModel:
    """A model as it is loaded from a MODEL.

    Attributes:
        module: The network that is worked on: it computes in float32 by weights that are plain
            parameters.
        name: A short name.
        recognised: What the file or spec was taken for, in words.
        weights: "loaded", "pretrained", "given", `RANDOM` or `AS_MADE`.
        sha256: Hash of the weights' file, or of the tensors where none was read.
        examples: The example inputs that came with the model, if any.
        given: The network as it came.
        types: Original types of the tensors that were converted, by name.
        stored: Types in which a file held tensors, by name, where they differ.
        notes: What the user should know of how it was loaded.
        computed: How weights were computed from others (`compressor.loading.plain.Computed`).
        folder: The transformers folder that it comes from, if it does.
        is_held: Whether others may hold the module (it was given, or code of the user's made it),
            so that no copy may share its weights.
    """

    module: nn.Module
    name: str
    recognised: str
    weights: str
    sha256: str | None = None
    examples: ExampleInputs | None = None
    given: nn.Module | None = None
    types: Mapping[str, torch.dtype] = field(default_factory=dict)
    stored: Mapping[str, torch.dtype] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    computed: tuple[Any, ...] = ()
    folder: ModelFolder | None = None
    is_held: bool = False
