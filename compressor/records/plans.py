"""The record of what is kept of a network, and its JSON."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from compressor.records.traces import Removal

PLAN_SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """What is kept of a network, complete enough to be replayed without tracing.

    Attributes:
        source: Hash of the original's tensor names and shapes.
        groups: Per group its size, role and the kept indices, ascending; `exact` as in `Group`.
        tensors: Per parameter, buffer or constant the kept indices per sliced dimension.
        aliases: Name of a tied tensor -> name under which it is stored.
        attributes: Per module path the attributes that change with the sizes.
        stand_ins: Modules that run their traced operators, since their code could not follow:
            per path how its call meets them.
        form: "class" if the user's class follows, else "program".
        obstacle: For "program": the module that could not follow, and why.
        silenced: Per tensor the sliced dimensions at which zeros stand for dropping; None in plans
            of earlier versions, which did not say.
        frozen: The parameters that do not learn; None in plans that do not say, where the factory
            decides.
        types: Per tensor its type, where the network came in another than float32.
        parametrised: Whether weights are computed in the result as they were in the network.
        removal: The blocks that are gone; None where all stay.
    """

    source: str
    groups: Mapping[str, Mapping[str, Any]]
    tensors: Mapping[str, Mapping[int, tuple[int, ...]]]
    aliases: Mapping[str, str]
    attributes: Mapping[str, Mapping[str, Any]]
    form: str
    obstacle: str = ""
    stand_ins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    silenced: Mapping[str, tuple[int, ...]] | None = None
    frozen: tuple[str, ...] | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    parametrised: bool = False
    removal: Removal | None = None

    @property
    def kept(self) -> dict[str, int]:
        """Group name -> how many of its channels stay."""
        return {name: len(group["keep"]) for name, group in self.groups.items()}

    def to_json(self) -> str:
        """Return the plan as JSON text, which is the same for the same plan, byte for byte."""
        said = {"schema": PLAN_SCHEMA, **vars(self)}  # a copy of a million indices takes its time
        gone = said.pop("removal")
        if gone is not None:
            said["removal"] = asdict(gone)
        return json.dumps(said, indent=1, sort_keys=True, default=to_number) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan from the text of `to_json`.

        Raises:
            ValueError, KeyError: The text is anything else.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.pop("schema", None) != PLAN_SCHEMA:
            raise ValueError(f"not a plan of schema {PLAN_SCHEMA}")
        raw["tensors"] = {
            name: {int(dim): tuple(kept) for dim, kept in dims.items()}
            for name, dims in raw["tensors"].items()
        }
        if raw.get("silenced") is not None:
            raw["silenced"] = {name: tuple(dims) for name, dims in raw["silenced"].items()}
        if raw.get("frozen") is not None:
            raw["frozen"] = tuple(raw["frozen"])
        if "removal" in raw:
            gone = raw["removal"]
            names = tuple(gone["blocks"]), tuple(gone["tensors"])
            raw["removal"] = Removal(
                *(*names, gone["passing"], gone.get("muted", {})), tuple(gone.get("leaving", ()))
            )
        return cls(**raw)


def to_number(value: Any) -> int | float:
    """Convert another library's number (numpy's or sympy's) to Python's, for JSON.

    Raises:
        TypeError: It is no number.
    """
    try:
        return operator.index(value)  # a traced size may be a number of sympy's
    except TypeError:
        return float(value)
