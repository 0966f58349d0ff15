"""Score by the weights alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from compressor.score.criterion import Floats, Material, Rows
from compressor.score.places import Place, places

Measure = Callable[[Place], Floats | None]
"""A function from a parameter to one number per channel, or None where the criterion says
nothing of it."""


def of_weights(measure: Measure) -> Callable[[Material], Rows]:
    """Build a criterion from a measure: a row for each parameter that it measures."""

    def rows(material: Material) -> Rows:
        found = places(material.network, material.tensors)
        measured = {name: [measure(place) for place in there] for name, there in found.items()}
        return {name: [r for r in row if r is not None] for name, row in measured.items()}

    return rows


def norm(p: float) -> Measure:
    """Return the measure (Σ |w|^p)^(1/p) over a channel's weights.

    For p below 1 it is not a norm, but still an order.
    """

    def measure(place: Place) -> Floats:
        largest = max(_largest(part) for part in place.parts())
        scale = largest if largest > 0 else 1.0  # keeps high powers in the range of numbers
        powers = place.totals_of(lambda weight: weight.abs().div_(scale).pow_(p))
        totals: Floats = scale * powers ** (1 / p)
        return totals

    return measure


def _largest(place: Place) -> float:
    """Return the largest absolute value of a parameter."""
    values = place.tensor.detach()
    if values.is_complex() or not values.is_floating_point():
        return float(place.weight.abs().max())
    return max(float(values.max()), -float(values.min()))


def lp(material: Material) -> Rows:
    """Compute the rows of the norm with the user's p."""
    return of_weights(norm(material.norm_p))(material)


def squares(place: Place) -> Floats:
    """Compute Σ w² per channel, [channels], of which LAMP takes shares."""
    return place.totals_of(torch.square)


def distances(place: Place) -> Floats | None:
    """Compute Σ_j |F_i - F_j|, the distance of each filter to all others of its layer, [channels].

    It is smallest next to the geometric median, where the other filters replace a filter best (He
    et al. 2019, FPGM). Filters are what produces the channels; vectors (biases, norms) and
    consumers are none, and None is returned for them.
    """
    if place.member.contracted or place.tensor.dim() < 2:
        return None
    filters = place.vectors()
    summed: Floats = torch.cdist(filters, filters).sum(1).cpu().numpy()
    return summed


def batch_norm_scales(material: Material) -> Rows:
    """Compute |γ| of batch norms, recognised by a running variance beside the weight."""
    known = material.network.tensors

    def measure(place: Place) -> Floats | None:
        owner, _, leaf = place.member.tensor.rpartition(".")
        if leaf != "weight" or (f"{owner}.running_var" if owner else "running_var") not in known:
            return None
        return place.totals(place.weight.abs())

    return of_weights(measure)(material)


def random(material: Material) -> Rows:
    """Draw uniform random numbers, the same for the same seed."""
    generator = np.random.default_rng(material.seed)
    return {group.name: [generator.random(group.size)] for group in material.network.groups}
