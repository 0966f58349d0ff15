"""Hold what the transformers folder of a result is written from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compressor import extras
from compressor.loading.configurations import Edits, Knob, read_raw
from compressor.loading.hugging_face import transformer_in
from compressor.loading.plain import types_named
from compressor.records import Plan


@dataclass(frozen=True)
class Change:
    """A number of the configuration that is another one in the result."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class FolderSource:
    """What the transformers folder of a result is written from.

    Attributes:
        kind: The class of the network.
        root: The folder that was given.
        transformer: Where in it the transformer lies, as in `ModelFolder`.
        config: The new content of config.json.
        changes: What is new in it.
        types: Name of a tensor -> its type, where that is not float32.
        computed: How weights were computed from others, which they are again in the folder.
        cuts: Name of a tensor -> dimension -> kept indices, which that takes.
        aliases: Name of a tied tensor -> name under which it is stored.
        leaving: Paths of the items of lists of layers that are gone.
    """

    kind: Any
    root: Path
    transformer: str
    config: Mapping[str, Any]
    changes: tuple[Change, ...] = ()
    types: Mapping[str, torch.dtype] = field(default_factory=dict)
    computed: tuple[Any, ...] = ()
    cuts: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    leaving: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        """Return the folder of the original's config.json and weights."""
        return self.root / self.transformer


def changes_of(knobs: Iterable[Knob], edits: Edits) -> tuple[Change, ...]:
    """Return what edits change of a configuration's numbers."""
    each = ((knob, edits[knob.path]) for knob in dict.fromkeys(knobs) if knob.path in edits)
    return tuple(Change(k.name, k.value, new) for k, new in each if new != k.value)


def source_in(root: Path, plan: Plan) -> FolderSource:
    """Return what a result's transformers folder is written from anew, for other weights.

    Args:
        root: That folder.
        plan: The result's.

    Raises:
        UsageError: transformers is not installed.
    """
    place = transformer_in(root)
    config, removal = read_raw(root / place), plan.removal
    return FolderSource(
        kind=getattr(extras.load("transformers", str(root)), config["architectures"][0]),
        root=root,
        transformer=place,
        config=config,
        types=types_named(plan.types),
        aliases=plan.aliases,
        leaving=removal.leaving if removal is not None else (),
    )
