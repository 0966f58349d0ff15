"""Build a transformers class, without values, from changes of its configuration."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor import extras

WHAT = "transformers folders"

Place = tuple[str | int, ...]
Edits = Mapping[Place, Any]
"""Places in a configuration -> what stands there instead."""


UNLISTED = ("head_dim",)
"""Numbers that classes read although their configuration need not have them."""


@dataclass(frozen=True)
class Knob:
    """A number of a configuration.

    Attributes:
        path: Names of attributes and places in lists that lead to it.
        value: What it is; None where it is left open.
    """

    path: Place
    value: float | None

    @property
    def name(self) -> str:
        """Return the path as one reads it: "text_config.hidden_sizes[1]"."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return text.removeprefix(".")


@dataclass(frozen=True)
class Built:
    """What a class is, built from a configuration.

    Attributes:
        shapes: Shapes of the tensors in its state dict.
        numbers: The path of a module of the class's own and the name of an attribute -> a number.
    """

    shapes: Mapping[str, tuple[int, ...]]
    numbers: Mapping[tuple[str, str], float]


class Configurations:
    """Builds a model's class from changes of the configuration that its folder holds."""

    def __init__(self, module: nn.Module, home: Path) -> None:
        """Take the model, and the folder with its config.json."""
        self._class: Any = type(module)
        self._config: Any = type(module.config)
        self._raw: dict[str, Any] = read_raw(home)
        self._all: dict[str, Any] = module.config.to_dict()  # type: ignore[operator, union-attr]
        self._built: dict[str, Built | None] = {}

    @property
    def name(self) -> str:
        """Return the name of the configuration's class."""
        return str(self._config.__name__)

    @cached_property
    def knobs(self) -> tuple[Knob, ...]:
        """Return the numbers of the configuration, and of those within it, that may be sizes.

        What all configurations have says nothing of sizes.
        """
        transformers = extras.load("transformers", WHAT)
        other_names = getattr(self._config, "attribute_map", {})
        general = frozenset((*transformers.PreTrainedConfig().to_dict(), *other_names))
        return tuple(_numbers_in(self._all, general))

    def is_said(self, knob: Knob) -> bool:
        """Return whether the folder's file holds a number, which else is computed or a default."""
        return _look_up(self._raw, knob.path) is not None

    def lists_of(self, count: int, within: Place) -> dict[Place, tuple[Any, ...]]:
        """Return the lists of the folder's file that have an entry for each of so many layers.

        Args:
            count: The number of layers.
            within: Where in the configuration they are looked for.
        """
        config = _look_up(self._raw, within)
        named = config.items() if isinstance(config, Mapping) else ()
        return {
            (*within, name): tuple(value)
            for name, value in named
            if "layer" in name and isinstance(value, list) and len(value) == count
        }

    def edited(self, edits: Edits) -> dict[str, Any]:
        """Return the content of config.json with changes."""
        raw = copy.deepcopy(self._raw)
        for path, value in edits.items():
            _put(raw, self._all, path, value)
        return raw

    def build(self, edits: Edits) -> Built | None:
        """Build the class without values; None where it refuses such a configuration."""
        key = repr(sorted(edits.items(), key=repr))
        if key not in self._built:
            self._built[key] = self._try(edits)
        return self._built[key]

    def _try(self, edits: Edits) -> Built | None:
        try:
            module = build_without_values(self._class, self._config.from_dict(self.edited(edits)))
        except Exception:  # whatever the class's code raises at sizes that do not go together
            return None
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        return Built(shapes, dict(_numbers_of(module)))


def build_without_values(kind: Any, config: Any) -> Any:
    """Build a class of transformers from its configuration, with tensors that hold nothing yet."""
    extras.load("transformers", WHAT)
    initialization = import_module("transformers.initialization")
    with torch.device("meta"), initialization.no_init_weights():
        return kind(config)


def read_raw(home: Path) -> dict[str, Any]:
    """Return the content of a folder's config.json."""
    raw: dict[str, Any] = json.loads((home / "config.json").read_text(encoding="utf-8"))
    return raw


def _numbers_in(config: Mapping[str, Any], general: frozenset[str]) -> Iterator[Knob]:
    is_configuration = "model_type" in config
    for name, value in {**dict.fromkeys(UNLISTED if is_configuration else ()), **config}.items():
        if name in general:
            continue
        if isinstance(value, Mapping):
            for knob in _numbers_in(value, general):
                yield Knob((name, *knob.path), knob.value)
        for place, each in enumerate(value) if isinstance(value, list | tuple) else ():
            if _is_size(each):
                yield Knob((name, place), each)
        if value is None or _is_size(value):
            yield Knob((name,), value)


def _is_size(value: Any) -> bool:
    """Return whether a value may be a number of channels, or times as many as something has."""
    return type(value) in (int, float) and value >= 1


def _numbers_of(module: nn.Module) -> Iterator[tuple[tuple[str, str], float]]:
    for path, layer in module.named_modules():
        if not type(layer).__module__.startswith("torch."):
            for name, value in vars(layer).items():
                if type(value) in (int, float):
                    yield (path, name), value


def _look_up(config: Any, path: Place) -> Any:
    for part in path:
        try:
            config = config[part]
        except (LookupError, TypeError):
            return None
    return config


def _put(raw: Any, complete: Any, path: Place, value: Any) -> None:
    """Put a value into nested lists and dicts, in place.

    Lists that are missing are copied from what is complete.
    """
    first, *rest = path
    if not rest:
        raw[first] = value
        return
    if isinstance(first, str) and raw.get(first) is None:
        whole = complete[first]
        raw[first] = list(whole) if isinstance(whole, list | tuple) else {}
    _put(raw[first], complete[first], tuple(rest), value)
