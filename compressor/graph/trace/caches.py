"""Switch off the caches of keys and values that language models return beside their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

SWITCH = "use_cache"
"""The attribute of a configuration of the transformers library that switches its cache."""


def switch_caches_off(module: nn.Module) -> list[str]:
    """Switch the caches off, in place, and return a note if any was on."""
    switched = [config for _, config in configurations_in(module) if _is_on(config)]
    for config in switched:
        setattr(config, SWITCH, False)
    if not switched:
        return []
    return [
        "caches of keys and values are off in what is captured (use_cache=False), since a program "
        "cannot return them; the result's configuration is as it was"
    ]


def restore_caches(module: nn.Module, given: nn.Module) -> None:
    """Switch on the caches of `module`, in place, at the paths where those of `given` are on."""
    on = {path for path, config in configurations_in(given) if _is_on(config)}
    for path, config in configurations_in(module):
        if path in on:
            setattr(config, SWITCH, True)


def _is_on(config: Any) -> bool:
    return getattr(config, SWITCH, None) is True


def configurations_in(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the configurations that layers hold, and those within them, with the layers' paths."""
    for path, layer in module.named_modules():
        config = vars(layer).get("config")
        if config is not None and hasattr(config, "__dict__"):
            yield path, config
            for name, inner in vars(config).items():
                if hasattr(inner, SWITCH):
                    yield f"{path}.{name}", inner
