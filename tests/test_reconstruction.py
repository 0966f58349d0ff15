"""Choice and repair by least squares: against textbook formulas, and on networks whose dropped
channels the others can make up for exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, multiprocessing, nn
from torch.fx import Node

from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.least_squares import Memory, Workspace, reconstruction_scores, refit, salience
from compressor.least_squares.chain import Chain
from compressor.least_squares.consumers import consumers
from compressor.least_squares.drawn_rows import in_blocks
from compressor.least_squares.elimination import Regression, eliminate
from compressor.least_squares.layouts import LAYOUTS, Layout, blocks_of, row_count
from compressor.least_squares.moments import Moments
from compressor.least_squares.walk import Script, Walk, arguments_at
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module
from compressor.slicing.program import slice_program

Batches = list[tuple[Tensor]]


def traced(model: nn.Module, *shape: int) -> tuple[Trace, Network, Batches]:
    torch.manual_seed(1)
    found = trace(model.eval(), ExampleInputs((torch.randn(2, *shape),)))
    return found, analyse(found), [(torch.randn(16, *shape),) for _ in range(3)]


# -- elimination -----------------------------------------------------------------------------------


def loss_without(x: Tensor, y: Tensor, dropped: list[int]) -> float:
    """What a least-squares fit on the other columns leaves, as a mean over rows."""
    left = x[:, [i for i in range(x.shape[1]) if i not in dropped]]
    fitted = left @ torch.linalg.lstsq(left, y).solution
    return float((y - fitted).square().sum() / len(x))


def test_eliminating_costs_what_a_new_fit_leaves() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 8, dtype=torch.float64) @ torch.randn(8, 8, dtype=torch.float64)
    weight = torch.randn(8, 3, dtype=torch.float64)
    channel = np.repeat(np.arange(4), 2)
    found = eliminate([Regression((x.T @ x / 400)[None], weight[None], channel)], 4)
    gone: list[int] = []
    for step, (j, added) in enumerate(zip(found.order, found.errors, strict=True)):
        costs = {
            k: loss_without(x, x @ weight, [*gone, *np.flatnonzero(channel == k)])
            for k in set(range(4)) - set(found.order[:step])
        }
        assert j == min(costs, key=costs.__getitem__)
        before = loss_without(x, x @ weight, gone) if gone else 0.0
        assert added == pytest.approx(costs[j] - before, rel=0.01, abs=1e-3)
        gone += [int(i) for i in np.flatnonzero(channel == j)]


def test_several_consumers_add_up_and_other_groups_stay() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 6, dtype=torch.float64)
    moments = (x.T @ x / 300)[None]
    first, second = torch.zeros(1, 6, 2).double(), torch.zeros(1, 6, 2).double()
    first[0, :3] = torch.tensor([[3.0], [1.0], [0.5]])
    second[0, 3:] = torch.tensor([[0.1], [4.0], [0.2]])
    one = Regression(moments, first, np.array([0, 1, 2, -1, -1, -1]))
    two = Regression(moments, second, np.array([-1, -1, -1, 0, 1, 2]))
    assert list(eliminate([one, two], 3).order) == [2, 0, 1]


def test_few_samples_shrink_more_and_independent_ones_by_the_textbook() -> None:
    """Against the formula of Ledoit and Wolf with half batches as samples, and in the limit."""
    torch.manual_seed(0)
    mixing = torch.randn(6, 6)
    found = []
    for count in (2, 8, 64):
        moments, squares = Moments(), []
        for _ in range(count):
            x = torch.randn(10, 6) @ mixing
            moments.add(x[None], torch.zeros(1, 10, 1))
            squares += [(h.T @ h / 5).double() for h in x.split(5)]
        whole = torch.stack(squares).mean(0)
        apart = sum(float((s - whole).square().sum()) for s in squares)
        noise = apart / len(squares) / (len(squares) - 1)
        target = whole.diagonal().mean() * torch.eye(6)
        share = noise / float((whole - target).square().sum())
        (got,) = moments.settle(centred=False)[1]
        assert float(got) == pytest.approx(share / (1 - share), rel=1e-3)
        found.append(float(got))
    assert found[0] > found[1] > found[2] < 0.05


def test_a_choice_from_few_samples_does_not_take_memory_for_redundancy() -> None:
    """Four samples can be told apart by any four features: that says nothing of the others."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(12, 32), nn.Linear(32, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu())

    found, network, _ = traced(Wide(), 12)
    name = next(g.name for g in network.groups if g.size == 32)
    few = [(torch.randn(4, 12),)]
    scores = np.sort(reconstruction_scores(found, network, lambda: few)[name])
    assert scores[:24].sum() > 0.2 * scores.sum()


def test_a_large_group_takes_a_bounded_number_of_steps() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 40, dtype=torch.float64)
    regression = Regression((x.T @ x / 500)[None], torch.randn(1, 40, 5).double(), np.arange(40))
    exact, fast = eliminate([regression], 40), eliminate([regression], 40, steps=5)
    assert sorted(fast.order) == list(range(40))
    assert fast.errors.sum() == pytest.approx(exact.errors.sum(), rel=1e-6)
    assert len(set(exact.order[:20]) & set(fast.order[:20])) >= 17


def test_scores_keep_the_order_and_never_fall() -> None:
    torch.manual_seed(0)
    x = torch.randn(100, 10, dtype=torch.float64)
    regression = Regression((x.T @ x / 100)[None], torch.ones(1, 10, 1).double(), np.arange(10))
    found = eliminate([regression], 10)
    scores = found.scores()
    assert list(np.argsort(scores)) == list(found.order)
    assert (np.diff(np.sort(scores)) > 0).all()


# -- operators as regressions ----------------------------------------------------------------------

CONVOLUTIONS = [
    (F.conv1d, (2, 4, 9), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    (F.conv2d, (2, 4, 7, 8), (6, 4, 3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    (F.conv2d, (2, 4, 9, 9), (6, 4, 3, 3), {"dilation": 2, "padding": 2}),
    (F.conv2d, (2, 4, 8, 8), (6, 2, 2, 3), {"padding": "same", "groups": 2}),
    (F.conv3d, (2, 4, 5, 5, 5), (3, 4, 2, 2, 2), {"padding": 1}),
    (F.conv_transpose1d, (2, 4, 6), (4, 3, 3), {"stride": 2, "padding": 1}),
    (
        F.conv_transpose2d,
        (2, 4, 5, 5),
        (4, 3, 3, 3),
        {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
    ),
    (F.conv_transpose2d, (2, 4, 5, 5), (4, 3, 3, 2), {"dilation": (1, 2)}),
    (F.conv_transpose3d, (2, 2, 3, 3, 3), (2, 3, 2, 2, 2), {"stride": 2}),
]


class Calls(nn.Module):
    def __init__(self, call: Callable[..., Tensor], shape: tuple[int, ...], options: dict) -> None:
        super().__init__()
        self.weight, self.call, self.options = nn.Parameter(torch.randn(shape)), call, options

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.weight, **self.options)


def assert_is_regression(model: nn.Module, x: Tensor) -> None:
    """features @ matrix is the operator's output, row by row, and the matrix is the weight."""
    found = trace(model.eval(), ExampleInputs((x,)))
    (consumer,) = consumers(found.program, {})
    layout: Layout = consumer.layout
    script = Script(found.program)
    walk = script.start((x,))
    walk.advance(consumer.node)
    node = next(n for n in script.nodes if n.name == consumer.node)
    output = next(v for n, v in walk.ahead(consumer.node).values.items() if n is node)
    arguments = arguments_at(walk, node)
    blocks = blocks_of(arguments)
    rows = torch.randperm(row_count(output, layout))[:20]
    weight = arguments[layout.weight]
    matrix = layout.matrix(weight, blocks)
    bias = arguments.get(layout.bias) if layout.bias else None
    expected = in_blocks(layout.outputs(output, rows), blocks)
    computed = layout.features(arguments, rows) @ matrix
    if bias is not None:
        computed = computed + in_blocks(bias.expand(len(rows), -1), blocks)
    torch.testing.assert_close(computed, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layout.tensor(matrix, weight.shape), weight)


@pytest.mark.parametrize(("call", "x", "weight", "options"), CONVOLUTIONS)
def test_a_convolution_is_a_regression(
    call: Callable[..., Tensor], x: tuple[int, ...], weight: tuple[int, ...], options: dict
) -> None:
    torch.manual_seed(0)
    assert_is_regression(Calls(call, weight, options), torch.randn(x))


@pytest.mark.parametrize(
    "call",
    [lambda x, w: x @ w, lambda x, w: torch.mm(x.reshape(-1, 5), w)],
)
def test_a_product_is_a_regression(call: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    assert_is_regression(Calls(call, (5, 3), {}), torch.randn(4, 6, 5))


def test_a_product_with_a_bias_is_a_regression() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 3))
            self.bias = nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x.reshape(-1, 5), self.weight)

    assert_is_regression(Added(), torch.randn(4, 6, 5))


def test_a_linear_layer_is_a_regression() -> None:
    assert_is_regression(nn.Linear(5, 3), torch.randn(4, 6, 5))


def test_every_layout_is_of_an_operator_with_these_arguments() -> None:
    for name, layout in LAYOUTS.items():
        packet, overload = name.split(".")
        schema = getattr(getattr(torch.ops.aten, packet), overload)._schema
        names = {a.name for a in schema.arguments}
        assert {layout.input, layout.weight} <= names
        assert not layout.bias or layout.bias in names


# -- chains ----------------------------------------------------------------------------------------


class Moved(nn.Module):
    """A projection whose output is scaled, normalised and moved before it joins a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.scale, self.inner = nn.Parameter(torch.rand(6, 1, 1) + 0.5), nn.Conv2d(6, 4, 1)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(self.inner(x))) * self.scale
        return y.flatten(2).permute(0, 2, 1) + x.flatten(2).permute(0, 2, 1).sin()


def test_a_wanted_change_of_the_sum_is_pulled_back_to_the_layer() -> None:
    found, _, _ = traced(Moved(), 6, 5, 5)
    consumer = next(c for c in consumers(found.program, {}) if c.tensor == "conv.weight")
    assert len(consumer.chain) >= 3
    assert consumer.constant == "conv.bias"
    script = Script(found.program)
    (x,) = found.examples.args
    walk = script.start((x,))
    walk.advance(consumer.node)
    nodes = script.named
    ahead = walk.ahead(consumer.target)
    change = torch.randn_like(ahead.values[nodes[consumer.target]])
    pulled = Chain(script, consumer).pull(ahead, change)
    moved = found.module
    handle = moved.conv.register_forward_hook(lambda _m, _i, y: y + pulled)
    with torch.no_grad():
        after = moved(x)
    handle.remove()
    torch.testing.assert_close(after - moved(x), change, rtol=1e-4, atol=1e-4)


def test_a_constant_goes_into_the_running_mean_where_there_is_no_bias() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=False))
    bare, _, _ = traced(model, 3, 4, 4)
    normed, _, _ = traced(nn.Sequential(*model, nn.BatchNorm2d(4)), 3, 4, 4)
    assert consumers(bare.program, {})[-1].constant == ""
    last = consumers(normed.program, {})[-1]
    assert (last.constant, last.sign) == ("3.running_mean", -1)


class Constants(nn.Module):
    """Constants that are added apart: one per channel, and others."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.out = nn.ConvTranspose2d(3, 6, 2, bias=False), nn.Linear(6, 4, bias=False)
        self.image, self.row = nn.Parameter(torch.randn(6, 1, 1)), nn.Parameter(torch.randn(4))
        self.places = nn.Parameter(torch.randn(6, 5, 5))
        self.last = nn.Conv2d(6, 6, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (self.up(x) + self.image).relu()
        return self.row + self.out(x.mean((2, 3))), self.last(x) + self.places


def test_a_constant_goes_into_what_is_added_per_channel() -> None:
    model, _, _ = traced(Constants(), 3, 4, 4)
    found = {each.tensor: (each.constant, each.sign) for each in consumers(model.program, {})}
    assert found == {"up.weight": ("image", 1), "out.weight": ("row", 1), "last.weight": ("", 1)}


# -- repair ----------------------------------------------------------------------------------------


class Residual(nn.Module):
    """In-place operators, batch norm behind the consumer, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 5, 3), nn.Linear(5, 4)
        self.a, self.b = nn.Conv2d(5, 8, 3, padding=2), nn.Conv2d(8, 5, 3, bias=False)
        self.norm = nn.BatchNorm2d(5)
        nn.init.uniform_(self.norm.weight, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        inner = self.a(x).relu_()
        y = self.norm(self.b(inner))
        y += x
        return self.out(y.relu_().mean((2, 3)))


class Grouped(nn.Module):
    """Two groups of channels whose members repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 3, groups=2)
        self.out = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x).relu()))


class Upsampling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 3, stride=2)
        self.out = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x).relu()))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.gelu(self.a(x)))


class Apart(nn.Module):
    """A constant per channel is added apart, as in ONNX files."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 3, bias=False)
        self.added, self.out = nn.Parameter(torch.randn(5, 1, 1)), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.b(self.a(x).tanh()) + self.added).tanh().mean((2, 3)))


SHAPES: dict[type[nn.Module], tuple[int, ...]] = {
    Residual: (3, 8, 8),
    Upsampling: (3, 6, 6),
    Mlp: (7, 6),
}


def with_redundant_channels(model: nn.Module) -> nn.Module:
    """Channels 5 and 6 of layer `a` repeat 0 and 1; channel 7 is a constant (where zeros between
    inputs would make it another thing at other places: nothing)."""
    with torch.no_grad():
        for to, source in ((5, 0), (6, 1)):
            model.a.weight[to] = model.a.weight[source]
            model.a.bias[to] = model.a.bias[source]
        model.a.weight[7] = 0
        model.a.bias[7] = -1.0 if isinstance(model, Upsampling) else 1.5
    return model


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)
def test_what_others_can_make_up_for_is_chosen_and_made_up_for(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    found, network, batches = traced(with_redundant_channels(kind()), *SHAPES[kind])
    scores = reconstruction_scores(found, network, lambda: batches)
    name = next(g.name for g in network.groups if g.members[0].tensor == "a.weight")
    cheapest = set(np.argsort(scores[name])[:3].tolist())
    assert cheapest in [{7, x, y} for x, y in itertools.product((0, 5), (1, 6))]
    keep = tuple(i for i in range(8) if i not in cheapest)
    masks = network.masks({name: keep})
    program = slice_program(found, network, masks)
    x = torch.randn(5, *SHAPES[kind])
    expected = found.module(x)
    before = (as_module(program)(x) - expected).abs().max()
    refit(found.program, program, network, masks, lambda: batches, ridge=1e-10)
    after = (as_module(program)(x) - expected).abs().max()
    assert before > 0.05
    assert after < 2e-3 * before


def test_what_a_constant_channel_gave_goes_into_what_is_added_apart() -> None:
    torch.manual_seed(0)
    model = Apart()
    with torch.no_grad():
        model.a.weight[7], model.a.bias[7] = 0, 1.5
    found, network, batches = traced(model, 3, 8, 8)
    name = next(g.name for g in network.groups if g.members[0].tensor == "a.weight")
    masks = network.masks({name: tuple(range(7))})
    program = slice_program(found, network, masks)
    x = torch.randn(5, 3, 8, 8)
    before = (as_module(program)(x) - found.module(x)).abs().max()
    refit(found.program, program, network, masks, lambda: batches, ridge=1e-10)
    assert before > 0.02
    assert (as_module(program)(x) - found.module(x)).abs().max() < 1e-4 * before


def test_grouped_convolutions_are_refitted_block_by_block() -> None:
    torch.manual_seed(0)
    model = Grouped()
    with torch.no_grad():  # channel 3 of each block repeats channel 0 of the same block
        for to, source in ((3, 0), (7, 4)):
            model.a.weight[to] = model.a.weight[source]
            model.a.bias[to] = model.a.bias[source]
    found, network, batches = traced(model, 3, 6, 6)
    (group,) = [g for g in network.groups if g.size == 4]
    masks = network.masks({group.name: (0, 1, 2)})
    program = slice_program(found, network, masks)
    x = torch.randn(5, 3, 6, 6)
    before = (as_module(program)(x) - found.module(x)).abs().max()
    done = refit(found.program, program, network, masks, lambda: batches, ridge=1e-10)
    assert [r.consumers for r in done] == [("b.weight",), ("out.weight",)]
    assert (as_module(program)(x) - found.module(x)).abs().max() < 2e-3 * before


class Forked(nn.Module):
    """The branch `beside` is not given what the cut of `a` changes; `out` is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.beside, self.out = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.out((x + self.b(self.a(x).relu())).relu()) + self.beside(x)[:, :4]


def test_what_is_given_a_change_is_refitted_and_nothing_else() -> None:
    found, network, batches = traced(Forked(), 5)
    name = next(g.name for g in network.groups if g.size == 8)
    masks = network.masks({name: tuple(range(5))})
    program = slice_program(found, network, masks)
    done = refit(found.program, program, network, masks, lambda: batches)
    assert [r.consumers for r in done] == [("b.weight",), ("out.weight",)]
    assert done[1].after < done[1].before


# -- what errors do to the outputs -----------------------------------------------------------------


def test_salience_is_the_mean_square_of_the_jacobian() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu_().mean((2, 3)))

    torch.manual_seed(0)
    model = Two()
    found, _, _ = traced(model, 2, 4, 4)
    script, first = Script(found.program), consumers(found.program, {})[0]
    batches = [(torch.randn(8, 2, 4, 4),) for _ in range(8)]
    draws = [
        salience.salience(script, [first], batches, at_once=8, seed=seed)[first.node]
        for seed in range(12)
    ]
    expected = torch.stack([by_jacobian(model, x) for (x,) in batches]).mean(0)
    torch.testing.assert_close(torch.stack(draws).mean(0), expected, rtol=0.15, atol=0)


def by_jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """Of `b(mean(relu(a(x))))`, per channel of `a`, from the formula."""
    spread = model(x).std(correction=0).double()
    live = (model.a(x) > 0).double().mean((0, 2, 3))
    positions = x[0, 0].numel()
    return live * model.b.weight.double().square().sum(0) / positions**2 / spread**2


def test_the_salient_outputs_decide_which_channels_go() -> None:
    class Ends(nn.Module):
        """`b` makes two columns of which `c` nearly ignores the second."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x).relu()).tanh())

    torch.manual_seed(0)
    model = Ends()
    with torch.no_grad():
        model.b.weight.zero_()
        model.b.weight[0, :3] = 0.2  # smaller, but seen
        model.b.weight[1, 3:] = 0.3
        model.c.weight[:, 0], model.c.weight[:, 1] = 1.0, 1e-3
    weights = model.b.weight.detach().abs().sum(0)
    found, network, batches = traced(model, 6)
    name = next(g.name for g in network.groups if g.size == 6)
    scores = reconstruction_scores(found, network, lambda: batches)[name]
    assert scores[:3].min() > scores[3:].max()
    assert weights[:3].max() < weights[3:].min()


def test_walks_that_start_anew_give_the_same() -> None:
    """Memory bounds what is held, never what is computed."""
    weights = []
    plenty = Memory.of(10**9)
    for memory in (plenty, replace(plenty, walks=0)):
        torch.manual_seed(0)
        found, network, batches = traced(Residual(), 3, 8, 8)
        keep = {g.name: tuple(range(g.size - 2)) for g in network.groups}
        masks = network.masks(keep)
        program = slice_program(found, network, masks)
        done = refit(
            found.program, program, network, masks, lambda b=batches: b, Workspace(memory=memory)
        )
        assert len(done) > 1
        assert all(r.after <= r.before for r in done)
        weights.append({k: v.clone() for k, v in program.state_dict.items()})
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_what_was_looked_ahead_at_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    found, _, ((x,), *_) = traced(nn.Sequential(*layers), 6)
    script, computed = Script(found.program), list[str]()
    compute = Walk.compute

    def counting(walk: Walk, node: Node) -> object:
        computed.append(node.name)
        return compute(walk, node)

    monkeypatch.setattr(Walk, "compute", counting)
    walk, last = script.start((x,)), script.nodes[-2].name
    middle = script.nodes[len(script.nodes) - 4].name
    ahead = [walk.ahead(name, remember=True).values for name in (middle, last)]
    assert len(computed) == len(set(computed))
    (output,) = walk.outputs()
    assert len(computed) == len(set(computed))
    assert output is ahead[1][script.nodes[-2]]
    with torch.no_grad():
        torch.testing.assert_close(output, found.module(x))
    computed.clear()
    other = script.start((x,))
    other.ahead(last)
    other.outputs()
    assert len(computed) == 2 * len(set(computed))  # tensors may have changed


def test_a_look_ahead_changes_nothing_where_values_are_written_to() -> None:
    found, _, ((x,), *_) = traced(Residual(), 3, 8, 8)
    script = Script(found.program)
    walk = script.start((x,))
    for node in script.nodes[walk.position : -1]:
        walk.ahead(node.name, remember=True)
    with torch.no_grad():
        torch.testing.assert_close(walk.outputs()[0], found.module(x))


def test_a_weight_that_is_used_twice_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                x = self.b(self.a(x).relu())
            return x

    found, network, batches = traced(Twice(), 6)
    (name,) = [g.name for g in network.groups if g.size == 8]
    scores = reconstruction_scores(found, network, lambda: batches)
    assert np.isfinite(scores[name]).all()
    masks = network.masks({name: tuple(range(6))})
    program = slice_program(found, network, masks)
    assert refit(found.program, program, network, masks, lambda: batches) == []


def test_every_group_is_scored_even_without_a_regression() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.out = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.lstm(x)[0])

    found, network, batches = traced(Recurrent(), 5, 4)
    scores = reconstruction_scores(found, network, lambda: batches)
    assert set(scores) == {group.name for group in network.groups}
    assert all(np.isfinite(s).all() and (s > 0).any() for s in scores.values())


# -- several processes -----------------------------------------------------------------------------


def chosen_and_repaired(numbers: list[int]) -> tuple[np.ndarray, Tensor]:
    """Scores of a group and a re-fitted weight, from some of three batches."""
    torch.manual_seed(0)
    found, network, batches = traced(with_redundant_channels(Mlp()), 7, 6)
    name = next(g.name for g in network.groups if g.size == 8)
    some = [batches[number] for number in numbers]
    scores = reconstruction_scores(found, network, lambda: some)[name]
    masks = network.masks({name: (0, 1, 2, 3, 4)})
    program = slice_program(found, network, masks)
    refit(found.program, program, network, masks, lambda: some)
    return scores, program.state_dict["b.weight"]


def in_a_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(chosen_and_repaired([[], [0, 1, 2]][rank]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_agree_with_one_that_sees_all(tmp_path: Path) -> None:
    multiprocessing.spawn(in_a_process, (str(tmp_path),), nprocs=2)
    scores, weight = chosen_and_repaired([0, 1, 2])
    for rank in range(2):
        own_scores, own_weight = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        np.testing.assert_allclose(own_scores, scores, rtol=1e-6)
        torch.testing.assert_close(own_weight, weight)
    _, other = chosen_and_repaired([0])
    assert (other - weight).abs().max() > 1e-4
