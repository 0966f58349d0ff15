"""Every criterion against a slow loop written from its formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.distributed as dist
from cases import CASES, Case
from expressions import positions
from scoring import score
from torch import Tensor, multiprocessing, nn
from twin import Analysed, analysed, analysed_case

from compressor.calls import Call
from compressor.errors import CompressorError, UsageError
from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.loading.data import Binding, Forward
from compressor.options import CriterionName, NormalisationName, ReductionName
from compressor.records import ExampleInputs, Member
from compressor.score import (
    CRITERIA,
    NORMALISATIONS,
    REDUCTIONS,
    Calibration,
    Criterion,
    needs_data,
    needs_loss,
    saliency_gradients,
)
from compressor.score.criteria import AUTO
from compressor.score.scoring import USUAL
from compressor.score.traced_program import Program

Tensors = Mapping[str, Tensor]
Table = dict[str, list[list[float]]]
"""Per group and parameter one number per channel."""


def tensors_of(of: Analysed) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in of.model.named_parameters()}


def mean_square(outputs: Tensor, target: Any) -> Tensor:
    """A loss without labels: the mean over the samples."""
    return outputs.square().mean()


def batches_of(of: Analysed, sizes: Sequence[int] = (3, 2)) -> list[tuple[tuple[Tensor, ...], Any]]:
    return [(of.case.inputs(size, seed), None) for seed, size in enumerate(sizes)]


def calibration(of: Analysed, sizes: Sequence[int] = (3, 2)) -> Calibration:
    return Calibration(of.trace, batches_of(of, sizes), mean_square)


def numbers_of(
    of: Analysed, group: str, member: Member, slices: Iterable[Tensor]
) -> list[list[float]]:
    """Per channel all its numbers; a slice is what a position of the member's dimension has."""
    axis = of.network.axes[group]
    places = positions(of.network.tensors[member.tensor][member.dim])
    return [
        [
            float(number)
            for place, part in zip(places, slices, strict=True)
            if (axis, channel) in place
            for number in part.reshape(-1)
        ]
        for channel in range(axis.size)
    ]


def by_hand(
    of: Analysed,
    values: Tensors,
    of_channel: Callable[[list[float]], float],
    wanted: Callable[[Member], bool] = lambda member: True,
) -> Table:
    """`of_channel` of each channel's numbers in each member among `values`."""
    return {
        group.name: [
            [
                of_channel(numbers)
                for numbers in numbers_of(
                    of, group.name, member, list(values[member.tensor].movedim(member.dim, 0))
                )
            ]
            for member in group.members
            if member.tensor in values and wanted(member)
        ]
        for group in of.network.groups
    }


def means(table: Table) -> dict[str, list[float]]:
    """Over the parameters; groups without any are left out."""
    return {
        name: [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        for name, rows in table.items()
        if rows
    }


def over_their_mean(scores: Mapping[str, list[float]]) -> dict[str, list[float]]:
    return {name: [s * len(row) / sum(row) for s in row] for name, row in scores.items()}


def averaged(tables: Sequence[Table]) -> Table:
    """Number by number the mean over tables of one form."""
    return {
        name: [
            [sum(column) / len(tables) for column in zip(*rows, strict=True)]
            for rows in zip(*(table[name] for table in tables), strict=True)
        ]
        for name in tables[0]
    }


def assert_scores(
    found: Mapping[str, np.ndarray], expected: Mapping[str, list[float]], rtol: float = 1e-9
) -> None:
    """The expected groups are scored as expected, and no group is left out."""
    assert expected
    assert expected.keys() <= found.keys()
    for name, row in expected.items():
        np.testing.assert_allclose(found[name], row, rtol=rtol)


# -- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("criterion", "of_channel"),
    [
        ("l1", lambda numbers: sum(map(abs, numbers))),
        ("l2", lambda numbers: math.sqrt(sum(n * n for n in numbers))),
        ("lp", lambda numbers: sum(abs(n) ** 3 for n in numbers) ** (1 / 3)),
    ],
)
def test_norms_of_weights(
    name: str, criterion: str, of_channel: Callable[[list[float]], float]
) -> None:
    of = analysed(name)
    slow = by_hand(of, tensors_of(of), of_channel)
    found = score(of.network, tensors_of(of), criterion, norm_p=3.0)
    assert found.keys() == slow.keys()
    assert_scores(found, over_their_mean(means(slow)))


def test_high_powers_stay_in_the_range_of_numbers() -> None:
    of = analysed("mlp")
    tensors = {name: 1e-4 * value for name, value in tensors_of(of).items()}
    found = score(of.network, tensors, "lp", norm_p=200.0, normalise="none")
    slow = by_hand(of, tensors, lambda numbers: max(map(abs, numbers)))
    assert_scores(found, means(slow), rtol=0.05)


@pytest.mark.parametrize("name", ["residual", "grouped", "fused_attention"])
def test_lamp_is_the_share_of_what_is_not_smaller(name: str) -> None:
    of = analysed(name)
    squares = means(by_hand(of, tensors_of(of), lambda numbers: sum(n * n for n in numbers)))
    shares = {
        group: [s / sum(other for other in row if other >= s) for s in row]
        for group, row in squares.items()
    }
    found = score(of.network, tensors_of(of), "lamp")
    assert found.keys() == shares.keys()
    assert_scores(found, shares)


@pytest.mark.parametrize("name", ["residual", "grouped", "dense", "transposed", "fused_attention"])
def test_geometric_median_is_the_distance_to_the_other_filters(name: str) -> None:
    of = analysed(name)
    weights = tensors_of(of)
    slow: Table = {}
    for group in of.network.groups:
        filters = [
            numbers_of(of, group.name, member, list(weights[member.tensor].movedim(member.dim, 0)))
            for member in group.members
            if not member.contracted and weights.get(member.tensor, torch.ones(1)).dim() > 1
        ]
        slow[group.name] = [
            [sum(math.dist(one, other) for other in layer) for one in layer] for layer in filters
        ]
    assert_scores(
        score(of.network, weights, "geometric-median"), over_their_mean(means(slow)), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["residual", "dense", "mlp"])
def test_bn_scale_is_the_batch_norms_weight(name: str) -> None:
    of = analysed(name)
    norms = {
        n for n, m in of.model.named_modules() if isinstance(m, nn.modules.batchnorm._NormBase)
    }
    signed = {  # gammas of either sign
        name: value * torch.tensor([-1.0, 1.0])[torch.arange(len(value)) % 2]
        if name.rpartition(".")[0] in norms
        else value
        for name, value in tensors_of(of).items()
    }
    gammas = {n: v for n, v in signed.items() if n in {f"{norm}.weight" for norm in norms}}
    slow = by_hand(of, gammas, lambda numbers: sum(map(abs, numbers)))
    assert_scores(score(of.network, signed, "bn-scale"), over_their_mean(means(slow)))


def test_random_is_seeded() -> None:
    network, tensors = analysed("dense").network, tensors_of(analysed("dense"))
    first, again, other = (score(network, tensors, "random", seed=s) for s in (1, 1, 2))
    for group in network.groups:
        assert first[group.name].shape == (group.size,)
        assert (first[group.name] == again[group.name]).all()
        assert (first[group.name] != other[group.name]).any()


def test_a_channel_without_weight_scores_nothing() -> None:
    of = analysed("residual")
    tensors = {name: tensor.clone() for name, tensor in tensors_of(of).items()}
    (group,) = [g for g in of.network.groups if g.name == "a.weight:0"]
    for member in group.members:
        if member.tensor in tensors:
            tensors[member.tensor].select(member.dim, 4).zero_()
    data = calibration(of)
    for criterion in ("l1", "l2", "lp", "lamp", "bn-scale", "wanda"):
        found = score(of.network, tensors, criterion, calibration=data)[group.name]
        assert found[4] == 0, criterion
        assert (np.delete(found, 4) > 0).all(), criterion


# -- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "grouped", "fused_attention", "language_model"])
@pytest.mark.parametrize(
    ("criterion", "of_weight", "of_channel"),
    [
        ("gradient", lambda w, g: g, lambda numbers: sum(map(abs, numbers))),
        ("taylor", lambda w, g: w * g, lambda numbers: abs(sum(numbers))),
        ("taylor-elementwise", lambda w, g: w * g, lambda numbers: sum(map(abs, numbers))),
    ],
)
def test_criteria_of_gradients(
    name: str,
    criterion: str,
    of_weight: Callable[[Tensor, Tensor], Tensor],
    of_channel: Callable[[list[float]], float],
) -> None:
    """Per parameter and batch, then averaged over the batches."""
    of = analysed(name)
    weights = tensors_of(of)
    rounds = []
    for inputs, _ in batches_of(of):
        loss = mean_square(of.model(*inputs), None)
        gradients = torch.autograd.grad(loss, list(of.model.parameters()))
        pairs = zip(weights.items(), gradients, strict=True)
        rounds.append(by_hand(of, {n: of_weight(w, g) for (n, w), g in pairs}, of_channel))
    found = score(of.network, weights, criterion, calibration=calibration(of))
    assert_scores(found, over_their_mean(means(averaged(rounds))))


class Complex(nn.Module):
    """Two products with complex weights, and what is left of them in magnitude."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(3)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, dtype=torch.complex128, generator=random))

        self.first, self.second = drawn(6, 8), drawn(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.of(x, self.first, self.second)

    @staticmethod
    def of(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return ((x.to(torch.complex128) @ first) @ second).abs()


def test_complex_weights_are_scored_by_both_their_parts() -> None:
    """As if real and imaginary parts were two weights: what their zeros do to the loss."""
    model, x = Complex().eval(), torch.randn(5, 6, dtype=torch.float64)
    traced = trace(model, ExampleInputs((x,)))
    network = analyse(traced)
    (group,) = network.groups
    parts = {
        n: torch.view_as_real(p.detach()).clone().requires_grad_()
        for n, p in model.named_parameters()
    }
    out = Complex.of(x, *(torch.view_as_complex(p) for p in parts.values()))
    slopes = torch.autograd.grad(mean_square(out, None), list(parts.values()))
    changes = [(w * g).detach() for w, g in zip(parts.values(), slopes, strict=True)]
    of_first, of_second = changes[0].sum((0, 2)).abs(), changes[1].sum((1, 2)).abs()
    taylor = ((of_first + of_second) / 2).numpy()
    data = Calibration(traced, [((x,), None)], mean_square)
    tensors = dict(model.named_parameters())
    found = score(network, tensors, "taylor", calibration=data)[group.name]
    np.testing.assert_allclose(found, taylor / taylor.mean(), rtol=1e-9)
    (filters,) = score(network, tensors, "geometric-median").values()
    apart = torch.cdist(model.first.detach().abs().T, model.first.detach().abs().T).sum(1)
    exact = (model.first[:, :, None] - model.first[:, None]).abs().square().sum(0).sqrt().sum(1)
    np.testing.assert_allclose(filters, (exact / exact.mean()).detach().numpy(), rtol=1e-9)
    assert not np.allclose(filters, (apart / apart.mean()).numpy(), rtol=1e-3)


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


@pytest.mark.parametrize(
    "name",
    [
        *("residual", "dense", "flatten_linear", "grouped", "depthwise", "squeeze_excite"),
        *("tied_layers", "fused_attention", "transposed", "unet", "normed_mlp", "in_place"),
    ],
)
def test_fisher_is_the_mean_square_of_each_samples_change(name: str) -> None:
    """The samples one by one, and Σ w·g of all consumers' weights."""
    of = analysed(name)
    weights = tensors_of(of)
    tables = []
    for inputs, _ in batches_of(of):
        for sample in range(len(inputs[0])):
            loss = mean_square(of.model(*(x[sample, None] for x in inputs)), 0)
            gradients = torch.autograd.grad(loss, list(of.model.parameters()))
            products = {
                name: w * g for (name, w), g in zip(weights.items(), gradients, strict=True)
            }
            rows = by_hand(of, products, sum, lambda member: member.contracted)
            summed = {
                g: [[sum(column) ** 2 for column in zip(*r, strict=True)]] for g, r in rows.items()
            }
            tables.append(summed)
    found = score(of.network, weights, "fisher", calibration=calibration(of), normalise="none")
    assert_scores(found, means(averaged(tables)))


class Registered(nn.Module):
    """A consumer whose rows are more than the samples, and one with a row per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 4)
        self.row = nn.Parameter(torch.rand(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).tanh()
        return self.b(torch.cat([x, self.row])).mean(0) + self.c(x)


def test_where_samples_meet_fisher_takes_the_batch_for_one() -> None:
    of = analysed_case(Case(Registered, (5,)))
    tables = []
    for inputs, _ in batches_of(of):
        layers = [of.model.b.weight, of.model.c.weight]
        gradients = torch.autograd.grad(mean_square(of.model(*inputs), None), layers)
        both = sum(w * g for w, g in zip(layers, gradients, strict=True))
        tables.append(both.detach().sum(0).square())
    found = score(
        of.network, tensors_of(of), "fisher", calibration=calibration(of), normalise="none"
    )
    assert_scores(found, {"row:1": torch.stack(tables).mean(0).tolist()})


# -- activations ---------------------------------------------------------------------------------

SEEN = ["residual", "dense", "flatten_linear", "grouped", "depthwise", "transposed", "unet"]
SEEN += ["fused_attention", "normed_mlp", "mlp", "volumes", "tied_layers", "gated"]


def inputs_of_layers(of: Analysed) -> dict[str, list[Tensor]]:
    """Per weight all that its layer is given."""
    seen: dict[str, list[Tensor]] = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, name=name: seen.setdefault(f"{name}.weight", []).append(args[0])
        )
        for name, layer in of.model.named_modules()
        if hasattr(layer, "in_channels") or hasattr(layer, "in_features")
    ]
    with torch.no_grad():
        for inputs, _ in batches_of(of):
            of.model(*inputs)
    for handle in handles:
        handle.remove()
    return seen


def numbers_met(of: Analysed, weight: str, position: int, given: Sequence[Tensor]) -> list[float]:
    """All numbers that meet a position of the contracted dimension."""
    layer = of.model.get_submodule(weight.rpartition(".")[0])
    if isinstance(layer, nn.Linear):
        slices = [x[..., position] for x in given]
    else:
        blocks = 1 if layer.transposed else layer.groups
        size = layer.in_channels // blocks
        slices = [x[:, block * size + position] for x in given for block in range(blocks)]
    return [number for part in slices for number in part.reshape(-1).tolist()]


def moments_by_hand(of: Analysed, power: int = 2) -> dict[str, list[Tensor]]:
    """Per consumed weight and position of its contracted dimension the mean of a power."""
    given = inputs_of_layers(of)
    for alias, name in of.network.aliases.items():
        given[name] += given.pop(alias)
    found: dict[str, list[Tensor]] = {}
    for member in {m for group in of.network.groups for m in group.members if m.contracted}:
        numbers = [
            numbers_met(of, member.tensor, position, given[member.tensor])
            for position in range(of.network.tensors[member.tensor][member.dim].size)
        ]
        found[member.tensor] = [
            torch.tensor(sum(x**power for x in row) / len(row), dtype=torch.float64)
            for row in numbers
        ]
    return found


@pytest.mark.parametrize("name", SEEN)
def test_activation_is_the_root_mean_square_that_consumers_are_given(name: str) -> None:
    of = analysed(name)
    moments = moments_by_hand(of)
    slow: Table = {}
    for group in of.network.groups:
        slow[group.name] = [
            [
                math.sqrt(sum(numbers) / len(numbers))
                for numbers in numbers_of(of, group.name, member, moments[member.tensor])
            ]
            for member in group.members
            if member.contracted
        ]
    found = score(of.network, tensors_of(of), "activation", calibration=calibration(of))
    assert_scores(found, over_their_mean(means(slow)))


@pytest.mark.parametrize("name", SEEN)
def test_wanda_is_weight_times_norm_of_its_input(name: str) -> None:
    of = analysed(name)
    moments = moments_by_hand(of)
    products = {}
    for member in {m for group in of.network.groups for m in group.members if m.contracted}:
        weight = tensors_of(of)[member.tensor].clone()
        for position, moment in enumerate(moments[member.tensor]):
            weight.select(member.dim, position).mul_(moment.sqrt())
        products[member.tensor] = weight
    slow = by_hand(of, products, lambda n: sum(map(abs, n)), lambda member: member.contracted)
    found = score(of.network, tensors_of(of), "wanda", calibration=calibration(of))
    assert_scores(found, over_their_mean(means(slow)))


@pytest.mark.parametrize("name", SEEN)
def test_flap_is_squared_weights_times_variance_of_their_input(name: str) -> None:
    of = analysed(name)
    squares, averages = moments_by_hand(of), moments_by_hand(of, power=1)
    products = {}
    for member in {m for group in of.network.groups for m in group.members if m.contracted}:
        weight = tensors_of(of)[member.tensor].square()
        pairs = zip(squares[member.tensor], averages[member.tensor], strict=True)
        for position, (square, average) in enumerate(pairs):
            weight.select(member.dim, position).mul_(square - average**2)
        products[member.tensor] = weight
    slow = by_hand(of, products, sum, lambda member: member.contracted)
    data = calibration(of)
    found = score(of.network, tensors_of(of), "flap", calibration=data, normalise="mean")
    assert_scores(found, over_their_mean(means(slow)))


class Recurrent(nn.Module):
    """The state that meets `cell.weight_hh_l0` is no value of the program."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.embed = nn.LSTM(8, 8, batch_first=True), nn.Linear(5, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).tanh()
        return self.out(x + self.cell(x)[0])


class RawMatrices(nn.Module):
    """Matrices on either side of products, and one dimension met twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.rand(5, 6)), nn.Parameter(torch.rand(7, 6))
        self.c, self.d = nn.Bilinear(7, 7, 8), nn.Parameter(torch.rand(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = (x @ self.a).relu() @ self.b.t()
        x = self.c(x.relu(), x.relu())
        return (self.d @ x.unsqueeze(-1)).squeeze(-1)


def test_what_recurrent_layers_are_given_is_not_guessed() -> None:
    of = analysed_case(Case(Recurrent, (7, 5)))
    seen = {consumer.tensor for consumer in Program(of.trace, of.network.consumers).consumers}
    assert seen == {"out.weight"}
    for criterion in ("activation", "wanda", "fisher"):
        found = score(of.network, tensors_of(of), criterion, calibration=calibration(of))
        assert found.keys() == {group.name for group in of.network.groups}


def test_consumers_are_found_by_what_they_meet() -> None:
    of = analysed_case(Case(RawMatrices, (5,)))
    program = of.trace.program.graph
    nodes = {node.name: node for node in program.nodes}
    found = {
        (c.tensor, c.dim): (str(nodes[c.activation].meta["val"].shape[c.at]), nodes[c.node].target)
        for c in of.network.consumers
    }
    matmul = torch.ops.aten.matmul.default
    assert found == {("b", 1): ("6", matmul), ("d", 1): ("8", matmul)}
    moments: dict[str, list[Tensor]] = {"b": [], "d": []}
    with torch.no_grad():
        for (x,), _ in batches_of(of):
            hidden = (x @ of.model.a).relu()
            moments["b"].append(hidden.square())
            y = (hidden @ of.model.b.t()).relu()
            moments["d"].append(of.model.c(y, y).square())
    slow = {
        group.name: torch.cat(moments[member.tensor]).mean(0).sqrt().tolist()
        for group in of.network.groups
        for member in group.members
        if member.tensor in moments and member.contracted
    }
    assert_scores(
        score(of.network, tensors_of(of), "activation", calibration=calibration(of)),
        over_their_mean(slow),
    )


# -- programs with a static batch ----------------------------------------------------------------


class Static(nn.Module):
    """Its code fixes a batch of 3."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x.view(3, 5))).relu())


@pytest.fixture(scope="module")
def static() -> Analysed:
    torch.manual_seed(0)
    model = Static().double().eval()
    case = Case(Static, (5,))
    traced = trace(model, ExampleInputs(case.inputs(3)))
    assert traced.batch_symbol is None
    return Analysed(case, model, traced, analyse(traced))


def test_static_batches_are_run_as_they_are(static: Analysed) -> None:
    data = Calibration(static.trace, batches_of(static, (3, 3)), mean_square)
    found = score(static.network, tensors_of(static), "activation", calibration=data)
    with torch.no_grad():
        hidden = torch.cat(
            [static.model.norm(static.model.a(x)).relu() for (x,), _ in batches_of(static, (3, 3))]
        )
    slow = {"a.weight:0": hidden.square().mean(0).sqrt().tolist()}
    assert_scores(found, over_their_mean(slow))


def test_a_static_batch_counts_as_one_sample_for_fisher(static: Analysed) -> None:
    tables = []
    for inputs, _ in batches_of(static, (3, 3)):
        weight = static.model.b.weight
        (gradient,) = torch.autograd.grad(mean_square(static.model(*inputs), None), [weight])
        tables.append((weight * gradient).sum(0).square().detach())
    data = Calibration(static.trace, batches_of(static, (3, 3)), mean_square)
    found = score(static.network, tensors_of(static), "fisher", calibration=data, normalise="none")
    assert_scores(found, {"a.weight:0": torch.stack(tables).mean(0).tolist()})


@pytest.mark.parametrize("criterion", ["activation", "wanda", "fisher", "taylor"])
def test_a_batch_of_another_size_is_told(static: Analysed, criterion: str) -> None:
    data = Calibration(static.trace, batches_of(static, (3, 2)), mean_square)
    with pytest.raises(CompressorError, match="batch") as refused:
        score(static.network, tensors_of(static), criterion, calibration=data)
    assert refused.value.next_step


# -- data that does not fit ----------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["activation", "fisher", "taylor"])
def test_samples_that_do_not_fit_are_told(criterion: str) -> None:
    of = analysed("mlp")
    batches = [((torch.randn(2, 9, dtype=torch.float64),), None)]
    with pytest.raises(CompressorError, match="scoring failed on a batch") as refused:
        score(
            of.network,
            tensors_of(of),
            criterion,
            calibration=Calibration(of.trace, batches, mean_square),
        )
    assert "2x9" in refused.value.where


def test_too_many_inputs_are_told() -> None:
    of = analysed("mlp")
    (inputs, _), *_ = batches_of(of)
    data = Calibration(of.trace, [((*inputs, *inputs), None)], mean_square)
    with pytest.raises(CompressorError, match="have 2 inputs, the traced call has 1"):
        score(of.network, tensors_of(of), "activation", calibration=data)


def test_numbers_that_are_not_finite_are_told() -> None:
    of = analysed("mlp")
    data = Calibration(of.trace, batches_of(of), lambda y, _: y.sum() * math.inf)
    with pytest.raises(CompressorError, match="taylor gives numbers that are not finite"):
        score(of.network, tensors_of(of), "taylor", calibration=data)


def test_inputs_by_name_are_put_in_the_traced_order() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(5, 6), nn.Linear(5, 7), nn.Linear(13, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.out(torch.cat([self.a(x), self.b(y)], -1))

    torch.manual_seed(0)
    model = Named().eval()
    x, y = torch.randn(2, 5), torch.randn(2, 5)
    traced = trace(model, ExampleInputs((), {"y": y, "x": x}))
    network = analyse(traced)
    inputs = Binding(Forward.of(model), Call.of(traced.examples))((x, 3 * y))
    data = Calibration(traced, [(inputs, None)], mean_square)
    weights = dict(model.named_parameters())
    found = score(network, weights, "activation", calibration=data, normalise="none")
    assert_scores(
        found,
        {
            "a.weight:0": model.a(x).square().mean(0).sqrt().tolist(),
            "b.weight:0": model.b(3 * y).square().mean(0).sqrt().tolist(),
        },
        rtol=1e-5,
    )


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if needs_data(name)])
def test_scoring_changes_nothing(criterion: str) -> None:
    of = analysed("residual")
    states = [of.trace.module.state_dict(), of.trace.program.state_dict]
    before = [{name: value.clone() for name, value in state.items()} for state in states]
    score(of.network, tensors_of(of), criterion, calibration=calibration(of))
    for state, old in zip(states, before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in old.items())
    assert not any(p.requires_grad or p.grad is not None for p in of.trace.module.parameters())


class Counting(nn.Module):
    """Its forward writes to a buffer, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 4)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.b(self.a(x).relu() * self.calls)


def test_buffers_that_are_written_to_stay() -> None:
    of = analysed_case(Case(Counting, (5,)))
    before = of.trace.program.state_dict["calls"].clone()
    for criterion in ("activation", "fisher"):
        score(of.network, tensors_of(of), criterion, calibration=calibration(of))
        assert of.trace.program.state_dict["calls"] == before


def test_a_program_is_moved_as_a_copy() -> None:
    """To a device without numbers: what stayed behind would not mix with it."""
    of = analysed("fused_attention")
    program = Program(of.trace, of.network.consumers, "meta")
    (inputs,) = of.case.inputs(3)
    seen: list[Tensor] = []
    outputs = program([inputs], lambda consumer, x: seen.append(x) or x)
    assert outputs.device.type == "meta"
    assert len(seen) == len(program.consumers) > 0
    assert {x.device.type for x in seen} == {"meta"}
    assert {x.device.type for x in of.trace.program.state_dict.values()} == {"cpu"}


# -- several processes ---------------------------------------------------------------------------

SPREAD = ["taylor", "fisher", "activation"]


def scores_by_name(shares: Sequence[int]) -> dict[str, np.ndarray]:
    """Of the criteria that average over data, on the batches of these numbers."""
    of = analysed("residual")
    batches = [(of.case.inputs(2 + seed, seed), None) for seed in shares]
    data = Calibration(of.trace, batches, mean_square)
    return {
        f"{criterion} {name}": row
        for criterion in SPREAD
        for name, row in score(of.network, tensors_of(of), criterion, calibration=data).items()
    }


SHARES = ([[0, 2], [1]], [[], [0, 1, 2]])
"""Which of three batches each of two processes sees: not equally many; one sees none."""


def score_in_a_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for number, shares in enumerate(SHARES):
        np.savez(f"{folder}/{number} {rank}.npz", **scores_by_name(shares[rank]))
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_agree_with_one_that_sees_all(tmp_path: Path) -> None:
    multiprocessing.spawn(score_in_a_process, (str(tmp_path),), nprocs=2)
    expected, alone = scores_by_name([0, 1, 2]), scores_by_name([1])
    for number in range(len(SHARES)):
        first, second = (np.load(tmp_path / f"{number} {rank}.npz") for rank in range(2))
        assert set(first.files) == set(second.files) == set(expected)
        for name, row in expected.items():
            assert (first[name] == second[name]).all()
            np.testing.assert_allclose(first[name], row, rtol=1e-12)
            assert (abs(alone[name] / row - 1) > 1e-3).any()


# -- from rows to scores -------------------------------------------------------------------------

REDUCED: Mapping[str, Callable[[list[float]], float]] = {
    "mean": lambda column: sum(column) / len(column),
    "sum": sum,
    "max": max,
    "product": math.prod,
    "first": lambda column: column[0],
}


@pytest.mark.parametrize("name", ["residual", "language_model", "grouped_query"])
@pytest.mark.parametrize("reduction", REDUCED)
def test_reductions_over_a_groups_parameters(name: str, reduction: str) -> None:
    of = analysed(name)
    producers = by_hand(of, tensors_of(of), lambda n: sum(map(abs, n)), lambda m: not m.contracted)
    consumers = by_hand(of, tensors_of(of), lambda n: sum(map(abs, n)), lambda m: m.contracted)
    slow = {
        group: [
            REDUCED[reduction](list(column))
            for column in zip(*producers[group], *consumers[group], strict=True)
        ]
        for group in producers
    }
    found = score(of.network, tensors_of(of), "l1", reduction=reduction)
    assert_scores(found, over_their_mean(slow))


def test_products_of_many_small_numbers_keep_their_order() -> None:
    rows = np.full((400, 3), 1e-3) * np.array([1.0, 1.01, 0.99])
    found = REDUCTIONS["product"](rows)
    assert found.argsort().tolist() == [2, 0, 1]
    assert found.max() == 1
    assert REDUCTIONS["product"](np.zeros((2, 3))).tolist() == [0, 0, 0]


def deviation(row: list[float]) -> float:
    mean = sum(row) / len(row)
    return math.sqrt(sum((s - mean) ** 2 for s in row) / len(row))


NORMALISED: Mapping[str, Callable[[list[float]], list[float]]] = {
    "none": list,
    "mean": lambda row: [s / (sum(row) / len(row)) for s in row],
    "sum": lambda row: [s / sum(row) for s in row],
    "max": lambda row: [s / max(row) for s in row],
    "norm": lambda row: [s / math.sqrt(sum(t * t for t in row)) for s in row],
    "standardise": lambda row: [(s - sum(row) / len(row)) / deviation(row) for s in row],
    "lamp": lambda row: [s / sum(t for t in row if t >= s) for s in row],
}


@pytest.mark.parametrize("normalise", NORMALISED)
def test_normalisations_across_groups(normalise: str) -> None:
    of = analysed("residual")
    raw = means(by_hand(of, tensors_of(of), lambda numbers: sum(map(abs, numbers))))
    found = score(of.network, tensors_of(of), "l1", normalise=normalise)
    assert_scores(found, {name: NORMALISED[normalise](row) for name, row in raw.items()})


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations_of_what_has_no_size(name: str) -> None:
    """All alike, and all zero: the scores stay finite and alike."""
    assert NORMALISATIONS[name](np.zeros(3)).tolist() == [0, 0, 0]
    alike = NORMALISATIONS[name](np.full(3, 0.1))
    assert np.isfinite(alike).all()
    if name != "lamp":  # orders what is alike, as the paper does
        np.testing.assert_allclose(alike, alike[0], atol=1e-12)


def test_every_name_is_an_option() -> None:
    assert list(get_args(CriterionName)) == [AUTO, *CRITERIA]
    assert list(get_args(ReductionName)) == list(REDUCTIONS) == list(REDUCED)
    assert list(get_args(NormalisationName)) == [USUAL, *NORMALISATIONS]
    assert list(NORMALISATIONS) == list(NORMALISED)
    assert all(c.normalise in NORMALISATIONS for c in CRITERIA.values())


def test_which_criteria_need_what() -> None:
    data = [name for name in CRITERIA if needs_data(name)]
    loss = [name for name in CRITERIA if needs_loss(name)]
    assert loss == ["gradient", "taylor", "taylor-elementwise", "fisher"]
    assert data == ["reconstruction", *loss, "activation", "wanda", "flap"]


def test_a_criterion_of_another_stage_hands_in_finished_scores() -> None:
    of = analysed("residual")
    finished = {g.name: np.arange(g.size, dtype=np.float64) for g in of.network.groups}
    own = Criterion(
        "what is handed in",
        "none",
        lambda _: {n: [s] for n, s in finished.items()},
        normalise="none",
    )
    found = score(of.network, tensors_of(of), "own", criteria={**CRITERIA, "own": own})
    assert found.keys() == finished.keys()
    assert all((found[name] == row).all() for name, row in finished.items())


# -- what is refused, and what falls back --------------------------------------------------------


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if needs_data(name)])
def test_criteria_that_need_data_refuse_to_do_without(criterion: str) -> None:
    of = analysed("residual")
    with pytest.raises(UsageError, match=f"{criterion} needs data") as refused:
        score(of.network, tensors_of(of), criterion)
    assert "--data" in refused.value.next_step
    with pytest.raises(UsageError, match="no batch"):
        score(of.network, tensors_of(of), criterion, calibration=calibration(of, ()))


@pytest.mark.parametrize(
    ("criterion", "options", "kind"),
    [
        ("l3", {}, "criterion 'l3'"),
        ("l2", {"reduction": "median"}, "reduction 'median'"),
        ("l2", {"normalise": "median"}, "normalisation 'median'"),
    ],
)
def test_an_unknown_name_is_told_those_that_there_are(
    criterion: str, options: dict[str, str], kind: str
) -> None:
    of = analysed("residual")
    with pytest.raises(UsageError, match=f"no {kind}") as refused:
        score(of.network, tensors_of(of), criterion, **options)
    assert "mean" in refused.value.next_step or "l2" in refused.value.next_step


def test_without_any_batch_norm_its_scale_is_refused() -> None:
    of = analysed("unet")
    with pytest.raises(UsageError, match="bn-scale measures nothing in this network") as refused:
        score(of.network, tensors_of(of), "bn-scale")
    assert "l2" in refused.value.next_step


def test_groups_of_which_nothing_is_measured_are_scored_by_their_weights() -> None:
    of, notes = analysed("residual"), list[str]()
    found = score(of.network, tensors_of(of), "bn-scale", note=notes.append)
    by_weights = score(of.network, tensors_of(of), "l2")
    assert (found["stem.weight:0"] == by_weights["stem.weight:0"]).all()
    assert (found["a.weight:0"] != by_weights["a.weight:0"]).any()
    (note,) = notes
    assert "1 of 2 groups (stem.weight:0)" in note
