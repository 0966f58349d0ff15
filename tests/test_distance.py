"""What training makes small: how far outputs of any kind are from the original's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import SqueezeExcite
from tiny import CLASSES, TinyNet, compress, inputs
from torch import Tensor, nn
from torch.utils.data import Dataset

from compressor.errors import CompressorError
from compressor.graph.sequence_layers import sequence_layers
from compressor.graph.trace import trace
from compressor.records import ExampleInputs
from compressor.recover import (
    BesideOriginal,
    Course,
    Distance,
    Objective,
    Recipe,
    evaluate,
    fidelity,
    fine_tune,
)
from compressor.run import footprints

CPU = torch.device("cpu")


def softened_divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Of class scores [samples, classes], at temperature 4."""
    soft, aim = (F.log_softmax(scores / 4, 1) for scores in (ours, theirs))
    return F.kl_div(soft, aim, reduction="batchmean", log_target=True) * 16


def some(samples: int = 64, count: int = 6) -> list[tuple[tuple[Tensor], None]]:
    torch.manual_seed(1)
    return [((torch.randn(samples, 16),), None) for _ in range(count)]


# -- what is measured ------------------------------------------------------------------------------


class Scales(nn.Module):
    """An embedding, a map a million times as large, and a constant."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x[:, :4], 1e6 * x.view(-1, 1, 4, 4) + 3e6, torch.full((len(x), 2), 5.0)


def test_an_output_that_always_is_the_mean_errs_alike_whatever_its_scale() -> None:
    ((x,), _) = some(2000, 1)[0]
    distance = Distance.of(Scales(), [((x,), None)], CPU)
    wanted = Scales()(x)
    means = [output.mean(0, keepdim=True).expand_as(output) for output in wanted[:2]]
    assert float(distance(wanted, wanted)) == 0
    assert float(distance(tuple(means), wanted)) == pytest.approx(10)
    assert float(distance((means[0], wanted[1]), wanted)) == pytest.approx(5)
    other = (*wanted[:2], wanted[2] + 5)
    assert float(distance(other, wanted)) == pytest.approx(10 / 3)  # a constant: of its square


def test_scores_are_told_by_labels_alone() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 6, 5).unbind()
    wanted, distance = softened_divergence(ours, theirs), Distance()
    assert torch.equal(distance(ours, theirs, torch.arange(6) % 5), wanted)
    assert torch.equal(distance(ours, theirs), 10 * F.mse_loss(ours, theirs))
    assert torch.equal(distance(ours, theirs, torch.randn(6)), 10 * F.mse_loss(ours, theirs))
    tokens = [scores.view(2, 3, 5) for scores in (ours, theirs)]
    ids = torch.zeros(2, 3, dtype=torch.long)
    torch.testing.assert_close(distance(*tokens, ids), wanted)
    maps = [scores.movedim(2, 1) for scores in tokens]
    torch.testing.assert_close(distance(*maps, ids), wanted)


def test_a_loss_of_ones_own_does_not_make_scores_of_embeddings() -> None:
    student, teacher, ((x,), _) = nn.Linear(16, 5), nn.Linear(16, 5), some(6, 1)[0]

    def distilled(target: Tensor, module: Any = lambda m: m) -> Tensor:
        nets = [module(net) for net in (student, teacher)]
        loss = Objective(loss=lambda o, t: 0 * o.sum(), teacher=nets[1], distill=1.0)
        return loss(nets[0], (x,), target)

    assert torch.equal(distilled(torch.arange(6) % 5), 10 * F.mse_loss(student(x), teacher(x)))
    tokens = distilled(
        torch.zeros(2, 3, dtype=torch.long),
        lambda net: nn.Sequential(net, nn.Unflatten(0, (2, 3))),
    )
    torch.testing.assert_close(tokens, softened_divergence(student(x), teacher(x)))


def test_labelled_classifiers_learn_half_from_labels_half_from_softened_scores() -> None:
    net, teacher = TinyNet(), TinyNet()
    x, y = inputs(8), torch.arange(8) % CLASSES
    objective = Objective(teacher=teacher.eval()).measure([((x,), y)], CPU)
    labels = F.cross_entropy(net.eval()(x), y)
    wanted = 0.5 * labels + 0.5 * softened_divergence(net(x), teacher(x))
    assert torch.equal(objective(net, (x,), y), wanted)


def test_what_training_alone_returns_is_left_out() -> None:
    x = torch.randn(4, 3)
    assert float(Distance()((x, torch.ones(4, 7)), x)) == 0


@pytest.mark.parametrize("outputs", [torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.long)])
def test_outputs_of_other_shapes_or_types_are_refused(outputs: Tensor) -> None:
    with pytest.raises(CompressorError, match="cannot be compared with the original's"):
        Distance()(outputs, torch.zeros(4, 3))


# -- what is learnt --------------------------------------------------------------------------------


class Embedding(nn.Sequential):
    """Normalised embeddings, [samples, 24]: a small part of each varies."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 24))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(super().forward(x), dim=1)


def damaged(teacher: nn.Module) -> nn.Module:
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.5 * parameter.std() * torch.randn_like(parameter)
    return student


def test_embeddings_are_learnt() -> None:
    """More than by the divergence that fits class scores."""
    torch.manual_seed(0)
    teacher, data = Embedding(), some()
    student = damaged(teacher)

    def gain(objective: Objective) -> float:
        module = copy.deepcopy(student)
        before = near(module)
        fine_tune(module, data, Recipe(4), objective)
        return near(module) - before

    def near(module: nn.Module) -> float:
        return evaluate(module, BesideOriginal(some(64, 2), teacher, CPU), fidelity)

    def as_scores(model: nn.Module, given: Any, _: Any, teacher: nn.Module) -> Tensor:
        return softened_divergence(model(*given), teacher(*given).detach())

    found, before = (
        gain(o) for o in (Objective(teacher=teacher), Objective(step=as_scores, teacher=teacher))
    )
    assert found > 0.02
    assert found > 5 * abs(before)


class TwoScales(nn.Module):
    """A small and a large output of layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"small": 1e-3 * self.small(x), "large": 1e3 * self.large(x)}


def test_outputs_of_different_scales_are_learnt_alike() -> None:
    torch.manual_seed(0)
    teacher, data = TwoScales(), some()
    student = damaged(teacher)

    def errors() -> list[float]:
        with torch.no_grad():
            pairs = zip(
                student(data[0][0][0]).values(), teacher(data[0][0][0]).values(), strict=True
            )
            return [float(F.mse_loss(*pair) / pair[1].var()) for pair in pairs]

    before = errors()
    fine_tune(student, data, Recipe(4, lr=0.02), Objective(teacher=teacher))
    assert all(after < 0.5 * error for after, error in zip(errors(), before, strict=True))


# -- which optimizer, and whether the loss falls ---------------------------------------------------


class Attention(nn.Module):
    """Softmax written out, with a mask and a scale in between."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 8)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 2)
        scores = (q @ k.transpose(1, 2)) / 4.0
        weights = (scores + torch.zeros(x.shape[1], x.shape[1])).softmax(2)
        x = x + weights @ v
        return self.out(x + self.down(self.up(x).relu())).mean(1)


class Pooling(nn.Module):
    """A softmax of a layer's scores weighs positions: no attention between them."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.score(x).softmax(1).transpose(1, 2) @ x).flatten(1)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer = kind(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)[0]
        return found


SEQUENCE = torch.randn(2, 5, 16)
NETWORKS = [
    (TinyNet(), inputs(2), ""),
    (SqueezeExcite(), inputs(2), ""),
    (Pooling(), SEQUENCE, ""),
    (Attention(), SEQUENCE, "attention"),
    (nn.MultiheadAttention(16, 2, batch_first=True), (SEQUENCE,) * 3, "attention"),
    (nn.TransformerEncoderLayer(16, 2, 8, batch_first=True), SEQUENCE, "attention"),
    (Recurrent(nn.LSTM), SEQUENCE, "recurrent layers"),
    (Recurrent(nn.GRU), SEQUENCE, "recurrent layers"),
    (nn.GRUCell(16, 8), SEQUENCE[0], "recurrent layers"),
]


@pytest.mark.parametrize(("module", "given", "words"), NETWORKS)
def test_layers_are_known_by_their_operators(module: nn.Module, given: Any, words: str) -> None:
    args = given if isinstance(given, tuple) else (given,)
    assert sequence_layers(trace(module.eval(), ExampleInputs(args)).program) == words


@pytest.fixture(autouse=True)
def _time_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprints, "LATENCY_SECONDS", 0.05)


class Unlabelled(Dataset[Any]):
    def __init__(self, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        self.samples = torch.randn(120, *shape)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, None]:
        return self.samples[i], None


def notes_of(module: nn.Module, shape: tuple[int, ...], **options: Any) -> tuple[str, Any]:
    settings = {"ratio": 0.3, "epochs": 2, "batch_size": 16, "round_to": 1, **options}
    result = compress(module, torch.randn(2, *shape), data=Unlabelled(shape), **settings)
    return "\n".join(result.report["notes"]), result.report["recovery"]


@pytest.mark.slow
def test_the_optimizer_follows_the_network_unless_one_is_given() -> None:
    """And without labels epochs are compared by fidelity."""
    torch.manual_seed(0)
    notes, moments = notes_of(Attention(), (5, 16))
    assert "alone: adamw (the network has attention), learning rate 0.0001 falling" in notes
    training = moments[-1]["training"]
    assert all(0 < epoch["metric"] < 1 for epoch in training["epochs"])
    assert training["best_epoch"] is not None
    notes, _ = notes_of(Attention(), (5, 16), optimizer="sgd")
    assert "alone: sgd, learning rate 0.01 falling" in notes
    plain = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    notes, _ = notes_of(plain, (16,), policy="rewind-rate")
    assert "alone: sgd, learning rate 0.1 falling" in notes


def test_a_loss_that_does_not_fall_is_said() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    asked = {"epochs": 3, "batch_size": 4, "repair": False, "ratio": 0.7}
    still, _ = notes_of(net, (16,), lr=1e-9, **asked)
    assert "the loss did not fall by more than its noise" in still
    assert "another --lr than 1e-09, --optimizer adamw" in still
    moving, _ = notes_of(net, (16,), lr=0.01, **asked)
    assert "did not fall" not in moving


def test_a_fall_within_the_noise_is_none() -> None:
    noisy = [1.0, 1.3, 0.7, 1.1, 0.9]
    assert not Course.of(noisy + [loss - 0.05 for loss in noisy], 2).falls
    assert Course.of(noisy + [loss - 0.5 for loss in noisy], 2).falls
    assert Course.of([1.0], 1) is None
    one = Course.of([2.0, 2.0, *[1.0] * 18], 1)
    assert (one.first, one.last, one.falls) == (2.0, 1.0, True)
