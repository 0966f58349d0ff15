"""Score by the gradients of the loss with respect to the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.score.averages import Average
from compressor.score.criterion import Batches, Floats, Loss, Material, Rows
from compressor.score.places import Place, places, precise
from compressor.score.traced_program import told_apart

Measure = Callable[[Place, torch.Tensor], Floats]
"""A function from a parameter and its gradient (in double precision) to one number per channel."""


def of_gradients(measure: Measure) -> Callable[[Material], Rows]:
    """Build a criterion from a measure: a row per parameter, averaged over the batches.

    Parameters that the loss does not depend on have zero gradients.
    """

    def rows(material: Material) -> Rows:
        data = material.data
        by_tensor = places(material.network, material.tensors)
        there = {(name, i): p for name, row in by_tensor.items() for i, p in enumerate(row)}
        average = Average({key: place.channels for key, place in there.items()})
        for gradients in saliency_gradients(
            data.trace.module, data.batches, data.loss, data.device
        ):
            for key, place in there.items():
                gradient = gradients.get(place.member.tensor, torch.zeros_like(place.tensor))
                average.add(key, measure(place, precise(gradient.to(place.tensor.device))))
        means = average.result()
        return {name: [means[name, i] for i in range(len(row))] for name, row in by_tensor.items()}

    return rows


def magnitude(place: Place, gradient: torch.Tensor) -> Floats:
    """Compute Σ |g| per channel, [channels]."""
    return place.totals(gradient.abs())


def joint(place: Place, gradient: torch.Tensor) -> Floats:
    """Compute |Σ w·g| per channel, [channels] (Molchanov et al. 2019, equation 8).

    To first order it is the change of the loss when the channel's weights all become zero.
    """
    changes: Floats = abs(place.totals(_slopes(place, gradient)))
    return changes


def element_wise(place: Place, gradient: torch.Tensor) -> Floats:
    """Compute Σ |w·g| per channel, [channels]: changes of different signs do not cancel."""
    return place.totals(_slopes(place, gradient).abs())


def _slopes(place: Place, gradient: torch.Tensor) -> torch.Tensor:
    """Compute w·g: how the loss changes with the size of each weight.

    Torch's gradient of a complex weight has the slopes along its two parts as its own, so that both
    together are Re(conj(w)·g).
    """
    values = place.values
    return (values.conj() * gradient).real if values.is_complex() else values * gradient


def saliency_gradients(
    module: nn.Module,
    batches: Batches,
    loss: Loss,
    device: str = "cpu",
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the gradients of the loss by every parameter, batch by batch, in eval mode.

    The module is moved to the device; its parameters' `requires_grad` and `grad` are restored.

    Raises:
        CompressorError: The network or the loss fails on a batch.
    """
    parameters = dict(module.named_parameters())
    wanted = {name: p.requires_grad for name, p in parameters.items()}
    module.to(device)
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        for inputs, target in batches:
            with told_apart(inputs), torch.enable_grad():
                gradients = _gradients(module, parameters, inputs, target, loss, device)
            yield {name: gradient for name, gradient in gradients.items() if gradient is not None}
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(wanted[name])


def _gradients(
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: Any,
    target: Any,
    loss: Loss,
    device: str,
) -> dict[str, torch.Tensor | None]:
    call, aim = pytree.tree_map_only(
        torch.Tensor, lambda x: x.to(device), (Call.of(inputs), target)
    )
    value = loss(call.to(module), aim)
    free = {name: p for name, p in parameters.items() if p.requires_grad}
    gradients = torch.autograd.grad(value, list(free.values()), allow_unused=True)
    return dict(zip(free, gradients, strict=True))
