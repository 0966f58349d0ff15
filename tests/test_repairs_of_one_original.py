"""Several repairs of one original: what it computes is kept, and they come out as by themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.least_squares import Recording, Whole, refit
from compressor.least_squares.walk import Script, Walk
from compressor.records import ExampleInputs, Trace
from compressor.slicing.program import slice_program

Given = tuple[Tensor]


class Residual(nn.Module):
    """(N, 3, 8, 8) -> (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.out = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.b(self.norm(self.a(x)).relu())
        return self.out(x.mean((2, 3)))


class Recurrent(nn.Module):
    """(N, 7, 5) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.out = nn.LSTM(5, 12, 2, batch_first=True), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cells(x)[0][:, -1])


NETWORKS = {"residual": (Residual, (3, 8, 8)), "recurrent": (Recurrent, (7, 5))}


def made(kind: str) -> tuple[Trace, Network, list[Given]]:
    torch.manual_seed(0)
    build, shape = NETWORKS[kind]
    found = trace(build().eval(), ExampleInputs((torch.randn(2, *shape),)))
    return found, analyse(found), [(torch.randn(16, *shape),) for _ in range(4)]


def repaired(
    found: Trace, network: Network, batches: list[Given], first: int, whole: Whole
) -> dict[str, Tensor]:
    """Return the weights of a network that lost the first channels of each group, re-fitted."""
    masks = network.masks({g.name: tuple(range(first, g.size)) for g in network.groups})
    program = slice_program(found, network, masks)
    refit(found.program, program, network, masks, lambda: batches, whole=whole)
    return {name: tensor.detach().clone() for name, tensor in program.state_dict.items()}


def programs_started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that gets each program that is run from now on."""
    started: list[object] = []
    start = Script.start

    def note(script: Script, inputs: object) -> Walk:
        started.append(script.program)
        return start(script, inputs)

    monkeypatch.setattr(Script, "start", note)
    return started


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("first", [2, 3])
def test_a_repair_by_a_recording_is_the_same_and_runs_the_original_no_more(
    kind: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, network, batches = made(kind)
    alone = repaired(found, network, batches, first, Whole(found.program))
    recording = Recording(found.program, network.aliases, lambda: batches, memory=1e9)
    assert recording.bytes > 0
    started = programs_started(monkeypatch)
    aim = Whole(found.program, recording=recording)
    for _ in range(2):  # what is kept serves as often as it is asked for
        by_recording = repaired(found, network, batches, first, aim)
        assert alone.keys() == by_recording.keys()
        assert all(torch.equal(alone[name], by_recording[name]) for name in alone)
    assert started and all(program is not found.program for program in started)


def test_a_recording_keeps_nothing_where_it_takes_more_than_there_is() -> None:
    found, network, batches = made("residual")
    whole = Recording(found.program, network.aliases, lambda: batches, memory=1e9)
    assert whole.bytes >= sum(x.numel() * 4 * 8 / 3 for (x,) in batches), "one map of 8 channels"
    recording = Recording(found.program, network.aliases, lambda: batches, whole.bytes - 1)
    assert recording.bytes == 0
    assert recording.walk(Script(found.program), 0) is None
    alone = repaired(found, network, batches, 2, Whole(found.program))
    again = repaired(found, network, batches, 2, Whole(found.program, recording=recording))
    assert all(torch.equal(alone[name], again[name]) for name in alone)


def test_what_was_not_kept_is_computed() -> None:
    found, network, batches = made("residual")
    recording = Recording(found.program, network.aliases, lambda: batches, memory=1e9)
    script = Script(found.program)
    script.lasting = {next(node for node in script.nodes if node.name.startswith("relu"))}
    assert recording.walk(script, 0) is None
    assert recording.walk(Script(found.program), len(batches)) is None


def test_the_original_is_run_where_its_values_are_asked_for_first() -> None:
    found, network, batches = made("residual")
    asked: list[int] = []

    def inputs() -> list[Given]:
        asked.append(len(asked))
        return batches

    recording = Recording(found.program, network.aliases, inputs, memory=1e9)
    assert not asked
    assert recording.bytes == recording.bytes > 0
    assert asked == [0]
