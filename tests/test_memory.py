"""Choice and repair by data within a bound of memory: what is held, and what it costs."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

from compressor.errors import UsageError
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.least_squares import (
    Memory,
    RowCount,
    Workspace,
    inverses,
    moments,
    reconstruction_scores,
    refit,
)
from compressor.least_squares.at_once import (
    COPIES,
    IN_A_GRADIENT,
    samples_that_fit,
    samples_with_gradients,
)
from compressor.least_squares.consumers import consumers
from compressor.least_squares.drawn_rows import rows_drawn
from compressor.least_squares.elimination import Regression, eliminate
from compressor.least_squares.ledger import rows_of_all
from compressor.least_squares.memory import (
    SKETCHES,
    WEIGHTS,
    Size,
    bytes_to_solve_moments,
    bytes_to_solve_rows,
    columns_to_eliminate,
    columns_to_solve,
    sketched,
)
from compressor.least_squares.moments import Moments
from compressor.least_squares.ridge import BY_MOMENTS, BY_ROWS, form_for
from compressor.least_squares.rows import Rows
from compressor.loading.data import data_of
from compressor.machine import free_bytes
from compressor.options import Options
from compressor.records import ExampleInputs, Trace
from compressor.score.data import CalibrationBatches, WithoutTargets
from compressor.slicing import as_module
from compressor.slicing.program import slice_program


class Held(TorchDispatchMode):
    """Adds up the storages that operators make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@contextmanager
def held() -> Iterator[Held]:
    with Held() as mode:
        yield mode


class Wide(nn.Module):
    """A layer of 1 200 features, 25 columns per channel, that vary together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc, self.out = nn.Conv2d(3, 48, 1), nn.Linear(48 * 25, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc(self.a(x).relu().flatten(1)).relu())


@pytest.fixture(scope="module")
def wide() -> tuple[Trace, Network, list[tuple[Tensor]], str]:
    torch.manual_seed(0)
    found = trace(Wide(), ExampleInputs((torch.rand(2, 3, 5, 5),)))
    network = analyse(found)
    batches = [(torch.rand(16, 3, 5, 5),) for _ in range(96)]
    return found, network, batches, next(g.name for g in network.groups if g.size == 48)


TINY = 10**6
"""The moments of 1 200 features are 11.5 MB."""


def _refitted(wide: Any, total: int) -> tuple[float, float, int, int]:
    """Error of the network before and after, parts, and the most bytes that were held."""
    found, network, batches, name = wide
    masks = network.masks({name: tuple(range(0, 48, 2))})
    program = slice_program(found, network, masks)
    x = torch.cat([x for (x,) in batches[:8]])
    wanted = found.module(x).detach()
    before = float((as_module(program)(x) - wanted).square().mean().detach())
    with held() as mode:
        done = refit(
            found.program,
            program,
            network,
            masks,
            lambda: batches,
            Workspace(memory=Memory.of(total)),
        )
    after = float((as_module(program)(x) - wanted).square().mean().detach())
    return before, after, done[0].parts, mode.most


def test_a_layer_too_large_for_the_memory_is_refitted_part_by_part(wide: Any) -> None:
    before, whole, one, _ = _refitted(wide, 10**9)
    _, parted, several, most = _refitted(wide, TINY)
    assert one == 1 and several > 3
    assert whole < 0.1 * before
    assert before - parted > 0.97 * (before - whole)
    assert most < 1.3 * TINY  # and the values of a batch


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("ridge", [None, 1e-2])
@pytest.mark.parametrize("batches", [(8, 8, 1), (30,)])
def test_rows_and_moments_give_the_same_step(
    centred: bool, ridge: float | None, batches: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    mixing = torch.randn(2, 6, 40, dtype=torch.float64)
    steps = []
    data = [(torch.randn(2, n, 6).double() @ mixing + 3, torch.randn(2, n, 5)) for n in batches]
    for form in (BY_MOMENTS, BY_ROWS):
        gathering = form.gather()
        for features, targets in data:
            gathering.add(features + 0.1 * features.square(), targets.double() + 1)
        step = gathering.step(centred=centred, ridge=ridge)
        assert step is not None and 0 < step.after < 0.999 * step.before
        steps.append(step)
    first, second = steps
    torch.testing.assert_close(first.weight, second.weight, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(first.constant, second.constant, rtol=1e-7, atol=1e-9)
    assert [first.before, first.after] == pytest.approx([second.before, second.after], rel=1e-8)


def test_few_rows_of_many_features_are_solved_at_once_within_the_memory(wide: Any) -> None:
    """Sixty-four rows of 1 200 features fit where their second moments do not; the weights are
    those of ample memory, with moments alone."""
    found, network, batches, name = wide
    masks = network.masks({name: tuple(range(0, 48, 2))})
    weights = []
    for total, given in ((10**9, iter), (4 * TINY, list)):
        program = slice_program(found, network, masks)
        with held() as mode:
            done = refit(
                *(found.program, program, network, masks),
                lambda of=given: of(batches[:4]),
                Workspace(memory=Memory.of(total)),
            )
        assert done[0].parts == 1
        weights.append(program.state_dict["fc.weight"].clone())
    assert mode.most < 4 * TINY  # three matrices of the 600 features left take 8.6 MB
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def test_the_form_is_that_of_least_work_which_fits() -> None:
    size, memory = Size(1, 2000, 10), Memory.of(10**9)
    assert form_for(size, 500, memory) is BY_ROWS
    assert form_for(size, 4000, memory) is BY_MOMENTS
    assert form_for(size, None, memory) is BY_MOMENTS
    assert bytes_to_solve_rows(size, 3000) < bytes_to_solve_moments(Size(1, 20_000, 10))
    assert form_for(Size(1, 20_000, 10), 2000, memory) is BY_ROWS
    assert form_for(Size(1, 20_000, 10), 19_000, memory) is BY_MOMENTS  # in parts
    behind_maps = Size(1, 20_000, 3500)  # of VGG-16
    assert form_for(behind_maps, 43, Memory.of(3 * 10**9)) is BY_ROWS


@pytest.mark.parametrize("centred", [True, False])
def test_rows_and_moments_give_the_same_choice(centred: bool) -> None:
    """Sixty rows of 126 features, of which six are another group's, in two batches."""
    torch.manual_seed(0)
    mixing = torch.randn(126, 126)
    weight = torch.randn(1, 126, 5).double()
    channel = np.random.default_rng(0).permutation([*np.repeat(np.arange(40), 3), *[-1] * 6])
    found = []
    for gathered in (Moments(crosses=False), Rows()):
        torch.manual_seed(1)
        for count in (40, 20):
            gathered.add(torch.randn(1, count, 126) @ mixing + 1, torch.randn(1, count, 5))
        features, shrinkage = gathered.settle(centred=centred)
        by_rows = isinstance(gathered, Rows)
        assert features.shape[1] == (60 if by_rows else 126)
        found.append(eliminate([Regression(features, weight, channel, shrinkage, by_rows)], 40))
    assert list(found[0].order) == list(found[1].order)
    np.testing.assert_allclose(found[0].errors, found[1].errors, rtol=1e-4)


def test_many_features_are_dropped_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is subtracted late, and products that are mirrored, change nothing."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 300, 60), torch.randn(1, 60, 4).double()
    found = []
    for pending, side in ((256, 1024), (7, 16)):
        monkeypatch.setattr(inverses, "PENDING", pending)
        monkeypatch.setattr(moments, "SIDE", side)
        gathered = Moments(crosses=False)
        gathered.add(x, x[:, :, :2])
        features, shrinkage = gathered.settle(centred=True)
        found.append((shrinkage, eliminate([Regression(features, weight, np.arange(60) // 3)], 20)))
    (first, one), (second, two) = found
    torch.testing.assert_close(first, second)
    assert list(one.order) == list(two.order)
    np.testing.assert_allclose(one.errors, two.errors, rtol=1e-6)


@pytest.mark.parametrize("width", [40, 100])
def test_products_that_mirror_others_take_no_memory(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "SIDE", 16)
    gathered = Moments(crosses=False)
    gathered.add(torch.randn(2, 300, width), torch.randn(2, 300, 3))
    panels = [sums for name, sums in gathered.parts.items() if name.startswith("outer")]
    size = Size(2, width, 3)
    assert sum(panel.nbytes for panel in panels) == size.gathered_bytes
    assert size.gathered_bytes < (0.75 if width == 40 else 0.6) * size.moments_bytes(width)


def test_what_one_use_leaves_of_the_memory_is_the_others() -> None:
    memory, size = Memory.of(10**9), Size(1, 500, 100)
    scoring = memory.without_walks()
    assert (scoring.walks, scoring.moments) == (0, memory.moments + memory.walks)
    repair = memory.for_walks([size, Size(1, 20, 10)])
    left = memory.moments + memory.walks - repair.walks
    assert left >= 2 * bytes_to_solve_moments(size) and repair.walks > memory.walks
    assert memory.for_walks([Size(1, 40_000, 4096)]) == memory


def test_rows_are_in_proportion_to_features() -> None:
    memory = Memory.of(10**9)
    drawn = [rows_drawn(10**6, width, 1, 1, memory) for width in (9, 400, 20_000)]
    assert drawn[0] < 0.1 * drawn[1]
    assert drawn[1] == memory.wanted.usual
    assert rows_drawn(10**6, 10_000, 1, 100, memory) * 100 > memory.wanted.usual
    few = Memory.of(10**9, RowCount(usual=1000, per_feature=2))
    assert [rows_drawn(10**6, width, 1, 1, few) for width in (9, 400)] == [1000, 1000]
    assert [rows_drawn(10**6, 10_000, 1, 100, each) for each in (few, memory)] == [200, 400]
    assert drawn[2] == memory.most_rows(20_000) < 20_000


class Large(nn.Module):
    """Few channels in many places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x).relu()).relu().mean((2, 3)))


def test_batches_and_walks_are_as_large_as_the_memory_allows() -> None:
    """The peak of choice and repair follows the memory; what is computed hardly does."""
    torch.manual_seed(0)
    found = trace(Large(), ExampleInputs((torch.rand(2, 3, 64, 64),)))
    network = analyse(found)
    name = next(g.name for g in network.groups if "a.weight" in {m.tensor for m in g.members})
    masks = network.masks({name: tuple(range(0, 16, 2))})
    data = data_of(TensorDataset(torch.rand(32, 3, 64, 64)), "data")
    peaks, weights, sizes = [], [], []
    for memory in ("64M", "512M"):
        options = Options(memory=memory, batch_size=32)
        batches = CalibrationBatches(found, data, options)
        workspace = Workspace(memory=Memory.of(options.memory_bytes))
        program = slice_program(found, network, masks)

        def inputs(of: CalibrationBatches = batches) -> WithoutTargets:
            return WithoutTargets(of.batches())

        with held() as mode:
            reconstruction_scores(found, network, inputs, workspace)
            refit(found.program, program, network, masks, inputs, workspace)
        peaks.append(mode.most)
        sizes.append(batches.size)
        weights.append(program.state_dict["b.weight"].clone())
    assert sizes == [2, 20]
    assert peaks[0] < 0.5 * peaks[1]
    first, second = weights
    assert (first - second).norm() < 0.2 * second.norm()


def test_progress_is_told_from_the_start_as_a_share_of_all_work(wide: Any) -> None:
    found, network, batches, name = wide
    told: list[tuple[int, int, str]] = []
    workspace = Workspace(memory=Memory.of(10**9), progress=lambda *args: told.append(args))
    reconstruction_scores(found, network, lambda: batches, workspace)
    masks = network.masks({name: tuple(range(0, 48, 2))})
    between = len(told)
    program = slice_program(found, network, masks)
    refit(found.program, program, network, masks, lambda: batches, workspace)
    for some in (told[:between], told[between:]):
        done, totals, _ = zip(*some, strict=True)
        assert list(done) == sorted(done)
        assert len(set(totals)) == 1
        assert done[0] == 0 and done[1] < 0.5 * totals[0] and done[-1] > 0.95 * totals[0]


def test_channels_are_chosen_in_parts_within_the_memory(wide: Any) -> None:
    found, network, batches, name = wide
    notes: list[str] = []
    arguments = found, network, lambda: batches
    whole = reconstruction_scores(*arguments, Workspace(memory=Memory.of(10**9)))[name]
    with held() as mode:
        small = Workspace(memory=Memory.of(TINY), note=notes.append)
        parted = reconstruction_scores(*arguments, small)[name]
    assert "in parts (--memory)" in notes[0]
    assert np.corrcoef(np.argsort(np.argsort(whole)), np.argsort(np.argsort(parted)))[0, 1] > 0.3
    assert mode.most < 6e6  # the moments of all features together are 11.5 MB


@pytest.mark.parametrize("total", [10**7, 10**9])
def test_parts_are_as_large_as_the_memory_allows(total: int) -> None:
    memory = Memory.of(total)
    assert memory.moments + memory.walks + memory.rows < total
    columns = columns_to_solve(memory, 2, 50)
    needs = [8 * 2 * (3 * b**2 + 3 * b * 50) for b in (columns, columns + 1)]
    assert needs[0] <= memory.moments < needs[1]
    sizes = [Size(1, 40_000, 4096), Size(4, 900, 16)]
    assert columns_to_eliminate(sizes, memory) < columns_to_eliminate(sizes[1:], memory) <= 900


def test_the_bound_is_an_option() -> None:
    assert Options(memory="1.5G").memory_bytes == 1_500_000_000
    assert Options().memory_bytes is None
    whole = Memory.of(None)
    assert whole.moments + whole.walks + whole.rows + whole.values <= 3 * 10**9
    assert free_bytes() > 10**6
    for wrong in ("much", "1000"):
        with pytest.raises(UsageError, match="memory"):
            Options(memory=wrong)


@pytest.mark.parametrize("width", [4, 60, 64, 128])
def test_values_of_any_size_are_counted(width: int) -> None:
    # beyond half of the number that stands for the batch, a product was taken for another one
    x = torch.zeros(2, 3, 128, 128)
    program = trace(nn.Conv2d(3, width, 3, padding=1), ExampleInputs((x,))).program
    one = 4 * width * 128**2
    for fit in (0, 1, 3):
        assert samples_with_gradients(program, fit * IN_A_GRADIENT * one) == fit
    assert samples_that_fit(program, 5 * COPIES * one) == 5


def test_positions_of_large_maps_are_counted() -> None:
    traced = trace(nn.Conv2d(3, 4, 3, padding=1), ExampleInputs((torch.zeros(2, 3, 900, 700),)))
    network = analyse(traced)
    (consumer,) = consumers(traced.program, network.aliases)
    size = Size(1, 27, 4)
    rows = rows_of_all(network, consumer, size, 2, 3, Memory.of(10**9))
    assert rows == 3 * rows_drawn(2 * 900 * 700, 27, 1, 3, Memory.of(10**9)) > 0


def test_the_weights_of_many_consumers_leave_room_for_moments() -> None:
    memory = Memory(10**9, 0, 0, 0)
    few = [Size(1, 1024, 2048), Size(1, 1024, 100)]
    assert sketched(few, memory) == few
    wide = Size(1, 1024, 100_000)
    assert [size.sketch for size in sketched([wide, few[1]], memory)] == [SKETCHES[0], None]
    many = sketched([Size(1, 1024, 2048)] * 150, memory)
    assert sum(size.weight_bytes for size in many) <= WEIGHTS * memory.moments
    assert columns_to_eliminate(many, memory) > 300


def test_a_choice_by_random_combinations_is_near_that_by_all_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 300))
    with torch.no_grad():
        model[2].weight *= torch.randn(32).exp()  # channels differ, as those of trained networks
    traced = trace(model, ExampleInputs((torch.randn(2, 12),)))
    network, batches = analyse(traced), [(torch.randn(64, 12),) for _ in range(8)]
    (whole,) = reconstruction_scores(traced, network, lambda: batches).values()
    monkeypatch.setattr("compressor.least_squares.memory.WEIGHTS", 0.0)
    monkeypatch.setattr("compressor.least_squares.memory.SKETCHES", (64,))
    (by_some,) = reconstruction_scores(traced, network, lambda: batches).values()
    assert not np.allclose(whole, by_some)
    assert spearmanr(whole, by_some).statistic > 0.9
