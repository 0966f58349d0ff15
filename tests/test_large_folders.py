"""Large transformers folders: weights stay in their files until they are read, and nothing is held
twice."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

pytest.importorskip("transformers", reason="transformers is not installed")

from folders import save_model

import compressor
from compressor import watch
from compressor.formats import hf_format, save_weights
from compressor.on_demand import (
    OnDemand,
    address_of,
    memory_of,
    on_demand,
    parameters_on_demand,
    read_all,
)
from compressor.options import Options
from compressor.run import opening
from compressor.run.decide import plan
from compressor.run.subject import Subject
from compressor.watch import Silent

QWEN = "Qwen2ForCausalLM"
"""Its embedding is tied to its head."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("llama") / "m"
    return save_model("LlamaForCausalLM", home, lambda m: m.bfloat16(), max_shard_size="6KB")


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


def test_a_tensor_on_demand_may_be_some_positions_of_what_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("compressor.on_demand._AT_ONCE", 7)  # in several parts
    held = torch.randn(6, 4, 5, dtype=torch.bfloat16)
    whole = on_demand(nn.Parameter(held), torch.float32)
    assert isinstance(whole, OnDemand)
    cut = whole.keeping({0: [0, 2, 5], 2: [1, 4]}).keeping({0: [2, 0], 1: [3]})
    expected = held[[5, 0]][:, [3]][:, :, [1, 4]]

    assert address_of(cut) == held.data_ptr()
    assert torch.equal(cut.read(), expected.float())
    assert torch.equal(cut[1:] + 1, expected[1:].float() + 1)
    assert torch.equal(copy.deepcopy(cut).detach().double(), expected.double())
    assert torch.equal(cut.in_type(torch.bfloat16).clone(), expected)
    ids = torch.tensor([1, 0])
    assert torch.equal(cut.index_select(0, ids), expected[ids].float())


def test_numbers_that_are_rounded_on_the_way_stay_rounded() -> None:
    held = torch.randn(4, dtype=torch.float64)
    waiting = OnDemand(held, torch.float32)
    assert torch.equal(waiting.double(), held.float().double())
    assert torch.equal(waiting.in_type(torch.float64), held.float().double())


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


def test_a_file_is_as_safetensors_writes_it_at_once(tmp_path: Path) -> None:
    held = torch.randn(3, 4, dtype=torch.bfloat16)
    tensors = {
        "b": on_demand(nn.Parameter(held), torch.float32),
        "a": torch.randn(2, 3).t(),
        "number": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "none": torch.empty(0, 2, dtype=torch.float16),
        "π": torch.randn(5),
    }
    save_weights(tensors, tmp_path / "own", {}, types={"b": torch.bfloat16})
    save_file(
        {n: t.contiguous() for n, t in {**tensors, "b": held}.items()},
        tmp_path / "theirs",
        metadata={"format": "pt"},
    )
    assert (tmp_path / "own").read_bytes() == (tmp_path / "theirs").read_bytes()


# -- a run -----------------------------------------------------------------------------------------


def test_what_is_loaded_traced_and_captured_has_one_memory(folder: Path) -> None:
    run, _ = plan(Subject(f"hf:{folder}"), Options(**USUAL), Silent())

    given = dict(run.loaded.given.named_parameters())  # type: ignore[union-attr]
    traced, captured = dict(run.trace.module.named_parameters()), run.trace.program.state_dict
    for name, parameter in given.items():
        place = parameter.data_ptr()
        assert memory_of(traced[name]) == memory_of(captured[name]) == place, name
        assert isinstance(captured[name], OnDemand)


def test_the_smaller_program_and_class_read_what_they_keep_of_the_originals_files(
    folder: Path,
) -> None:
    from compressor.run.cutting import cut

    run, decision = plan(Subject(f"hf:{folder}"), Options(**USUAL), Silent())
    sliced = cut(run, decision).sliced

    assert sliced.plan.form == "class"
    given = dict(run.loaded.given.named_parameters())  # type: ignore[union-attr]
    own, state = dict(sliced.module.named_parameters()), sliced.program.state_dict
    for name, parameter in own.items():
        assert isinstance(parameter, OnDemand) and parameter is not state[name]
        places = address_of(parameter), address_of(state[name])
        assert places == (given[name].data_ptr(),) * 2, name
    assert any(own[name].shape != given[name].shape for name in own)


@pytest.mark.parametrize("name", ["folder", pytest.param("shards", marks=pytest.mark.slow)])
def test_the_result_is_that_of_weights_that_are_read_at_once(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = request.getfixturevalue(name)
    waiting = compressor.compress(f"hf:{given}", **USUAL)
    monkeypatch.setattr(opening, "_reads_weights_once", lambda options: False)
    at_once = compressor.compress(f"hf:{given}", **USUAL)

    assert waiting.report["after"]["macs"] < waiting.report["before"]["macs"]
    assert waiting.report["files"] == at_once.report["files"]  # their hashes
    assert waiting.report["differences"] == at_once.report["differences"]
    for found, expected in zip(
        (*waiting.module.parameters(), *waiting.program.state_dict.values()),
        (*at_once.module.parameters(), *at_once.program.state_dict.values()),
        strict=True,
    ):
        assert type(found) is nn.Parameter and found.requires_grad == expected.requires_grad
        assert torch.equal(found, expected) and found.dtype == expected.dtype


def rows(samples: int = 12) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"input_ids": torch.randint(0, 60, (16,), generator=generator)} for _ in range(samples)]


def test_with_data_large_weights_are_read_for_each_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is repaired is read; the original stays in its files, and the result is the same."""
    usual = {**USUAL, "criterion": "auto", "data": rows()}
    at_once = compressor.compress(f"hf:{folder}", **usual)
    monkeypatch.setattr(opening, "LARGE", 0)
    run, _ = plan(
        Subject(f"hf:{folder}", data=rows()), Options(ratio=0.3, format=("hf",)), Silent()
    )
    assert parameters_on_demand(run.trace.module)
    waiting = compressor.compress(f"hf:{folder}", **usual)
    assert "re-fitted by least squares" in str(waiting.report)
    assert waiting.plan.to_json() == at_once.plan.to_json()
    assert waiting.report["files"] == at_once.report["files"]  # their hashes
    for options in ({"epochs": 1}, {"criterion": "taylor"}, {"max_drop": 0.5, "ratio": None}):
        given = Options(**{"ratio": 0.3, "format": ("hf",), **options})
        assert opening._changes_weights(given)


def test_files_are_written_one_by_one_with_the_names_of_the_originals(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = alive(), list[int]()
    read = hf_format._Reading.__getitem__

    def watched(self: Any, name: str) -> Any:
        seen.append(alive() - before)
        return read(self, name)

    monkeypatch.setattr(hf_format._Reading, "__getitem__", watched)
    compressor.compress(f"hf:{shards}", **USUAL).save(tmp_path / "out", once=True)

    old, new = tensors_by_file(shards), tensors_by_file(tmp_path / "out/hf")
    assert len(new) > 2
    modes = {file.stat().st_mode for file in (tmp_path / "out/hf").iterdir()}
    (tmp_path / "any").touch()
    assert modes == {(tmp_path / "any").stat().st_mode}
    assert set().union(*old.values()) == set().union(*new.values())
    assert len(seen) == sum(map(len, new.values()))
    largest = max(file.stat().st_size for file in shards.glob("*.safetensors"))
    assert max(seen) - min(seen) <= largest < sum(p.stat().st_size for p in shards.iterdir()) / 3


def tensors_by_file(folder: Path) -> dict[str, set[tuple[str, torch.dtype]]]:
    """The names and types of the tensors in each file of weights."""
    return {
        file.name: {(name, tensor.dtype) for name, tensor in load_file(file).items()}
        for file in folder.glob("*.safetensors")
    }


def test_a_folder_that_computes_something_else_is_left_out(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = hf_format._Reading.__getitem__

    def wrong(self: Any, name: str) -> Any:
        return read(self, name) * (0 if "up_proj" in name else 1)

    monkeypatch.setattr(hf_format._Reading, "__getitem__", wrong)
    found = compressor.compress(f"hf:{shards}", **USUAL)
    found.save(tmp_path / "out")

    assert not (tmp_path / "out/hf").exists() and (tmp_path / "out/model.safetensors").exists()
    assert "compute different outputs" in found.report["formats"]["hf"]["reason"]


def alive() -> int:
    """The bytes of all tensors that are held somewhere, each memory once."""
    found: dict[int, int] = {}
    for each in gc.get_objects():
        if type(each) in (Tensor, nn.Parameter) and each.layout == torch.strided:
            memory = each.untyped_storage()
            if memory.data_ptr() and not each.is_meta:
                found[memory.data_ptr()] = memory.nbytes()
    return sum(found.values())


def test_no_stage_leaves_more_than_the_folder(
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
    assert {"slice", "write and verify hf"} <= seen.keys()
    assert max(seen.values()) < 1.5 * size, seen
