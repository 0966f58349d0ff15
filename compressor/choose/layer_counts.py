"""Find which lists of layers a configuration counts, and say of them that layers are gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from compressor.loading.configurations import Configurations, Edits, Knob, Place


@dataclass(frozen=True)
class Count:
    """A list of layers whose length a configuration says.

    Attributes:
        container: The path of the list in the class.
        knob: The number of its layers.
        lists: Lists of the configuration with an entry for each layer.
    """

    container: str
    knob: Knob
    lists: Mapping[Place, tuple[Any, ...]]

    def without(self, gone: Collection[int]) -> dict[Place, Any]:
        """Return what the configuration says where the layers at some places are gone."""
        assert self.knob.value is not None
        shorter = {
            path: [each for place, each in enumerate(entries) if place not in gone]
            for path, entries in self.lists.items()
        }
        return {self.knob.path: int(self.knob.value) - len(gone), **shorter}


def find_counts(configurations: Configurations, pins: Edits) -> tuple[Count, ...]:
    """Find the lists of layers that lose their last one when a number becomes smaller by one.

    Args:
        configurations: Builds the class.
        pins: What the configuration says in any case.
    """
    base = configurations.build(pins)
    counts: dict[str, Count] = {}
    for knob in configurations.knobs if base is not None else ():
        if not isinstance(knob.value, int) or knob.value < 2:
            continue
        count = Count("", knob, configurations.lists_of(knob.value, knob.path[:-1]))
        fewer = configurations.build({**pins, **count.without({knob.value - 1})})
        if base is None or fewer is None or not fewer.shapes.keys() < base.shapes.keys():
            continue
        gone = base.shapes.keys() - fewer.shapes.keys()
        item = _common_item(gone, knob.value - 1)
        if item and gone == {name for name in base.shapes if name.startswith(f"{item}.")}:
            container = item.rpartition(".")[0]
            counts.setdefault(container, Count(container, knob, count.lists))
    return tuple(counts.values())


def _common_item(names: Collection[str], last: int) -> str:
    """Return the path of the item of a list, at its last place, that all tensors lie in, or ""."""
    paths = [name.split(".") for name in names]
    for length in range(1, min(map(len, paths))):
        heads = {tuple(path[:length]) for path in paths}
        if len(heads) == 1 and paths[0][length - 1] == str(last):
            return ".".join(heads.pop())
    return ""
