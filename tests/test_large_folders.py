"""Large transformers folders: weights stay in their files until they are read, and nothing is held
twice."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers", reason="transformers is not installed")

from folders import save_model

import compressor
from compressor import watch
from compressor.on_demand import OnDemand, memory_of, on_demand, parameters_on_demand, read_all
from compressor.options import Options
from compressor.run import opening
from compressor.run.decide import plan
from compressor.run.subject import Subject
from compressor.watch import Silent

QWEN = "Qwen2ForCausalLM"
"""Its embedding is tied to its head."""

USUAL: dict[str, Any] = {"ratio": 0.3, "criterion": "l2", "format": ("hf",), "round_to": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(QWEN, tmp_path_factory.mktemp("qwen") / "m", lambda model: model.bfloat16())


# -- a tensor that is converted where it is read ---------------------------------------------------


def test_a_tensor_on_demand_reads_as_if_it_were_converted() -> None:
    held = torch.randn(6, 4, dtype=torch.bfloat16)
    waiting = on_demand(nn.Parameter(held), torch.float32)
    wide, x, ids = held.float(), torch.randn(3, 4), torch.tensor([[5, 0, 5]])

    assert isinstance(waiting, nn.Parameter)
    assert waiting.requires_grad
    assert waiting.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(nn.functional.linear(x, waiting), nn.functional.linear(x, wide))
        assert torch.equal(nn.functional.embedding(ids, waiting), wide[ids])
        assert torch.equal(waiting.index_select(1, ids[0] % 4), wide.index_select(1, ids[0] % 4))
        assert torch.equal(waiting.double(), wide.double())
        assert type(waiting.clone()) is Tensor


def test_nobody_writes_to_a_tensor_on_demand() -> None:
    held = torch.ones(2, 2, dtype=torch.bfloat16)
    waiting = on_demand(nn.Parameter(held), torch.float32)

    for write in (lambda: waiting.zero_(), lambda: waiting.copy_(torch.zeros(2, 2))):
        with torch.no_grad(), pytest.raises(RuntimeError, match="kept on demand"):
            write()
    assert torch.equal(held, torch.ones(2, 2, dtype=torch.bfloat16))


def test_copies_stay_on_demand_and_tied_until_all_is_read() -> None:
    layer = nn.Linear(4, 4, dtype=torch.bfloat16)
    layer.weight = on_demand(layer.weight, torch.float32)
    pair = copy.deepcopy(nn.ModuleList([layer, layer]))

    assert memory_of(pair[0].weight) == memory_of(layer.weight)
    read_all(pair)
    assert pair[0].weight is pair[1].weight
    assert not parameters_on_demand(pair)
    assert parameters_on_demand(layer).keys() == {"weight"}


# -- a run -----------------------------------------------------------------------------------------


def test_what_is_loaded_traced_and_captured_has_one_memory(folder: Path) -> None:
    run, _ = plan(Subject(f"hf:{folder}"), Options(**USUAL), Silent())

    given = dict(run.loaded.given.named_parameters())  # type: ignore[union-attr]
    traced, captured = dict(run.trace.module.named_parameters()), run.trace.program.state_dict
    for name, parameter in given.items():
        place = parameter.data_ptr()
        assert memory_of(traced[name]) == memory_of(captured[name]) == place, name
        assert isinstance(captured[name], OnDemand)


def test_the_smaller_class_has_the_numbers_of_the_smaller_program(folder: Path) -> None:
    from compressor.run.cutting import cut

    run, decision = plan(Subject(f"hf:{folder}"), Options(**USUAL), Silent())
    sliced = cut(run, decision).sliced

    assert sliced.plan.form == "class"
    own = dict(sliced.module.named_parameters(remove_duplicate=False))
    assert own.keys() == {n for n, t in sliced.program.state_dict.items() if n in own}
    for name, parameter in own.items():
        assert parameter is not sliced.program.state_dict[name]
        assert parameter.data_ptr() == sliced.program.state_dict[name].data_ptr(), name


def test_the_result_is_that_of_weights_that_are_read_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = compressor.compress(f"hf:{folder}", **USUAL)
    monkeypatch.setattr(opening, "_reads_weights_once", lambda options: False)
    at_once = compressor.compress(f"hf:{folder}", **USUAL)

    assert waiting.report["after"]["macs"] < waiting.report["before"]["macs"]
    assert waiting.report["files"] == at_once.report["files"]  # their hashes
    assert waiting.report["differences"] == at_once.report["differences"]


def alive() -> int:
    """The bytes of all tensors that are held somewhere, each memory once."""
    found: dict[int, int] = {}
    for each in gc.get_objects():
        if type(each) in (Tensor, nn.Parameter) and each.layout == torch.strided:
            memory = each.untyped_storage()
            if memory.data_ptr() and not each.is_meta:
                found[memory.data_ptr()] = memory.nbytes()
    return sum(found.values())


def test_no_stage_leaves_more_than_the_folder_and_one_smaller_network_in_float32(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = alive(), dict[str, int]()
    stage = watch.Stopwatch.stage

    def watched(self: Any, name: str) -> Any:
        seen[name] = alive() - before
        return stage(self, name)

    monkeypatch.setattr(watch.Stopwatch, "stage", watched)
    compressor.compress(f"hf:{folder}", **USUAL)

    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    until = list(seen).index("slice")
    assert max(list(seen.values())[: until + 1]) < 1.5 * size, seen
    assert max(seen.values()) < (1 + 2 + 0.5) * size, seen
