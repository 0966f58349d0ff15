"""Compare a state dict with a network by names and shapes, without wrappers' prefixes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from torch import Tensor, nn

from compressor.loading.checkpoints import StateDict
from compressor.loading.wording import cut_list

COMPILED_PREFIX = "_orig_mod."
BATCH_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Fit:
    """How a state dict fits a network under one prefix.

    Attributes:
        prefix: What was taken off the names, e.g. "module.".
        state: The tensors under the names that remain.
        beside: Names without the prefix: they belong to other networks, or to none.
        ignored: Surplus tensors that the user does without.
        unexpected: Other names that the network does not have.
        missing: Names that only the network has.
        misshaped: Tensors of another shape, in words.
        mistyped: Floating tensors in place of integers or the other way round, in words.
        matched: How many of the network's names are found.
    """

    prefix: str
    state: StateDict = field(repr=False)
    beside: tuple[str, ...]
    ignored: tuple[str, ...]
    unexpected: tuple[str, ...]
    missing: tuple[str, ...]
    misshaped: tuple[str, ...]
    mistyped: tuple[str, ...]
    matched: int

    @property
    def is_whole(self) -> bool:
        """Return whether the network gets every tensor that it has, in the right shape and kind."""
        return not (self.missing or self.misshaped or self.mistyped)

    @property
    def problems(self) -> str:
        """Return what does not fit, in words; "" if everything fits."""
        lists = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "mis-shaped": self.misshaped,
            "of another kind": self.mistyped,
        }
        told = [
            f"{len(names)} {kind} ({cut_list(names)})" for kind, names in lists.items() if names
        ]
        return "; ".join(told)


def fits_of(given: StateDict, module: nn.Module, ignore: tuple[str, ...] = ()) -> Iterator[Fit]:
    """Compare a state dict with the network's own under every likely prefix.

    One `Fit` is yielded for each prefix under which most of the network's names are found, and at
    least one.

    Args:
        given: Tensors by name, as a checkpoint has them.
        module: The network; it is not changed.
        ignore: Globs of names that may be surplus.
    """
    own = module.state_dict()
    expected = {name: value for name, value in own.items() if isinstance(value, Tensor)}
    if not any(COMPILED_PREFIX in name for name in expected):
        given = {name.replace(COMPILED_PREFIX, ""): value for name, value in given.items()}
    counts = _prefixes(given, expected)
    best = max(counts.values(), default=0)
    prefixes = [prefix for prefix, count in counts.items() if count == best or count > len(own) / 2]
    for prefix in prefixes or [""]:
        yield _fit(given, expected, prefix, ignore)


def _prefixes(given: StateDict, expected: Mapping[str, Tensor]) -> Counter[str]:
    """Count per prefix the network's names that are found behind it, shortest prefix first."""
    counts: Counter[str] = Counter()
    for name in given:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in expected:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return Counter(dict(sorted(counts.items(), key=lambda item: len(item[0]))))


def _fit(
    given: StateDict, expected: Mapping[str, Tensor], prefix: str, ignore: tuple[str, ...]
) -> Fit:
    state = {
        name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)
    }
    surplus = [name for name in state if name not in expected]
    ignored = [
        name
        for name in surplus
        if any(fnmatch(name, glob) or fnmatch(prefix + name, glob) for glob in ignore)
    ]
    shared = [name for name in expected if name in state]
    covered = {_place(expected[name]) for name in shared}
    missing = [
        name
        for name, tensor in expected.items()
        if name not in state and not name.endswith(BATCH_COUNTER) and _place(tensor) not in covered
    ]
    return Fit(
        prefix,
        {name: value for name, value in state.items() if name not in ignored},
        beside=tuple(name for name in given if not name.startswith(prefix)),
        ignored=tuple(ignored),
        unexpected=tuple(name for name in surplus if name not in ignored),
        missing=tuple(missing),
        misshaped=tuple(
            f"{name}: {_shape(state[name])} in the file, {_shape(expected[name])} in the model"
            for name in shared
            if state[name].shape != expected[name].shape
        ),
        mistyped=tuple(
            f"{name}: {state[name].dtype} in the file, {expected[name].dtype} in the model"
            for name in shared
            if state[name].is_floating_point() != expected[name].is_floating_point()
        ),
        matched=len(shared),
    )


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Return a tensor's place in memory, which is equal for tied tensors.

    safetensors keeps only one of tied tensors, so the others are not missing.
    """
    if tensor.device.type == "meta":
        return (id(tensor),)
    storage = tensor.untyped_storage().data_ptr()
    return (storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
