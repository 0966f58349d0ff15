"""Every criterion against a slow loop written from its formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from cases import CASES
from expressions import positions
from torch import Tensor, nn
from twin import Analysed, analysed

from compressor.errors import UsageError
from compressor.score import CRITERIA, needs_data, saliency_gradients, score

Tensors = Mapping[str, Tensor]


def tensors_of(of: Analysed) -> dict[str, Tensor]:
    return dict(of.model.named_parameters())


def gradients_of(of: Analysed, batches: int = 2) -> list[dict[str, Tensor]]:
    data = [(of.case.inputs(3, seed), None) for seed in range(batches)]
    return list(saliency_gradients(of.model, data, lambda y, _: y.square().mean()))


def per_weight(
    of: Analysed, weights: Tensors, of_channel: Callable[[list[float]], float]
) -> Tensors:
    """Per group and channel: `of_channel` of its numbers in each parameter, the mean of that over
    the parameters, and in the end everything over the group's mean."""
    found = {}
    for group in of.network.groups:
        axis = of.network.axes[group.name]
        rows = []
        for member in (m for m in group.members if m.tensor in weights):
            places = positions(of.network.tensors[member.tensor][member.dim])
            slices = weights[member.tensor].movedim(member.dim, 0)
            rows.append(
                [
                    of_channel(
                        [
                            float(number)
                            for place, part in zip(places, slices, strict=True)
                            if (axis, channel) in place
                            for number in part.reshape(-1)
                        ]
                    )
                    for channel in range(group.size)
                ]
            )
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        found[group.name] = torch.tensor(means, dtype=torch.float64)
    return found


def normalised(scores: Tensors) -> Tensors:
    return {name: row / row.mean() for name, row in scores.items()}


def assert_scores(found: Mapping[str, np.ndarray], expected: Tensors) -> None:
    assert set(found) == set(expected)
    for name, row in expected.items():
        np.testing.assert_allclose(found[name], row.numpy(), rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("criterion", "of_channel"),
    [
        ("l1", lambda numbers: sum(map(abs, numbers))),
        ("l2", lambda numbers: math.sqrt(sum(n * n for n in numbers))),
    ],
)
def test_norms_of_weights(
    name: str, criterion: str, of_channel: Callable[[list[float]], float]
) -> None:
    of = analysed(name)
    slow = per_weight(of, {k: w.detach() for k, w in tensors_of(of).items()}, of_channel)
    assert_scores(score(of.network, tensors_of(of), criterion), normalised(slow))


@pytest.mark.parametrize("name", ["residual", "grouped", "fused_attention", "language_model"])
def test_taylor_is_the_first_order_change_of_the_loss(name: str) -> None:
    """|sum of weight times gradient| per parameter, averaged over batches."""
    of = analysed(name)
    weights, gradients = tensors_of(of), gradients_of(of)
    products = [{k: (weights[k] * g[k]).detach() for k in g} for g in gradients]
    rounds = [per_weight(of, product, lambda numbers: abs(sum(numbers))) for product in products]
    slow = {name: torch.stack([r[name] for r in rounds]).mean(0) for name in rounds[0]}
    found = score(of.network, weights, "taylor", gradients=gradients)
    assert_scores(found, normalised(slow))


def test_gradients_are_those_of_the_loss_and_leave_no_trace() -> None:
    of = analysed("mlp")
    model = of.case.build().double().eval()
    model[0].weight.requires_grad_(False)
    (inputs,) = of.case.inputs(4)
    target = torch.tensor([0, 3, 1, 2])
    (found,) = saliency_gradients(model, [((inputs,), target)], nn.functional.cross_entropy)
    assert all(p.grad is None for p in model.parameters())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.weight"]
    bias = model[7].bias
    probabilities = model(inputs).softmax(1)
    by_hand = (probabilities - nn.functional.one_hot(target, 4)).mean(0)
    torch.testing.assert_close(found["7.bias"], by_hand.detach())
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert bias.grad is None


def test_random_is_seeded() -> None:
    network, tensors = analysed("dense").network, tensors_of(analysed("dense"))
    first, again, other = (score(network, tensors, "random", seed=s) for s in (1, 1, 2))
    for group in network.groups:
        assert first[group.name].shape == (group.size,)
        assert (first[group.name] == again[group.name]).all()
        assert (first[group.name] != other[group.name]).any()


@pytest.mark.parametrize("criterion", [name for name in NAMES if needs_data(name)])
def test_criteria_that_need_data_refuse_to_do_without(criterion: str) -> None:
    of = analysed("residual")
    with pytest.raises(UsageError, match="needs data") as refused:
        score(of.network, tensors_of(of), criterion)
    assert "--data" in refused.value.next_step
    with pytest.raises(UsageError, match="no batch"):
        score(of.network, tensors_of(of), criterion, gradients=[])


def test_only_taylor_needs_data() -> None:
    assert [name for name in NAMES if needs_data(name)] == ["taylor"]


def test_an_unknown_criterion_names_those_that_there_are() -> None:
    of = analysed("residual")
    with pytest.raises(UsageError, match="no criterion 'l3'") as refused:
        score(of.network, tensors_of(of), "l3")
    assert all(name in refused.value.next_step for name in NAMES)


def test_a_channel_without_weight_scores_nothing() -> None:
    of = analysed("residual")
    tensors = {name: tensor.detach().clone() for name, tensor in tensors_of(of).items()}
    (group,) = [g for g in of.network.groups if g.name == "a.weight:0"]
    for member in group.members:
        if member.tensor in tensors:
            tensors[member.tensor].select(member.dim, 4).zero_()
    for criterion in ("l1", "l2"):
        found = score(of.network, tensors, criterion)[group.name]
        assert found[4] == 0
        assert (np.delete(found, 4) > 0).all()
