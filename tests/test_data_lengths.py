"""Samples of different lengths: filled up under a mask, else in batches of one length each."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import compressor
from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.loading.data import Binding, Data, Forward, batches, check_labels, data_of, hold_out
from compressor.loading.other_sizes import find_traced
from compressor.options import Options
from compressor.recover import top1
from compressor.run.opening import open_network
from compressor.run.subject import Subject
from compressor.score.data import CalibrationBatches
from compressor.watch import Silent, Stopwatch


class Masked(nn.Module):
    """The mean over the positions that there are, (N, L) -> (N, 3)."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        present = attention_mask[..., None].float()
        y = torch.relu(self.head(self.table(input_ids))) * present
        return self.last(y.sum(1) / present.sum(1))


class Steps(nn.Module):
    """The last state of an LSTM, (N, L, 4) -> (N, 2)."""

    def __init__(self, fixed=False):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 24, batch_first=True), nn.Linear(24, 2)
        self.places, self.fixed = nn.Parameter(torch.randn(9, 4)), fixed

    def forward(self, x):
        if self.fixed:  # in what is captured, the length is a number
            x = x + self.places[: x.shape[1]]
        return self.head(self.lstm(x)[0][:, -1])


LENGTHS = [3, 5, 4, 5, 3, 6, 5, 3, 5, 4]
STEPS = [(torch.full((n, 4), float(i)), i % 2) for i, n in enumerate(LENGTHS)]
TOKENS = [
    {"input_ids": [i + 1] * n, "attention_mask": [1] * n, "labels": i % 3}
    for i, n in enumerate(LENGTHS)
]


def bound(samples, module) -> Data:
    return data_of(samples, "own").bind(Binding(Forward.of(module)))


def pieces(source) -> list[tuple[int, ...]]:
    """The numbers of the samples in each batch of STEPS."""
    return [tuple(int(x[0, 0]) for x in call.args[0]) for call, _ in source]


def test_batches_have_one_shape_each_and_every_sample_is_in_one():
    data = bound(STEPS, Steps())
    assert data.is_ragged
    source = batches(data, 3, seed=1)
    first, second = pieces(source), pieces(source)
    assert len(source) == len(first) == len(second) == 5  # 3, 4, 5 + 1, 6
    for batch in first:
        assert len({LENGTHS[i] for i in batch}) == 1
    assert sorted(i for batch in first for i in batch) == list(range(10))
    assert first != second and pieces(batches(data, 3, seed=1)) == first
    rest, held = hold_out(data, 0.3)
    assert Counter(i for part in (rest, held) for b in pieces(batches(part, 4)) for i in b) == (
        Counter(range(10))
    )


def test_where_single_samples_are_left_out_pairs_stay_and_fixed_batches_are_whole():
    data = bound(STEPS, Steps())
    assert sorted(map(len, pieces(batches(data, 3, drop_last=True)))) == [2, 3, 3]
    fixed = batches(data, 3, is_static=True)
    assert list(map(len, pieces(fixed))) == [3, 3] and fixed.samples == 6
    check_labels(data, 2)
    with pytest.raises(CompressorError, match="label of sample 1 is 1"):
        check_labels(data, 1)


@pytest.mark.parametrize("given", ["mask", "no mask"])
def test_samples_are_filled_up_as_the_mask_says(given):
    samples = [{k: v for k, v in t.items() if given == "mask" or "mask" not in k} for t in TOKENS]
    module = Masked().eval()
    data = bound(samples, module)
    longest = data.longest_sample
    assert longest.kwargs["input_ids"].tolist() == [[6] * 6]
    data = data.bind(Binding(Forward.of(module), longest))
    call, target = data.fetch(range(10))
    assert call.kwargs["input_ids"].shape == (10, 6) and target.tolist() == [0, 1, 2] * 3 + [0]
    assert call.kwargs["attention_mask"].sum(1).tolist() == LENGTHS
    alone = [torch.tensor(t["input_ids"])[None] for t in TOKENS]
    wanted = torch.cat([module(ids, torch.ones_like(ids)) for ids in alone])
    torch.testing.assert_close(call.to(module), wanted)
    short = {name: x[:, :5] for name, x in longest.kwargs.items()}
    with pytest.raises(CompressorError, match="the length 6, and the network is traced with 5"):
        data.bind(Binding(Forward.of(module), Call((), short))).fetch([5])


def test_classes_of_positions_are_filled_up_by_what_counts_in_nothing():
    samples = [{**t, "labels": torch.ones(len(t["input_ids"])).long()} for t in TOKENS]
    module = Masked()
    data = bound(samples, module)
    data = data.bind(Binding(Forward.of(module), data.longest_sample))
    target = data.fetch([0, 5]).target
    assert target.tolist() == [[1, 1, 1, -100, -100, -100], [1] * 6]
    check_labels(data, 2)
    scores = torch.zeros(2, 2, 6)
    scores[0, 1, :2] = scores[1, 1] = 1
    assert top1(scores, target) == pytest.approx(8 / 9)
    real = [{**t, "labels": torch.ones(len(t["input_ids"]))} for t in TOKENS]
    assert bound(real, module).is_ragged  # real numbers cannot be marked


class OwnMask(nn.Module):
    def forward(self, x, mask):
        return x


class TorchMask(nn.Module):
    def forward(self, x, src_key_padding_mask):
        return x


class OtherMask(nn.Module):
    def forward(self, x, attention_mask):
        return x


@pytest.mark.parametrize(
    ("kind", "there", "absent"),
    [(OwnMask, True, False), (TorchMask, False, True), (OtherMask, True, False)],
)
def test_a_mask_of_the_samples_own_says_what_is_absent(kind, there, absent):
    samples = [(torch.ones(n), torch.full((n,), there)) for n in (2, 3)]
    data = bound([(both, 0) for both in samples], kind())
    data = data.bind(Binding(Forward.of(kind()), data.longest_sample))
    assert data.fetch([0, 1]).inputs.args[1].tolist() == [[there, there, absent], [there] * 3]


def test_a_network_of_any_length_takes_them_and_one_of_a_fixed_length_is_refused():
    samples = [(torch.randn(3 + i % 3, 4), i % 2) for i in range(40)]
    options = Options(ratio=0.3)
    stopwatch = Stopwatch(Silent())
    opened = open_network(Subject(Steps(), data=samples), options, stopwatch)
    assert any("batches are of one shape each" in note for note in stopwatch.notes)
    assert opened.options.criterion == "reconstruction"
    assert CalibrationBatches(opened.trace, opened.samples.train, options).samples == 36
    assert find_traced(opened.samples.test, opened.trace, 3).samples == 3
    with pytest.raises(CompressorError, match="its sizes are fixed: pad or cut the samples"):
        open_network(Subject(Steps(fixed=True), data=samples), options, stopwatch)


@pytest.mark.slow
def test_a_network_is_repaired_and_trained_on_samples_of_different_lengths():
    samples = [(torch.randn(3 + i % 3, 4), i % 2) for i in range(40)]
    options = {"ratio": 0.3, "format": ("pt2",), "epochs": 1, "batch_size": 8}
    result = compressor.compress(Steps(), data=samples, **options)
    assert result.module(torch.randn(2, 9, 4)).shape == (2, 2)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(STEPS)


def collate(samples):
    xs, ys = zip(*samples, strict=True)
    return {"x": nn.utils.rnn.pad_sequence(xs, batch_first=True), "labels": torch.tensor(ys)}


@pytest.mark.parametrize(
    "given",
    [
        DataLoader(STEPS, batch_size=4, collate_fn=collate),
        DataLoader(Stream(), batch_size=4, collate_fn=collate),
        DataLoader([(x[None], torch.tensor([y])) for x, y in STEPS], batch_size=None),
        Stream(),
        iter(STEPS),
        {"x": [x for x, _ in STEPS], "y": [y for _, y in STEPS]},
    ],
)
def test_loaders_and_streams_are_data(given):
    data = bound(given, Steps())
    assert (len(data), data.is_ragged, data.labelled) == (10, True, True)
    call, target = data.fetch([5])
    assert call.leaves[0].tolist() == [[[5.0] * 4] * 6] and target.tolist() == [1]


def test_endless_streams_are_read_in_part_and_bad_ones_are_clear_errors():
    def endless():
        while True:
            yield torch.zeros(2)

    data = data_of(endless(), "own.py:endless")
    assert len(data) == 4096 and "first 4,096 samples" in data.notes[0]

    def broken():
        raise OSError("disk gone")
        yield

    with pytest.raises(CompressorError, match="OSError: disk gone"):
        data_of(broken(), "own")


def test_dicts_within_dicts_are_samples_and_columns():
    class Net(nn.Module):
        def forward(self, text):
            return text["ids"]

    columns = {"text": {"ids": [[1, 2], [3, 4]], "mask": [[1, 1], [1, 0]]}, "label": [0, 1]}
    rows = [{"text": {"ids": [3, 4], "mask": [1, 0]}, "label": 1}]
    for given, index in ((columns, 1), (rows, 0)):
        call, target = bound(given, Net()).fetch([index])
        assert {name: x.tolist() for name, x in call.kwargs["text"].items()} == {
            "ids": [[3, 4]],
            "mask": [[1, 0]],
        }
        assert target.tolist() == [1]
