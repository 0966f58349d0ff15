"""Inputs of networks: drawn at random, and given under a file's own names."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from compressor.errors import CompressorError

Feeds = Mapping[str, np.ndarray[Any, Any]]
"""Inputs by name."""


def draw_inputs(session: Any, batch: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Draw random data for all inputs of a session, by name, with `batch` for symbolic sizes.

    Where the file says which sizes it was made with (`SIZES`), these stand for all but the first.

    Raises:
        CompressorError: An input is of a type that cannot be drawn.
    """
    rng = np.random.default_rng(seed)
    usual = usual_sizes(session.get_modelmeta().custom_metadata_map)
    return {
        spec.name: draw_input(spec, batch, rng, usual.get(spec.name, ()))
        for spec in session.get_inputs()
    }


SIZES = "compress.sizes"
"""Name under which a file says the sizes of the inputs that it was compressed with."""


def usual_sizes(said: Mapping[str, str]) -> dict[str, list[int]]:
    """Return the sizes of inputs, by name, that a file says it was compressed with, if any."""
    try:
        found = json.loads(said.get(SIZES, "{}"))
        return {str(name): [int(size) for size in sizes] for name, sizes in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def fill_sizes(sizes: Sequence[Any], batch: int, usual: Sequence[int] = ()) -> list[int]:
    """Return sizes with `batch` in place of symbolic ones, or with the usual ones after the
    first."""
    own = [size if isinstance(size, int) and size > 0 else 0 for size in sizes]
    known = usual if len(usual) == len(own) else [0] * len(own)
    return [size or (known[i] if i else 0) or batch for i, size in enumerate(own)]


def draw_input(
    spec: Any, batch: int, rng: np.random.Generator, usual: Sequence[int] = ()
) -> np.ndarray[Any, Any]:
    """Draw random data for an ONNX input, with `batch` or usual sizes in place of symbolic ones.

    Integers are ones: the only index that is nearly always valid and not zero.

    Raises:
        CompressorError: The input is of another type.
    """
    kind = _FLOATS.get(spec.type) or _INTEGERS.get(spec.type)
    if kind is None:
        raise CompressorError(
            f"no random data for the input {spec.name!r} of type {spec.type}",
            next_step="give inputs of your own: such a type cannot be drawn",
        )
    return draw_array(fill_sizes(spec.shape, batch, usual), kind, rng)


def draw_array(shape: Sequence[int], kind: Any, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Draw random numbers of a type of NumPy's; integers are ones."""
    if np.issubdtype(kind, np.floating):
        return rng.standard_normal(shape).astype(kind)
    return np.ones(shape, kind)


_FLOATS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_INTEGERS: dict[str, Any] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def words_of(names: Iterable[str]) -> list[str]:
    """Return the names of a file's inputs as words of Python's, all different, in their order."""
    found: list[str] = []
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII) or "unnamed"
        if not word.isidentifier() or keyword.iskeyword(word) or word == "self":
            word = f"_{word}"
        free, count = word, 1
        while free in found:
            count += 1
            free = f"{word}_{count}"
        found.append(free)
    return found


def feeds_for(session: Any, given: Mapping[str, np.ndarray[Any, Any]]) -> Feeds:
    """Return inputs under the session's names and in its types of floats.

    Args:
        session: The session.
        given: Inputs by the session's names, or by these as words of Python's; others are left
            out.
    """
    specs = session.get_inputs()
    words = words_of(spec.name for spec in specs)
    found = {}
    for spec, word in zip(specs, words, strict=True):
        name = spec.name if spec.name in given else word
        if name in given:
            array = given[name]
            is_float = array.dtype.kind == "f" and spec.type in _FLOATS
            found[spec.name] = array.astype(_FLOATS[spec.type], copy=False) if is_float else array
    return found


def feeds_by_position(session: Any, given: Sequence[np.ndarray[Any, Any]]) -> Feeds:
    """Return inputs, given in the session's order, under its names and in its types of floats."""
    names = [spec.name for spec in session.get_inputs()]
    return feeds_for(session, dict(zip(names, given, strict=True)))
