"""Tell which of some arrays are the network's inputs, and which is the target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from compressor.errors import CompressorError, UsageError
from compressor.loading.data.binding import TARGETS, Binding

IMAGES = "images"
"""The name under which uint8 arrays are images, [N, H, W, C] or [N, H, W]."""

INPUTS = ("inputs", "input", IMAGES, "x")
"""Names of the one input of an archive, where the network does not take its arrays by name."""


@dataclass(frozen=True)
class Roles:
    """The names of the arrays that make a sample.

    Attributes:
        inputs: Of the inputs.
        target: Of the target, or None.
        by_name: Whether the network is given its inputs by these names.
    """

    inputs: tuple[str, ...]
    target: str | None
    by_name: bool


def name_of_file(stem: str, binding: Binding) -> str:
    """Return the name of a file's only array: train_input_ids.npy holds input_ids, y_1.npy y.

    The network's names come first; a file that bears no name holds the inputs.
    """
    plain = f"_{'_'.join(_WORD.findall(stem.lower()))}_"
    names = (*sorted(binding.names, key=len, reverse=True), *TARGETS, IMAGES)
    within = (name for name in names if f"_{'_'.join(_WORD.findall(name.lower()))}_" in plain)
    return next(within, INPUTS[0])


_WORD = re.compile(r"[^\W_\d]+")


def tell_roles(problems: Mapping[str, str], binding: Binding, where: str) -> Roles:
    """Choose the inputs and the target among arrays, by their names.

    Args:
        problems: The arrays' names, with what keeps one from holding samples ("" for nothing).
        binding: Says what the network takes.
        where: The place for messages.

    Raises:
        UsageError: None is meant for the network, or an input is missing.
        CompressorError: What is meant for it holds no numbers.
    """
    target = next((n for n in TARGETS if n in problems and not binding.takes(n)), None)
    rest = [name for name in problems if name not in TARGETS or binding.takes(name)]
    named = [name for name in rest if name in binding.names]
    usable = [name for name in rest if not problems[name]]
    only = next((n for n in INPUTS if n in rest), rest[0] if len(rest) == 1 else None)
    if only is None and len(usable) == 1:
        only = usable[0]
    if named:
        _refuse_incomplete(named, problems, binding, where)
        roles = Roles(tuple(named), target, len(named) > 1 or not binding.is_first(named[0]))
    elif only is not None:
        _refuse_incomplete([only], problems, binding, where)
        roles = Roles((only,), target, by_name=False)
    elif usable and (binding.takes_a_dict or not binding.names):
        roles = Roles(tuple(usable), target, by_name=True)
    else:
        names = ", ".join(sorted(binding.names)) or INPUTS[0]
        raise UsageError(
            f"no array is an input of the network: it holds {', '.join(problems) or 'nothing'}",
            where=where,
            next_step=f"name the arrays as the network names its inputs ({names}), or "
            f"{INPUTS[0]} where there is one",
        )
    for name in (*roles.inputs, *([target] if target else [])):
        if problems[name]:
            raise CompressorError(
                f"the array {name} {problems[name]}",
                where=where,
                next_step="write arrays of numbers, [samples, ...], padded to one length",
            )
    return roles


def _refuse_incomplete(
    inputs: list[str], problems: Mapping[str, str], binding: Binding, where: str
) -> None:
    missing = sorted(binding.required - {*inputs})
    if len(binding.required) > 1 and missing:
        raise UsageError(
            f"the network takes {', '.join(missing)}, and there is no array of that name",
            where=f"{where} has {', '.join(problems)}",
            next_step="write an array for each input, named as the network names it",
        )
