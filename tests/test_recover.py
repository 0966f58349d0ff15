"""Evaluation, batch-norm recalibration and fine-tuning, on the user's class and on the program."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from compressor.errors import CompressorError, UsageError
from compressor.recover import (
    Distance,
    Hooks,
    Objective,
    Recipe,
    evaluate,
    fine_tune,
    primary_output,
    recalibrate_batch_norm,
    top1,
)


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.mix = nn.Conv2d(8, 8, 3)
        self.bn2 = nn.BatchNorm2d(8, momentum=None)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.bn(self.conv(x)).relu())
        return self.head(self.bn2(self.mix(x)).relu().mean((2, 3)))


@pytest.fixture
def net() -> TinyNet:
    torch.manual_seed(0)
    model = TinyNet()
    for norm in (model.bn, model.bn2):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return model.eval()


def as_program(model: nn.Module) -> GraphModule:
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    return torch.export.export(model, (torch.randn(2, 3, 8, 8),), dynamic_shapes=dynamic).module()


def some_batches(sizes=(16, 16, 5), seed=1):
    """Images whose brightness is their class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for size in sizes:
        target = torch.randint(0, 4, (size,), generator=generator)
        noise = torch.randn(size, 3, 8, 8, generator=generator)
        out.append(((noise + target.view(-1, 1, 1, 1),), target))
    return out


def unlabelled(batches):
    return [(inputs, None) for inputs, _ in batches]


def statistics(module: nn.Module) -> dict[str, Tensor]:
    return {n: b.clone() for n, b in module.named_buffers() if "running" in n}


def assert_same(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert some.keys() == others.keys() and some
    for name, tensor in some.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-5, atol=1e-6)


# evaluation


def test_evaluate_weights_batches_by_their_samples():
    identity = nn.Identity()
    right = torch.eye(2)[[0, 1, 1]]
    wrong = torch.eye(2)[[0]]
    batches = [((right,), torch.tensor([0, 1, 1])), ((wrong,), torch.tensor([1]))]
    assert evaluate(identity, batches) == 0.75


def test_evaluate_turns_dropout_off_and_takes_any_metric(net):
    net.train()
    calls = []

    def mean_target(outputs, target):
        calls.append(outputs.shape)
        return target.double().mean()

    batches = some_batches()
    value = evaluate(net, batches, mean_target)
    assert not net.training
    assert value == pytest.approx(torch.cat([t for _, t in batches]).double().mean().item())
    assert calls == [(16, 4), (16, 4), (5, 4)]


def test_evaluate_the_same_on_class_and_program(net):
    batches = some_batches()
    assert evaluate(net, batches) == evaluate(as_program(net), batches)


def test_top1_of_positions_and_of_several_outputs():
    scores = torch.zeros(2, 3, 4)
    scores[:, 1] = 1
    assert top1((scores, torch.zeros(1)), torch.full((2, 4), 1)) == 1.0
    assert top1({"logits": scores}, torch.full((2, 4), 2)) == 0.0
    with pytest.raises(CompressorError, match="no tensor"):
        primary_output(["text"])


def test_evaluate_refuses_what_it_cannot_score(net):
    def raises(outputs, target):
        raise KeyError("weights")

    with pytest.raises(CompressorError, match="no labels"):
        evaluate(net, unlabelled(some_batches()))
    with pytest.raises(CompressorError, match="not one sample"):
        evaluate(net, [])
    with pytest.raises(CompressorError, match="metric failed: KeyError"):
        evaluate(net, some_batches(), raises)
    with pytest.raises(CompressorError, match="metric is nan"):
        evaluate(net, some_batches(), lambda outputs, target: float("nan"))
    with pytest.raises(CompressorError, match="shape 2x1x8x8"):
        evaluate(net, [((torch.zeros(2, 1, 8, 8),), torch.zeros(2))])


# batch norm


def test_recalibration_averages_the_batches(net):
    """The first norm's statistics are those of the data; the second's of its own inputs."""
    batches = some_batches((16, 16, 16))
    with torch.no_grad():
        features = [net.conv(x) for (x,), _ in batches]
    assert recalibrate_batch_norm(net, batches) == 48
    mean = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
    var = torch.stack([f.var((0, 2, 3)) for f in features]).mean(0)
    torch.testing.assert_close(net.bn.running_mean, mean)
    torch.testing.assert_close(net.bn.running_var, var)


def test_recalibration_weights_unequal_batches_by_their_values(net):
    batches = some_batches((24, 8))
    with torch.no_grad():
        means = [net.conv(x).mean((0, 2, 3)) for (x,), _ in batches]
    recalibrate_batch_norm(net, batches)
    torch.testing.assert_close(net.bn.running_mean, 0.75 * means[0] + 0.25 * means[1])


def test_recalibration_is_the_same_on_class_and_program(net):
    program = as_program(net)
    assert_same(statistics(net), statistics(program))
    old = statistics(net)
    batches = some_batches()
    for form in (net, program):
        assert recalibrate_batch_norm(form, batches) == 37
    assert_same(statistics(net), statistics(program))
    assert not torch.allclose(old["bn.running_mean"], net.bn.running_mean)
    (x,), _ = batches[0]
    torch.testing.assert_close(program(x), net(x))  # in eval mode again, on the new statistics
    torch.testing.assert_close(program(x[:1]), net(x)[:1], rtol=1e-4, atol=1e-5)


def test_recalibration_inside_a_wrapper(net):
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

        def eval(self):
            return self

    wrapped = Wrapper(as_program(net))
    recalibrate_batch_norm(wrapped, some_batches())
    recalibrate_batch_norm(net, some_batches())
    assert_same(statistics(net), statistics(wrapped.inner))


def test_recalibration_leaves_dropout_off_and_parameters_alone(net):
    net.train()
    parameters = {n: p.clone() for n, p in net.named_parameters()}
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        recalibrate_batch_norm(net, some_batches())
        runs.append(statistics(net))
    assert_same(*runs)
    assert_same(parameters, dict(net.named_parameters()))
    assert not net.training


def test_recalibration_of_a_shared_norm_averages_over_its_uses():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm1d(3)

        def forward(self, a, b):
            return self.bn(a) + self.bn(b)

    a, b = torch.randn(8, 3) + 2, torch.randn(8, 3) - 4
    model = Shared().eval()
    recalibrate_batch_norm(model, [((a, b), None)])
    torch.testing.assert_close(model.bn.running_mean, (a.mean(0) + b.mean(0)) / 2)


def test_recalibration_mends_statistics_that_are_not_numbers(net):
    net.bn.running_mean.fill_(float("nan"))
    net.bn.running_var.fill_(float("inf"))
    recalibrate_batch_norm(net, some_batches())
    assert net.bn.running_mean.isfinite().all() and net.bn.running_var.isfinite().all()


def test_recalibration_without_batch_norm_uses_nothing():
    seen = []
    batches = ((seen.append(i) or torch.randn(2, 3),) for i in range(5))
    assert recalibrate_batch_norm(nn.Linear(3, 2), ((x, None) for x in batches)) == 0
    assert seen == [0]


def test_recalibration_on_single_values_is_a_clear_error_and_changes_nothing():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    old = statistics(model)
    with pytest.raises(CompressorError, match="one value per channel") as caught:
        recalibrate_batch_norm(model, [((torch.randn(1, 3),), None)])
    assert "where: 1" in str(caught.value)
    assert_same(statistics(model), old)
    batches = [((torch.randn(n, 3),), None) for n in (4, 1)]
    assert recalibrate_batch_norm(model, batches) == 5  # a last batch of one is no obstacle
    assert statistics(model)["1.running_var"].isfinite().all()


@pytest.mark.parametrize("form", [lambda m: m, as_program])
def test_recalibration_that_fails_or_is_interrupted_restores(net, form):
    module = form(net)
    old = statistics(module)
    nan = torch.full((4, 3, 8, 8), float("nan"))
    with pytest.raises(CompressorError, match="not finite") as caught:
        recalibrate_batch_norm(module, [((nan,), None)])
    assert "where: bn" in str(caught.value)
    assert_same(statistics(module), old)

    def interrupted():
        yield some_batches()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recalibrate_batch_norm(module, interrupted())
    assert_same(statistics(module), old)


# fine-tuning


def test_fine_tuning_learns_and_reports(net):
    batches = some_batches((32, 32, 32))
    before, words = evaluate(net, batches), []
    results = fine_tune(
        net,
        batches,
        Recipe(20, lr=0.05, seed=3),
        hooks=Hooks(progress=lambda *word: words.append(word)),
    ).history
    assert evaluate(net, batches) > max(0.5, before)
    assert [r.epoch for r in results] == list(range(1, 21))
    assert results[-1].loss < 0.7 * results[0].loss
    assert 0 <= results[-1].lr < 0.05 / 10
    assert [word[:2] for word in words] == [(n, 60) for n in range(1, 61)]
    assert words[3][2].startswith("epoch 2 of 20, loss ")
    assert words[3][2].endswith(" left")
    assert not net.training


def test_fine_tuning_is_reproducible_and_leaves_the_global_random_state(net):
    twin = copy.deepcopy(net)
    fine_tune(net, some_batches(), Recipe(2, seed=5))
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    fine_tune(twin, some_batches(), Recipe(2, seed=5))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_same(dict(net.named_parameters()), dict(twin.named_parameters()))


def test_fine_tuning_decays_matrices_alone(net):
    """With a loss whose gradient is zero only weight decay moves anything."""
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    fine_tune(net, some_batches(), Recipe(1), Objective(lambda outputs, _: 0 * outputs.sum()))
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]) == (parameter.ndim <= 1), name


def test_fine_tuning_without_labels_learns_from_the_teacher(net):
    torch.manual_seed(9)
    student, teacher = TinyNet(), net
    batches = unlabelled(some_batches((32, 32)))

    def gap() -> float:
        with torch.no_grad():
            return sum(float(Distance()(student.eval()(x), teacher(x))) for (x,), _ in batches)

    before, kept = gap(), copy.deepcopy(teacher.state_dict())
    fine_tune(student, batches, Recipe(15, lr=0.05), Objective(teacher=teacher))
    assert gap() < before / 2
    assert_same(kept, teacher.state_dict())


def test_nothing_is_dropped_where_only_the_teacher_is_learned_from(net):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.5), nn.Linear(8, 4))
    without = [(inputs, None) for inputs, _ in some_batches()]
    exact = Recipe(1, 1e-3, precision="fp32")
    losses = [
        fine_tune(copy.deepcopy(plain), batches, exact, Objective(teacher=plain))
        for batches in (without, some_batches())
    ]
    aims, labels = (state.history[0].loss for state in losses)
    assert aims < 1e-6  # they are the teacher's own outputs
    assert labels > 0.1
    modes = []
    net.register_forward_pre_hook(
        lambda *_: modes.append((net.drop.training, net.bn.training, net.training))
    )
    fine_tune(net, without, Recipe(1, 1e-3), Objective(teacher=copy.deepcopy(net)))
    assert modes[-1] == (False, True, False)


def test_a_network_of_frozen_parameters_is_refused(net):
    net.requires_grad_(False)
    with pytest.raises(CompressorError, match="no parameter that could be trained"):
        fine_tune(net, some_batches(), Recipe(1))


def test_fine_tuning_keeps_what_the_user_froze(net):
    net.conv.requires_grad_(False)
    before = net.conv.weight.clone()
    fine_tune(net, some_batches(), Recipe(1))
    assert torch.equal(net.conv.weight, before)


def test_fine_tuning_a_program_trains_its_parameters(net):
    class Program(nn.Module):
        """A program module whose modes switch, as the pipeline's do."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

        def train(self, mode=True):
            self.training = mode
            return self

    program = Program(as_program(net))
    results = fine_tune(program, some_batches((32, 32)), Recipe(6, lr=0.05)).history
    assert results[-1].loss < results[0].loss
    assert not program.training


def test_zero_epochs_change_nothing(net):
    before = copy.deepcopy(net.state_dict())
    assert fine_tune(net, some_batches(), Recipe(0)).history == []
    assert_same(before, net.state_dict())


def test_a_loss_that_is_not_finite_stops_with_its_place(net):
    calls = []

    def loss(outputs, target):
        calls.append(1)
        return outputs.sum() * (float("nan") if len(calls) == 5 else 0.0)

    recipe = Recipe(3, lr=0.25, precision="fp32")  # of which no step is tried before
    with pytest.raises(CompressorError, match="loss became nan") as caught:
        fine_tune(net, some_batches(), recipe, Objective(loss))
    assert "epoch 2, step 2" in str(caught.value)
    assert "below 0.25" in str(caught.value)
    assert not net.training


def test_fine_tuning_refuses_what_it_cannot_learn_from(net):
    with pytest.raises(CompressorError, match="no labels and there is no original"):
        fine_tune(net, unlabelled(some_batches()), Recipe(1))
    with pytest.raises(CompressorError, match="not one batch"):
        fine_tune(net, [], Recipe(1))
    with pytest.raises(CompressorError, match="loss failed"):
        fine_tune(net, some_batches(), Recipe(1), Objective(lambda outputs, target: 1.0))
    with pytest.raises(CompressorError, match="loss failed"):
        wrong = [(inputs, target + 100) for inputs, target in some_batches()]
        fine_tune(net, wrong, Recipe(1))
    with pytest.raises(CompressorError, match="failed on a batch"):
        fine_tune(net, [((torch.randn(4, 3, 8, 8),) * 2, torch.zeros(4))], Recipe(1))
    with pytest.raises(CompressorError, match="no parameter"):
        fine_tune(nn.ReLU(), some_batches(), Recipe(1))
    with pytest.raises(UsageError, match="learning rate"):
        fine_tune(net, some_batches(), Recipe(1, lr=0.0))


def test_ctrl_c_passes_through(net):
    def interrupt(done, total, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(net, some_batches(), Recipe(1), hooks=Hooks(progress=interrupt))
    assert not net.training
