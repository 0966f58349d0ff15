"""Compare the outputs of two forms of a network, and find where they differ most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.agreement.scales import scales, smallest
from compressor.agreement.thinning import thin
from compressor.agreement.tolerances import FLOAT32, Tolerance

Outputs = Sequence[Any]
"""What a network returns for one input: tensors or NumPy arrays."""

Cases = Sequence[Outputs]
"""Outputs for several inputs."""

SAFETY = 4.0
"""A difference of up to this many times what rounding changes is accepted as rounding."""

LOUD = 0.01
"""Rounding that moves outputs by more than this share of their scale could hide an error of 1 %."""


@dataclass(frozen=True)
class Difference:
    """The largest difference between two forms of a network.

    Attributes:
        size: Relative to what varies at that place; infinite where the two cannot be compared.
        place: Output, index and both values, in words; "" where the forms agree exactly.
    """

    size: float = 0.0
    place: str = ""


def difference(
    reference: Cases,
    others: Cases,
    tolerance: Tolerance = FLOAT32,
    rounding: Callable[[], Sequence[Cases]] | None = None,
) -> Difference:
    """Compare two forms of a network, element by element, and return where they differ most.

    An element's difference is divided by its scale (`scales`), or by a share of its own size where
    that is larger, since no type of floating point resolves less. Infinities and NaN must stand in
    the same places. Integers and booleans must be equal, else the difference is infinite.

    Args:
        reference: What one form computes for each input.
        others: What the other form computes for the same inputs.
        tolerance: The tolerance of the type that the less exact form computes in.
        rounding: Returns the reference's outputs after changes as small as rounding (`shaken`). It
            is called only where the forms differ by more than is accepted. What it moves is
            accepted SAFETY times over; integers may differ in as many places as change there. Where
            rounding moves every output by more than LOUD, no difference is accepted as rounding.
    """
    reference, others = _thin(reference), _thin(others)
    worst = _difference(reference, others, tolerance, ())
    if worst.size <= tolerance.relative or rounding is None or not _same_shapes(reference, others):
        return worst
    shaken = rounding()
    if is_loud(reference, shaken):
        return worst
    return _difference(reference, others, tolerance, shaken)


def _difference(
    reference: Cases, others: Cases, tolerance: Tolerance, shaken: Sequence[Cases]
) -> Difference:
    if not _same_shapes(reference, others):
        shapes = [[[tuple(x.shape) for x in case] for case in form] for form in (reference, others)]
        return Difference(torch.inf, f"outputs of shapes {shapes[0]} against {shapes[1]}")
    worst = Difference()
    draws = [list(_by_output(cases)) for cases in shaken]
    pairs = zip(_by_output(reference), _by_output(others), strict=True)
    for number, (a, b) in enumerate(pairs):
        compare = _of_numbers if a[0].is_floating_point() else _of_integers
        if not all(torch.equal(x, y) for x, y in zip(a, b, strict=True)):
            of_output = compare(number, a, b, tolerance, [draw[number] for draw in draws])
            worst = max(worst, of_output, key=lambda each: each.size)
    return worst


def _of_numbers(
    number: int,
    a: list[Tensor],
    b: list[Tensor],
    tolerance: Tolerance,
    draws: Sequence[list[Tensor]],
) -> Difference:
    noise, jumps = _noise(a, draws)
    absolute = tolerance.smallest + (tolerance.of_one if is_between_0_and_1(a) else 0.0)
    worst = Difference()
    for x, y, scale, accepted, jumped in zip(a, b, scales(a), noise, jumps, strict=True):
        same = (x == y) | (x.isnan() & y.isnan()) | jumped
        finite = x.isfinite() & y.isfinite()
        excess = ((x - y).abs() - accepted - absolute).clamp(min=0)
        size = excess / torch.maximum(scale, tolerance.own_share * x.abs())
        size = torch.where(excess == 0, 0.0, size).masked_fill(~finite, torch.inf)
        size = size.masked_fill(same, 0.0)
        if x.numel() and float(size.max()) > worst.size:
            worst = Difference(float(size.max()), _words(number, size.argmax(), x, y))
    return worst


def _of_integers(
    number: int, a: list[Tensor], b: list[Tensor], _: Tolerance, draws: Sequence[list[Tensor]]
) -> Difference:
    """Compare integer or boolean outputs, which may differ only in near ties.

    Indices and decisions (argmax, a threshold) may flip in as many places as rounding flips them;
    otherwise the difference is infinite.
    """
    changed = [torch.zeros_like(x, dtype=torch.bool) for x in a]
    for draw in draws:
        for flips, x, y in zip(changed, a, draw, strict=True):
            flips |= x != y
    differing = [x != y for x, y in zip(a, b, strict=True)]
    if sum(int(d.sum()) for d in differing) <= sum(int(flips.sum()) for flips in changed):
        return Difference()
    where = next(i for i, d in enumerate(differing) if d.any())
    first = differing[where].flatten().int().argmax()
    return Difference(torch.inf, _words(number, first, a[where], b[where]))


def _noise(a: list[Tensor], draws: Sequence[list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """Return what rounding may change of each element, and where it changes what is finite.

    The first list has SAFETY times the sum of what changed at the element and what usually changes
    at its places; the second is true where a finite value became infinite or NaN, or the reverse.
    Both have the shapes of `a`.
    """
    largest = [torch.zeros_like(x) for x in a]
    jumps = [torch.zeros_like(x, dtype=torch.bool) for x in a]
    if not draws:
        return largest, jumps
    for draw in draws:
        for most, jumped, x, y in zip(largest, jumps, a, draw, strict=True):
            moved = (x - y).abs()
            jumped |= ~moved.isfinite() & ~((x == y) | (x.isnan() & y.isnan()))
            torch.maximum(most, moved.nan_to_num(0, 0, 0), out=most)
    usual = smallest(largest, lambda rows: rows.median(1).values)
    return [SAFETY * (m + u) for m, u in zip(largest, usual, strict=True)], jumps


def is_loud(reference: Cases, shaken: Sequence[Cases]) -> bool:
    """Return whether rounding moves every output by so much that it could hide an error.

    Args:
        reference: What a network computes for each input.
        shaken: The same after changes as small as rounding (`shake`).
    """
    draws = [list(_by_output(cases)) for cases in shaken]
    shares = []
    for number, a in enumerate(_by_output(reference)):
        if a[0].is_floating_point() and a[0].numel():
            noise, _ = _noise(a, [draw[number] for draw in draws])
            share = torch.cat([(n / s).flatten() for n, s in zip(noise, scales(a), strict=True)])
            shares.append(float(share[~share.isnan()].median()) if share.numel() else 0.0)
    return bool(shares) and min(shares) > SAFETY * LOUD


def _thin(cases: Cases) -> Cases:
    return [[thin(torch.as_tensor(output)) for output in case] for case in cases]


def _same_shapes(reference: Cases, others: Cases) -> bool:
    return [[tuple(x.shape) for x in case] for case in reference] == [
        [tuple(x.shape) for x in case] for case in others
    ]


def _by_output(cases: Cases) -> Iterator[list[Tensor]]:
    for same in zip(*cases, strict=True):
        yield [as_real(x) for x in same]


def as_real(value: Any) -> Tensor:
    """Return an output as a tensor of real numbers on the CPU, with at least one dimension.

    Of a very large one some rows are returned (`thin`).
    Floating point becomes float64, complex numbers become pairs of real and imaginary part in a new
    last dimension, integers and booleans stay as they are.
    """
    tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(value)
    tensor = thin(tensor)  # while rows are where they were
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    tensor = tensor.double() if tensor.is_floating_point() else tensor
    return tensor if tensor.dim() else tensor[None]


def is_between_0_and_1(tensors: Sequence[Tensor]) -> bool:
    """Return whether all values lie between 0 and 1: they may be shares or probabilities."""
    return all(bool(((x >= 0) & (x <= 1)).all()) for x in tensors)


def _words(number: int, flat: Tensor, x: Tensor, y: Tensor) -> str:
    index = [int(i) for i in torch.unravel_index(flat, x.shape)]
    a, b = x.flatten()[flat].item(), y.flatten()[flat].item()
    return f"output {number} at {index}: {a:.6g} against {b:.6g}"
