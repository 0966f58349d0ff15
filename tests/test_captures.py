"""Captures of networks as people hold them: wrappers, hooks, kept activations, caches, constants;
and what is said where a capture fails."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch_version import IS_2_11
from zoo_member import net

import compressor
from compressor.causes import CAUSES, cause_of, not_captured
from compressor.errors import CompressorError
from compressor.graph.trace import trace
from compressor.graph.trace.caches import restore_caches, switch_caches_off
from compressor.loading import find_examples
from compressor.modules import copy_of, unwrap
from compressor.records import ExampleInputs, LoadedModel

X = torch.randn(2, 5)


def two(forward: Callable[..., Any], **attributes: Any) -> nn.Module:
    return net(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3), **attributes)


def plain(m: Any, x: Tensor) -> Any:
    return m.b(m.a(x).relu())


# -- wrappers ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_wrappers_are_taken_off_and_said() -> None:
    inner = two(plain)
    found, notes = unwrap(torch.compile(nn.DataParallel(inner)))
    assert found is inner
    assert [note.rpartition(" ")[2] for note in notes] == ["torch.compile", "nn.DataParallel"]
    assert unwrap(inner) == (inner, ())


def test_wrappers_within_the_network_are_taken_off_a_copy() -> None:
    part = torch.compile(nn.Sequential(nn.DataParallel(nn.Linear(5, 5))))
    model = nn.ModuleDict({"part": part, "same": part})
    before = list(model.state_dict())
    found, (note,) = unwrap(model)
    assert set(found.state_dict()) == {f"{n}.0.{k}" for n in model for k in ("weight", "bias")}
    assert found["part"] is found["same"]
    assert list(model.state_dict()) == before
    assert "part" in note


def test_a_compiled_network_is_compressed() -> None:
    model = torch.compile(two(plain))
    result = compressor.compress(model, X, ratio=0.3, round_to=1)
    assert "_orig_mod" not in "".join(result.plan.tensors)
    assert any("torch.compile" in note for note in result.report["notes"])
    assert compressor.masked(model, result.plan).module(X).shape == (2, 3)


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_part_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(5, 5), torch.jit.script(nn.Linear(5, 5)))
    with pytest.raises(CompressorError, match=r"the layer 1 is TorchScript"):
        unwrap(model)


# -- what code keeps -----------------------------------------------------------------------------


def test_kept_tensors_with_a_graph_are_copied_wherever_they_are() -> None:
    def keeps(m: Any, x: Tensor) -> Tensor:
        m.last = m.a(x)
        m.history.append({"deep": (m.last, [m.last * 2])})
        return m.b(m.last)

    model = two(keeps)
    model.last, model.history = None, []
    model(X)
    copied = copy_of(model)
    assert not copied.last.requires_grad
    assert copied.history[0]["deep"][0] is copied.last
    assert model.last.requires_grad
    assert trace(model, ExampleInputs((X,))).batch_symbol


RECORDED: list[Any] = []


def leaves_nothing(model: nn.Module, *kept: Any) -> None:
    """A capture leaves lists and attributes as they were, and no tensor without values."""
    before = [list(place) for place in kept]
    found = trace(model, ExampleInputs((X,)))
    assert [list(place) for place in kept] == before
    held = [value for layer in found.module.modules() for value in vars(layer).values()]
    assert not any(isinstance(value, FakeTensor) for value in held)


def test_what_forward_stores_during_a_capture_is_gone_afterwards() -> None:
    closed: list[Any] = []

    def stores(m: Any, x: Tensor) -> Tensor:
        m.last = m.a(x)
        m.calls += 1
        closed.append(m.last)
        RECORDED.append(m.last)
        return m.b(m.last)

    model = two(stores)
    model.calls = 0
    leaves_nothing(model, closed, RECORDED)
    assert model.calls == 0
    assert not hasattr(model, "last")


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def watch(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self.seen.append(output.detach().numpy())


def test_hooks_that_watch_are_left_out_and_stay_on_the_copy() -> None:
    recorder, values = Recorder(), []
    model = two(plain)
    model.a.register_forward_hook(recorder.watch)
    model.b.register_forward_hook(lambda *args: values.append(args[2].mean().item()))
    leaves_nothing(model, recorder.seen, values)
    found = trace(model, ExampleInputs((X,)))
    assert any("hooks" in note for note in found.notes)
    assert len(found.module.b._forward_hooks) == 1


def test_hooks_that_matter_are_kept() -> None:
    doubled = two(plain)
    doubled.a.register_forward_hook(lambda *args: args[2] * 2)
    found = trace(doubled, ExampleInputs((X,)))
    torch.testing.assert_close(found.program.module()(X), doubled(X))

    def reads(m: Any, x: Tensor) -> Tensor:
        m.a(x)
        return m.b(m.kept["a"])

    reading, kept = two(reads), {}
    reading.kept = kept
    reading.a.register_forward_hook(lambda *args: kept.update(a=args[2]))
    found = trace(reading, ExampleInputs((X,)))
    assert not any("hooks" in note for note in found.notes)
    assert not isinstance(kept.get("a"), FakeTensor)
    torch.testing.assert_close(found.program.module()(X), reading(X))


# -- caches and constants ------------------------------------------------------------------------


class Config:
    def __init__(self, use_cache: bool) -> None:
        self.use_cache = use_cache


def test_caches_are_off_while_it_is_captured_and_as_before_in_the_result() -> None:
    def with_cache(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        return {"y": m.b(y), **({"cache": {y}} if m.config.use_cache else {})}

    model = two(with_cache)
    model.config = Config(True)
    found = trace(model, ExampleInputs((X,)))
    assert "use_cache=False" in found.notes[0]
    assert model.config.use_cache is True
    assert found.module.config.use_cache is False
    restore_caches(found.module, model)
    assert found.module.config.use_cache is True
    model.config.use_cache = False
    assert switch_caches_off(model) == []


def test_inputs_that_are_no_tensors_are_said_to_be_constants() -> None:
    model = two(lambda m, x, t, mode="a", rest=None: m.b(m.a(x)) * t)
    (note,) = trace(model, ExampleInputs((X, 3), {"mode": "b", "rest": None})).notes
    assert "t=3, mode='b'" in note
    assert "rest" not in note


# -- causes --------------------------------------------------------------------------------------


class Held:
    """A class that no pytree knows."""

    def __init__(self, one: Tensor) -> None:
        self.one = one


class SomeCache:
    pass


class ReadsMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        assert x.data_ptr()
        return x * 2


class Packs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        found: Tensor = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
        return found


def changes_data(m: Any, x: Tensor) -> Any:
    m.a.bias.data.add_(1)
    return plain(m, x)


def loops(m: Any, x: Tensor) -> Any:
    return sum(plain(m, x[i : i + 1]) for i in torch.nonzero(x[:, 0]).flatten())


def takes_gradients(m: Any, x: Tensor) -> Any:
    return torch.autograd.grad(plain(m, x.requires_grad_()).sum(), x)[0]


def jacobian(m: Any, x: Tensor) -> Any:
    return torch.func.vmap(torch.func.jacrev(lambda v: plain(m, v)))(x)


FAILING: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
    "packed sequences": (Packs(), (torch.randn(2, 3, 5), torch.tensor([3, 2]))),
    "a cache": (two(lambda m, x: (plain(m, x), SomeCache())), (X,)),
    "a type of input": (two(lambda m, x: plain(m, x.one)), (Held(X),)),
    "a type of output": (two(lambda m, x: {plain(m, x)}), (X,)),
    "the meta device": (two(lambda m, x: plain(m, x) + torch.zeros(3, device="meta")), (X,)),
    "another device": (two(lambda m, x: plain(m, x) + torch.zeros(3, device="cuda")), (X,)),
    "missing inputs": (two(lambda m, x, y: plain(m, x) + y), (X,)),
    "numpy": (two(lambda m, x: plain(m, torch.from_numpy(np.tanh(x.numpy())))), (X,)),
    "text of values": (two(lambda m, x: (f"{x.mean():.3f}", plain(m, x))[1]), (X,)),
    "a kernel of its own": (two(lambda m, x: plain(m, ReadsMemory.apply(x))), (X,)),
    "a tensor that is no buffer": (two(changes_data), (X,)),
    "gradients in forward": (two(takes_gradients), (X,)),
    "function transforms": (two(jacobian), (X,)),
    "branches on values": (two(loops), (X,)),
}

WORDS = {
    "functions as operands": "\nin scan_op (torch/_higher_order_ops/scan.py)",
    "an uninitialised layer": "ValueError: Attempted to use an uninitialized parameter in linear",
    "quantised operators": "NotImplementedError: quantized::linear needs QuantizedCPU",
    "endless recursion": "RecursionError: maximum recursion depth exceeded",
    "memory": "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
    "an exit": "SystemExit: 3",
    "scripted code": "PickleError: ScriptFunction cannot be pickled",
    "unknown inputs": "forward() got an unexpected keyword argument 'y'",
    "mixed types": "mat1 and mat2 must have the same dtype, but got Half and Float",
    "compiled code": "using FX to torch.jit.trace a dynamo-optimized function",
    "an operator without a shape": "UnsupportedOperatorException: aten._to_sparse.default",
}
"""Causes whose failures need another machine or another version of torch to be met."""


@pytest.mark.parametrize("cause", FAILING)
def test_a_failed_capture_is_told_by_its_cause(cause: str) -> None:
    if IS_2_11 and cause in ("a type of output", "function transforms", "branches on values"):
        pytest.skip("torch 2.11 says it in other words, or captures it")
    model, inputs = FAILING[cause]
    with pytest.raises(CompressorError, match=r"cannot capture this model: ") as caught:
        trace(model, ExampleInputs(inputs))
    (row,) = [row for row in CAUSES if row.name == cause]
    start = row.what.partition("{0}")[0]
    assert start in caught.value.what
    assert caught.value.next_step.startswith(row.next_step.partition("{0}")[0])


@pytest.mark.parametrize("cause", WORDS)
def test_words_of_an_exception_tell_its_cause(cause: str) -> None:
    found = cause_of(RuntimeError(WORDS[cause]))
    assert found is not None
    assert found.name == cause


def test_every_cause_is_shown() -> None:
    assert {row.name for row in CAUSES} == {*FAILING, *WORDS}


def test_an_unknown_failure_names_layer_and_line_and_claims_no_cause() -> None:
    inner = net(lambda m, x: {}["k"])
    with pytest.raises(CompressorError, match=r"cannot capture this model\n") as caught:
        trace(net(lambda m, x: m.inner(x), inner=inner), ExampleInputs((X,)))
    assert caught.value.where.startswith("layer inner (")
    assert "test_captures.py:" in caught.value.where
    assert "branches" not in caught.value.next_step


def test_inputs_of_another_type_than_the_weights_are_told_so() -> None:
    loaded = LoadedModel(two(plain), "net", "a test", "given")
    half = dataclasses.replace(loaded, examples=ExampleInputs((X.half(),)))
    with pytest.raises(CompressorError, match="mixes types of numbers"):
        find_examples(half, (), None)
    assert isinstance(not_captured(KeyError("k"), loaded.module), CompressorError)
    assert logging.root.manager.disable == 0
