"""What a GPU does is what the CPU does: each test runs on both, on the GPU where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import BRIEFLY_TIMED, CLASSES, TinyNet, inputs, write_model, write_samples
from torch import nn
from torch.utils.data import TensorDataset

import compressor
from compressor.cli import main
from compressor.latency.layer_bench import Case
from compressor.latency.torch_bench import TorchBench
from compressor.loading.data import batches, load_data
from compressor.options import Options
from compressor.recover import Objective, Recipe, fine_tune
from compressor.run import footprints
from compressor.run.cutting import cut
from compressor.run.decide import plan
from compressor.run.repairing import repair
from compressor.run.subject import Subject
from compressor.studies.bench import Way, time_modules
from compressor.watch import Silent

ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])


def labelled(samples: int = 64) -> TensorDataset:
    return TensorDataset(inputs(samples), torch.arange(samples) % CLASSES)


def network() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet(16).eval()


@DEVICES
def test_a_result_moves_and_the_original_stays(device: str) -> None:
    original = network()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    found = compressor.compress(
        original, inputs(), 0.4, data=labelled(), device=device, round_to=1, epochs=1, format=()
    )
    assert {p.device.type for p in found.module.parameters()} == {"cpu"}
    for name, tensor in original.state_dict().items():
        assert tensor.device.type == "cpu" and torch.equal(tensor, before[name])
    there = found.module.to(device)
    here = there(inputs(4).to(device)).cpu()
    torch.testing.assert_close(there.cpu()(inputs(4)), here, rtol=1e-2, atol=1e-2)


@DEVICES
@pytest.mark.parametrize("criterion", ["reconstruction", "taylor", "l2"])
def test_the_same_choice_and_repair(
    device: str, criterion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 throughout: PyTorch rounds the factors of a GPU's convolutions otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def made(where: str) -> tuple[dict[str, Any], nn.Module]:
        subject = Subject(network(), inputs(), data=labelled())
        asked = Options(ratio=0.4, criterion=criterion, round_to=1, device=where, format=("pt2",))
        run, decision = plan(subject, asked, Silent())
        made = cut(run, decision)
        repair(run, made)
        return dict(made.decision.keep), made.sliced.module.cpu()

    (kept, module), (wanted, reference) = made(device), made("cpu")
    assert kept == wanted
    with torch.no_grad():
        torch.testing.assert_close(module(inputs(8)), reference(inputs(8)), rtol=1e-3, atol=1e-3)


@DEVICES
@pytest.mark.parametrize("captured", [False, True])
def test_a_step_in_bf16_learns_as_one_in_fp32(device: str, captured: bool) -> None:
    some = [((inputs(32),), torch.arange(32) % CLASSES)] * 4
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = Recipe(3, lr=0.05, precision=precision, captured=captured)
        module, objective = network(), Objective(teacher=network())
        state = fine_tune(module, some, recipe, objective, device=device)
        assert bool(state.not_captured) == (captured and device == "cpu")
        losses[precision] = [epoch.loss for epoch in state.history]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"][-1] < losses["bf16"][0]


@DEVICES
def test_the_whole_command(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "LATENCY_SECONDS" in BRIEFLY_TIMED
    monkeypatch.setattr(footprints, "LATENCY_SECONDS", 0.05)
    model, data = write_model(tmp_path / "net.pt"), write_samples(tmp_path / "data.npz")
    command = [str(model), "--data", str(data), "--test", str(data), "--augment", "crop-flip"]
    asked = ["--epochs", "1", "--batch-size", "16", "--device", device, "--format", "pt2"]
    if device == "cuda":
        asked += ["--capture"]
    assert main([*command, *asked, "--ratio", "0.4", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model.pt2").exists()


@DEVICES
def test_layers_are_timed(device: str) -> None:
    matrix = {"matrix": True, "bias": True, "then": ("Relu",)}
    cases = [Case("linear", {"rows": 512, "in": n, "out": n}, matrix) for n in (4096, 64)]
    times = TorchBench(f"torch-{device}", least=3, most=3).times_ms(cases)
    assert times[0] > 2 * times[1] > 0


@DEVICES
def test_batches_are_the_same_wherever_they_are_made(device: str, tmp_path: Path) -> None:
    data = load_data([str(write_samples(tmp_path / "data.npz"))])
    usual, other = (batches(data, 16, seed=1, augment="crop-flip") for _ in range(2))
    for (call, target), (same, labels) in zip(usual, other.on(torch.device(device)), strict=True):
        assert labels.device.type == device
        torch.testing.assert_close(call.args[0], same.args[0].cpu())
        assert torch.equal(target, labels.cpu())


@DEVICES
@pytest.mark.parametrize("backend", ["torch", "torch-graphs", "torch-compiled"])
def test_ways_are_timed(device: str, backend: str) -> None:
    if device == "cpu" and backend != "torch":
        pytest.skip("it takes minutes, or is not there, on a CPU")
    modules = {"wide": TinyNet(32).eval(), "narrow": TinyNet(4).eval()}
    for precision in ("fp32",) if device == "cpu" else ("fp32", "tf32", "bf16"):
        way = Way(backend, device, 1, 2, precision)
        found = time_modules(modules, (inputs(2),), {}, way, seconds=0.1)
        assert all(record["ms"]["p50"] > 0 for record in found)
