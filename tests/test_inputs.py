"""A sample's inputs reach the network by name or by position, whatever it was traced with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import compress
from torch import Tensor, nn

from compressor.calls import Call
from compressor.errors import CompressorError, UsageError
from compressor.loading.data import Binding, Forward
from compressor.loading.data.dataset import Data
from compressor.options import Options
from compressor.run.decide import plan
from compressor.run.subject import Subject
from compressor.watch import Silent


class Reader(nn.Module):
    """Takes tokens and a mask by name, as models of language do."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(20, 8), nn.Linear(8, 12)
        self.out = nn.Linear(12, 3)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        kinds: Any = None,
        labels: Any = None,
        **others: Any,
    ) -> Tensor:
        assert kinds is None and labels is None and not others
        x = self.inner(self.table(ids)).relu()
        kept = torch.ones_like(ids) if mask is None else mask
        return self.out((x * kept.unsqueeze(-1)).mean(1))


class Keyed(nn.Module):
    """Takes one dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, parts: dict[str, Tensor]) -> Tensor:
        return self.out(self.a(torch.cat([parts["left"], parts["right"]], 1)).relu())


IDS, MASK = torch.arange(5), torch.tensor([1, 1, 1, 0, 0])
BY_NAME = Call((), {"ids": IDS[None], "mask": MASK[None]})


@pytest.mark.parametrize(
    ("sample", "left_out"),
    [
        (({"mask": MASK, "ids": IDS}, 1), []),
        ({"ids": IDS, "mask": MASK, "labels": 1}, []),
        ({"ids": IDS.tolist(), "mask": MASK.tolist(), "kinds": 0 * IDS, "label": 1}, ["kinds"]),
        (((IDS, MASK), 1), []),
        (((IDS, MASK, 0 * IDS), 1), ["kinds"]),
    ],
)
@pytest.mark.parametrize("examples", [BY_NAME, Call((IDS[None], MASK[None])), None])
def test_inputs_are_matched_by_name_or_position(
    sample: Any, left_out: list[str], examples: Call | None
) -> None:
    binding = Binding(Forward.of(Reader()), examples)
    data = Data("these", [sample] * 3, True, None).bind(binding)  # type: ignore[arg-type]
    call, target = data.fetch([0, 1])
    given = dict(zip(("ids", "mask"), call.args, strict=False)) | dict(call.kwargs)
    assert torch.equal(given["ids"], torch.stack([IDS, IDS]))
    assert torch.equal(given["mask"], torch.stack([MASK, MASK]))
    assert target.tolist() == [1, 1] and call.samples == 2
    if examples is not None:
        assert data.left_out == left_out
        assert list(call.kwargs) == list(examples.kwargs)


def test_a_missing_input_is_named() -> None:
    binding = Binding(Forward.of(Reader()), BY_NAME)
    for sample in (({"ids": IDS}, 0), (IDS, 0)):
        with pytest.raises(CompressorError, match="no mask"):
            Data("these", [sample], True, None).bind(binding)  # type: ignore[arg-type]


def test_a_dict_or_a_list_may_be_the_one_input() -> None:
    parts = {"left": torch.rand(2), "right": torch.rand(4)}
    example = Call(({"right": torch.rand(1, 4), "left": torch.rand(1, 2)},))
    call = Binding(Forward.of(Keyed()), example)({**parts, "more": IDS})
    assert list(call.args[0]) == ["right", "left"]
    views = Call(([torch.rand(1, 3), torch.rand(1, 3)],))
    call = Binding(Forward.of(nn.Identity()), views)((parts["left"], parts["left"]))
    assert isinstance(call.args[0], list) and len(call.leaves) == 2


def _texts(count: int = 24) -> list[Any]:
    draw = torch.Generator().manual_seed(0)
    return [
        {
            "ids": torch.randint(20, (6,), generator=draw),
            "mask": (torch.arange(6) < 3 + i % 3).long(),
            "label": i % 3,
            "text": f"number {i}",
        }
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "examples",
    [{"mask": torch.ones(1, 6).long(), "ids": torch.ones(1, 6).long()}, None],
    ids=["given", "from the data"],
)
def test_a_network_that_takes_names_is_chosen_by_reconstruction_and_repaired(examples: Any) -> None:
    torch.manual_seed(0)
    done = compress(Reader().eval(), examples, 0.4, data=_texts(), round_to=1, epochs=1)
    assert done.report["options"]["criterion"] == "reconstruction"
    steps = [step["step"] for step in done.report["recovery"]]
    assert "2 layers re-fitted" in steps[2] or "1 layer re-fitted" in steps[2], steps
    assert set(done.report["after"]["metrics"]) == {"top1"}


NUMBERS = [(torch.rand(6), float(i)) for i in range(20)]
CLASSES = [(torch.rand(6), i % 3) for i in range(20)]


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        (NUMBERS, {}, "default metric[^-]*real numbers[\\s\\S]*--metric own.py"),
        (NUMBERS, {"epochs": 1, "metric": lambda o, t: 0.0}, "cross-entropy[\\s\\S]*--loss own"),
        ([(torch.rand(6), {"age": 1}) for _ in range(20)], {}, "a target is a dict"),
        ([(torch.rand(6), [0, 1]) for _ in range(20)], {}, "a target is a list"),
        ([(torch.rand(4, 6), i % 3) for i in range(20)], {}, "shapes 2x4x3 and 2"),
    ],
)
def test_what_cannot_be_judged_is_refused_at_the_start(
    data: Any, options: dict[str, Any], says: str
) -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    metric = options.pop("metric", None)
    subject = Subject(network, torch.rand(1, *data[0][0].shape), data=data, metric=metric)
    with pytest.raises(UsageError, match=says):
        plan(subject, Options(**options), Silent())


class Notes(Silent):
    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, text: str) -> None:
        self.noted.append(text)


def test_a_fixed_batch_larger_than_the_data_is_noted() -> None:
    class Fixed(nn.Module):
        """Its program has the batch that it is traced with."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.a(x).relu()) + 0 * len(range(int(x.shape[0])))

    few, notes = [(torch.rand(6), None) for _ in range(20)], Notes()
    run, _ = plan(Subject(Fixed(), torch.rand(30, 6), data=few), Options(round_to=1), notes)
    assert run.trace.batch_symbol is None
    assert run.options.criterion == "l2"
    assert any("chosen by l2" in note and "batch of 30" in note for note in notes.noted)


def test_samples_of_other_sizes_than_were_traced_are_refused_where_they_do_not_run() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.a(x).relu()).flatten(1).mean(1) + x.shape[1]

    longer = [torch.rand(9, 6) for _ in range(20)]
    with pytest.raises(CompressorError, match=r"something else[\s\S]*x4x6"):
        plan(Subject(Placed(), torch.rand(1, 4, 6), data=longer), Options(), Silent())
    plan(Subject(Placed(), data=longer), Options(round_to=1), Silent())
