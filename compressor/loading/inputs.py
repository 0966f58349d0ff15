"""Parse example inputs as people write them: on the command line, or as Python objects."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.loading.wording import did_you_mean
from compressor.records import ExampleInputs

SPEC = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)"
    r"(?::(?P<dtype>[A-Za-z]\w*))?(?:<(?P<bound>\d+))?"
)
EXAMPLE_SPECS = "1x3x224x224, or for token ids: input_ids=1x128:int64<30522"
LARGEST_ELEMENTS = 2**31

FLOATS = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
INTEGERS = {
    name: getattr(torch, name) for name in ("int64", "int32", "int16", "int8", "uint8", "bool")
}
# 0 and 1 are in range of anything that an integer may index
DEFAULT_BOUND = 2


def parse_inputs(specs: Sequence[str], seed: int = 0) -> ExampleInputs:
    """Draw example inputs from specs like `[name=]1x3x224x224[:int64<512]`.

    Floating inputs are drawn from the standard normal distribution, integers uniformly below the
    bound (2 if none is given). The same seed draws the same values.

    Raises:
        UsageError: A spec cannot be read, or two have the same name.
    """
    generator = torch.Generator().manual_seed(seed)
    positionals: list[Tensor] = []
    keywords: dict[str, Tensor] = {}
    for spec in specs:
        match = SPEC.fullmatch(spec.strip())
        if match is None:
            raise _unreadable(spec, "it is not [name=]shape[:dtype][<bound]")
        tensor = _draw(spec, match, generator)
        name = match["name"]
        if name in keywords:
            raise _unreadable(spec, f"the input {name} is given twice")
        if name:
            keywords[name] = tensor
        else:
            positionals.append(tensor)
    return ExampleInputs(tuple(positionals), keywords, "--input")


def normalise_examples(example_inputs: Any) -> ExampleInputs:
    """Return example inputs of the Python API as positional and keyword arguments.

    Args:
        example_inputs: A tensor, a tuple of positionals, a dict of keywords, or a pair
            (tuple, dict).

    Raises:
        UsageError: It is none of these.
    """
    match example_inputs:
        case ExampleInputs():
            return example_inputs
        case Tensor():
            return ExampleInputs((example_inputs,))
        case (tuple() as args, dict() as kwargs) if _are_names(kwargs):
            return ExampleInputs(args, kwargs)
        case tuple() if example_inputs:
            return ExampleInputs(example_inputs)
        case Mapping() if example_inputs and _are_names(example_inputs):
            return ExampleInputs((), dict(example_inputs))
    raise UsageError(
        f"example inputs of type {type(example_inputs).__name__} cannot be used",
        where="example_inputs",
        next_step="give a tensor, a tuple of positionals, a dict of keywords, "
        "or a pair (tuple, dict)",
    )


def _draw(spec: str, match: re.Match[str], generator: torch.Generator) -> Tensor:
    shape = [int(size) for size in match["shape"].split("x")]
    if 0 in shape or math.prod(shape) > LARGEST_ELEMENTS:
        raise _unreadable(spec, "its sizes must be at least 1, and fit into memory")
    name, bound = match["dtype"] or "float32", match["bound"]
    if name in FLOATS:
        if bound is not None:
            raise _unreadable(spec, "a bound is for integers, such as :int64<512")
        return torch.randn(shape, generator=generator).to(FLOATS[name])
    if name not in INTEGERS:
        known = [*FLOATS, *INTEGERS]
        raise _unreadable(spec, f"there is no dtype {name}.{did_you_mean(name, known)}")
    dtype = INTEGERS[name]
    largest = 2 if dtype is torch.bool else torch.iinfo(dtype).max
    below = DEFAULT_BOUND if bound is None else int(bound)
    if not 1 <= below <= largest:
        raise _unreadable(spec, f"the bound of {name} must be between 1 and {largest}")
    return torch.randint(below, shape, generator=generator).to(dtype)


def _are_names(mapping: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in mapping)


def _unreadable(spec: str, why: str) -> UsageError:
    return UsageError(
        f"--input {spec} cannot be read: {why}",
        where="--input",
        next_step=f"write it as {EXAMPLE_SPECS}",
    )
