"""Decide which of a sample's inputs the network takes, and where: by name, else by position."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.loading.plain import widen
from compressor.padding import MASK

TARGETS = ("labels", "label", "targets", "target", "y")
"""Names of the target in a sample that is a dict, where the network does not take that name."""

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

Key = str | int | None
"""Where a sample has an input: its name, its position, or None for the sample as a whole."""


@dataclass(frozen=True)
class Forward:
    """What a network's forward can be given, read from its signature.

    Attributes:
        names: Names of the inputs that can be given by position, in order.
        known: Names of all inputs that can be given by name.
        required: Names of the inputs without a default.
        more_positions: Whether it takes further inputs by position (`*args`).
        more_names: Whether it takes further inputs by name (`**kwargs`).
    """

    names: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    more_positions: bool = True
    more_names: bool = True

    @classmethod
    def of(cls, module: nn.Module) -> Forward:
        """Read the signature of the module's forward; one that has none can be given anything."""
        try:
            parameters = inspect.signature(module.forward).parameters.values()
        except (TypeError, ValueError):
            return cls()
        kinds = {p.kind for p in parameters}
        named = [p for p in parameters if p.kind in (*_BY_POSITION, inspect.Parameter.KEYWORD_ONLY)]
        return cls(
            names=tuple(p.name for p in named if p.kind in _BY_POSITION),
            known=frozenset(p.name for p in named),
            required=frozenset(p.name for p in named if p.default is inspect.Parameter.empty),
            more_positions=inspect.Parameter.VAR_POSITIONAL in kinds,
            more_names=inspect.Parameter.VAR_KEYWORD in kinds,
        )


@dataclass(frozen=True)
class Binding:
    """How a sample's inputs become the network's call.

    A sample's inputs are a tensor, a sequence by position, or a dict by name.

    Attributes:
        forward: What the network can be given.
        examples: The call that the network is traced with, which says what is taken; None: all that
            the forward can be given.
        by_name: Without examples, pass positional inputs by the forward's names.
        widens: Give inputs in half or double precision in float32, for a network that is computed
            in it.
        makes_mask: Without examples, give the network a `MASK` where samples have none.
    """

    forward: Forward = field(default_factory=Forward)
    examples: Call | None = None
    by_name: bool = False
    widens: bool = False
    makes_mask: bool = False

    def takes(self, name: str) -> bool:
        """Return whether an input of that name is the network's, and so no target."""
        return name in self.required

    @property
    def required(self) -> frozenset[str]:
        """Return the names of the inputs that a sample has to have; those of a dict too."""
        if self.examples is None:
            return self.forward.required
        slots = list(_slots(self.examples, self.forward))
        within = slots[0][1] if self.takes_a_dict else ()
        return frozenset(name for name, _ in slots if name) | frozenset(map(str, within))

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all inputs that the network can be given."""
        return self.forward.known if self.examples is None else self.required

    @property
    def takes_a_dict(self) -> bool:
        """Return whether the examples are one dict by position."""
        slots = [] if self.examples is None else list(_slots(self.examples, self.forward))
        return len(slots) == 1 and isinstance(slots[0][1], Mapping)

    def is_first(self, name: str) -> bool:
        """Return whether an input of that name is the one that comes first by position."""
        return self.forward.names[:1] == (name,)

    def __call__(self, inputs: Any) -> Call:
        """Make the network's call from a sample's inputs.

        Raises:
            CompressorError: The sample lacks an input that the examples have.
        """
        inputs = self._with_mask(inputs)
        call = self._whole_forward(inputs) if self.examples is None else self._like_examples(inputs)
        return widen(call) if self.widens else call

    def _with_mask(self, inputs: Any) -> Any:
        """Return a sample's named inputs with a mask of ones, where one is wanted and missing."""
        is_wanted = self.makes_mask if self.examples is None else MASK in self.required
        if not is_wanted or not isinstance(inputs, Mapping) or MASK in inputs:
            return inputs
        named = (value for name, value in inputs.items() if name in self.names)
        first = next((x for x in named if getattr(x, "ndim", 0)), None)
        return inputs if first is None else {**inputs, MASK: torch.ones(len(first)).long()}

    def _like_examples(self, inputs: Any) -> Call:
        assert self.examples is not None
        values = []
        for key, (name, example) in self._keys(inputs):
            try:
                values.append(_conform(_at(inputs, key), example))
            except (LookupError, TypeError):
                raise self._lacking(name, inputs) from None
        count = len(self.examples.args)
        named = dict(zip(self.examples.kwargs, values[count:], strict=True))
        return Call(tuple(values[:count]), named, self.forward.names[:count])

    def left_out(self, inputs: Any) -> list[str]:
        """Return the names of what the sample has and the network is not given."""
        if self.examples is None:
            given = self._whole_forward(inputs).kwargs
            return [n for n in inputs if n not in given] if isinstance(inputs, Mapping) else []
        used = [key for key, _ in self._keys(inputs)]
        if None in used:
            return []
        if isinstance(inputs, Mapping):
            return [str(name) for name in inputs if name not in used]
        names = dict(enumerate(self.forward.names))
        unused = [i for i in range(len(_sequence(inputs))) if i not in used]
        return [names.get(i, f"input {i + 1}") for i in unused]

    def _keys(self, inputs: Any) -> Iterator[tuple[Key, tuple[str, Any]]]:
        """Yield where a sample has each input of the examples, with its name and its example."""
        assert self.examples is not None
        slots = list(_slots(self.examples, self.forward))
        is_mapping = isinstance(inputs, Mapping)
        if len(slots) == 1 and _is_whole(inputs, slots[0][1]):
            yield None, slots[0]
            return
        if len(slots) == 1 and len(_sequence(inputs)) == 1:
            yield (next(iter(inputs)) if is_mapping else 0), slots[0]
            return
        for number, (name, example) in enumerate(slots):
            key: Key = name
            if not is_mapping:
                is_named = number >= len(self.examples.args) and name in self.forward.names
                key = self.forward.names.index(name) if is_named else number
            yield key, (name or f"input {number + 1}", example)

    def _whole_forward(self, inputs: Any) -> Call:
        """Make a call of all of the sample that the forward can be given."""
        forward = self.forward
        if isinstance(inputs, Mapping):
            named = {n: inputs[n] for n in forward.names if n in inputs}
            named |= {n: v for n, v in inputs.items() if n in forward.known}
            if named:
                return Call((), named)
            if forward.more_names:  # it names none of them: a forward that hands all on
                return Call((), dict(inputs))
            return Call(tuple(inputs.values()) if len(inputs) == 1 else (inputs,))
        values = tuple(_sequence(inputs))
        if len(values) > len(forward.names) == 1 and not forward.more_positions:
            return Call((list(values),))
        if self.by_name and len(values) <= len(forward.names):
            return Call((), dict(zip(forward.names, values, strict=False)))
        return Call(values, names=forward.names[: len(values)])

    def _lacking(self, name: str, inputs: Any) -> CompressorError:
        by_position = f"{len(_sequence(inputs))} inputs by position"
        has = ", ".join(map(str, inputs)) if isinstance(inputs, Mapping) else by_position
        return CompressorError(
            f"the samples have no {name}, which the example inputs have",
            where=f"a sample has {has}",
            consequence="nothing was done",
            next_step=f"give samples that are dicts with {name} in them, or example inputs "
            "without it",
        )


def _slots(examples: Call, forward: Forward) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of each example input, positional ones first; "" for no name."""
    for number, value in enumerate(examples.args):
        yield (forward.names[number] if number < len(forward.names) else ""), value
    yield from examples.kwargs.items()


def _sequence(inputs: Any) -> Sequence[Any]:
    """Return a sample's inputs one by one; a tensor is one."""
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return inputs if isinstance(inputs, tuple | list) else (inputs,)


def _is_whole(inputs: Any, example: Any) -> bool:
    """Return whether the sample is the network's one input, which is a dict or a list."""
    if isinstance(example, Mapping):
        return isinstance(inputs, Mapping) and set(example) <= set(inputs)
    is_list = isinstance(example, tuple | list) and isinstance(inputs, tuple | list)
    return is_list and len(inputs) == len(example)


def _at(inputs: Any, key: Key) -> Any:
    if key is None:
        return inputs
    return inputs[key] if isinstance(inputs, Mapping) else _sequence(inputs)[int(key)]


def _conform(value: Any, example: Any) -> Any:
    """Return a value in containers like the example's.

    It is a list where the example has one, and a dict with the example's keys in its order.
    Tensors get the example's type of numbers, unless that would cut real numbers to integers.

    Raises:
        LookupError: A key of the example is missing.
        TypeError: It has another number of parts, or another structure.
    """
    if isinstance(example, Mapping):
        return {name: _conform(value[name], part) for name, part in example.items()}
    if isinstance(example, tuple | list):
        if not isinstance(value, tuple | list) or len(value) != len(example):
            raise TypeError
        parts = [_conform(v, part) for v, part in zip(value, example, strict=True)]
        return type(example)(*parts) if hasattr(example, "_fields") else type(example)(parts)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and value.ndim:
        value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    if isinstance(value, Tensor) and isinstance(example, Tensor):
        return value if _would_cut(value, example) else value.to(example.dtype)
    return value


def _would_cut(value: Tensor, example: Tensor) -> bool:
    kinds = [(t.is_complex(), t.is_floating_point()) for t in (value, example)]
    return kinds[0] > kinds[1]
