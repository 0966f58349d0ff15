"""Scores: one number per channel of each group, high where the channel matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from compressor.axes import coordinates
from compressor.errors import UsageError
from compressor.network import Network
from compressor.records import Group

Scores = dict[str, npt.NDArray[np.float64]]
Gradients = Mapping[str, torch.Tensor]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Criterion:
    """How a channel's weights become its score: `finish(sum of contribution(weight, gradient))`.

    Attributes:
        paper: Where it is from.
        contribution: Element-wise, from a weight tensor and its gradient (zeros without data).
        finish: From the sum over a channel's weights in one member to its score.
        needs_data: Whether gradients are needed.
    """

    paper: str
    contribution: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    finish: Callable[[Floats], Floats]
    needs_data: bool = False


CRITERIA: Mapping[str, Criterion] = {
    "l2": Criterion(
        "Li et al. 2017, Pruning Filters for Efficient ConvNets (section 3.1, with the L2 norm)",
        lambda weight, _: weight.square(),
        np.sqrt,
    ),
    "l1": Criterion(
        "Li et al. 2017, Pruning Filters for Efficient ConvNets (section 3.1)",
        lambda weight, _: weight.abs(),
        lambda total: total,
    ),
    "taylor": Criterion(
        "Molchanov et al. 2019, Importance Estimation for Neural Network Pruning (equation 8)",
        lambda weight, gradient: weight * gradient,
        np.abs,
        needs_data=True,
    ),
}

RANDOM = "random"
NAMES = (*CRITERIA, RANDOM)


def needs_data(criterion: str) -> bool:
    """Whether the criterion is computed from data."""
    return criterion in CRITERIA and CRITERIA[criterion].needs_data


def score(
    network: Network,
    tensors: Mapping[str, torch.Tensor],
    criterion: str,
    *,
    gradients: Iterable[Gradients] | None = None,
    seed: int = 0,
) -> Scores:
    """Scores per group: the mean over the group's parameters, divided by the group's mean, so that
    groups compare.

    Args:
        network: The analysed network.
        tensors: Parameters by name.
        criterion: One of `NAMES`.
        gradients: For criteria that need data: gradients of the loss by name, one per batch; the
            scores are averaged over the batches.
        seed: For "random".

    Raises:
        UsageError: The criterion is unknown, or needs data and got none.
    """
    if criterion == RANDOM:
        generator = np.random.default_rng(seed)
        return {group.name: generator.random(group.size) for group in network.groups}
    if criterion not in CRITERIA:
        raise UsageError(
            f"there is no criterion {criterion!r}", next_step=f"choose one of {', '.join(NAMES)}"
        )
    chosen = CRITERIA[criterion]
    if chosen.needs_data and gradients is None:
        raise UsageError(
            f"the criterion {criterion} needs data",
            where="--criterion",
            next_step="give --data, or choose a criterion of the weights such as l2",
        )
    rounds = list(_rounds(network, tensors, chosen, gradients if chosen.needs_data else [{}]))
    if not rounds:
        raise UsageError("the data gave no batch", where="--data", next_step="give more samples")
    return {name: _normalised(_mean([r[name] for r in rounds])) for name in rounds[0]}


def _rounds(
    network: Network,
    tensors: Mapping[str, torch.Tensor],
    criterion: Criterion,
    gradients: Iterable[Gradients] | None,
) -> Iterator[Scores]:
    for gradient in gradients or ():
        yield {
            group.name: _group_score(network, group, tensors, criterion, gradient)
            for group in network.groups
        }


def _group_score(
    network: Network,
    group: Group,
    tensors: Mapping[str, torch.Tensor],
    criterion: Criterion,
    gradients: Gradients,
) -> Floats:
    axis = network.axes[group.name]
    found: list[Floats] = []
    for member in group.members:
        weight = tensors.get(member.tensor)
        if weight is None:
            continue
        gradient = gradients.get(member.tensor, torch.zeros((), device=weight.device))
        parts = criterion.contribution(weight.detach().double(), gradient.double())
        others = [d for d in range(weight.dim()) if d != member.dim]
        sums = (parts.sum(others) if others else parts).cpu().numpy()
        index = coordinates(network.tensors[member.tensor][member.dim], axis)
        inside = index >= 0
        totals = np.bincount(index[inside], weights=sums[inside], minlength=group.size)
        found.append(criterion.finish(np.asarray(totals, dtype=np.float64)))
    return _mean(found)


def _mean(rows: list[Floats]) -> Floats:
    mean: Floats = np.mean(np.stack(rows), axis=0)
    return mean


def _normalised(scores: Floats) -> Floats:
    mean = float(scores.mean())
    return scores / mean if mean > 0 else scores


def saliency_gradients(
    module: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss: Callable[[Any, Any], torch.Tensor],
    device: str = "cpu",
) -> Iterator[dict[str, torch.Tensor]]:
    """Gradients of the loss with respect to every parameter, batch by batch, in eval mode.

    The module is used as it is; its parameters' `requires_grad` and `grad` are restored.
    """
    parameters = dict(module.named_parameters())
    wanted = {name: p.requires_grad for name, p in parameters.items()}
    module.to(device)
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(parameter.is_floating_point())
        for inputs, target in batches:
            moved = [x.to(device) for x in inputs]
            with torch.enable_grad():
                value = loss(module(*moved), None if target is None else target.to(device))
                found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            pairs = zip(parameters, found, strict=True)
            yield {name: gradient for name, gradient in pairs if gradient is not None}
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(wanted[name])
