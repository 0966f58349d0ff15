"""The networks that are timed, and their smaller forms, which are kept without weights: only their
widths matter to the clock, and as structure alone they weigh nothing."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.graph.counting import count_macs
from compressor.latency import LatencyTable, write_table
from compressor.latency.kernels import KERNELS
from compressor.latency.machine import machine_of, path_in_cache
from compressor.latency.measured_steps import Step
from compressor.options import Options
from compressor.run.cutting import cut
from compressor.run.decide import plan
from compressor.run.subject import Subject
from compressor.watch import Silent
from tools.cifar_resnet import CifarResNet
from tools.gpu_rows.scale import Scale
from tools.studies import torch_pruning
from tools.studies.torch_pruning import Goal, Hint

RATIO = 0.5


@dataclass(frozen=True)
class Timed:
    """Attributes:
    factory: Makes the network, with weights drawn at random.
    side: Of its images.
    hint: What Torch-Pruning has to be told.
    """

    factory: Callable[[], nn.Module]
    side: int
    hint: Hint = torch_pruning.LAST_LAYER

    def images(self, batch: int) -> Tensor:
        return torch.randn(batch, 3, self.side, self.side)


def _torchvision(name: str) -> nn.Module:
    import torchvision

    made: nn.Module = getattr(torchvision.models, name)(weights=None)
    return made


NETWORKS: Mapping[str, Timed] = {
    "resnet50": Timed(partial(_torchvision, "resnet50"), 224),
    "ResNet-56": Timed(partial(CifarResNet, 56), 32, hint=torch_pruning.INSIDE_BLOCKS),
    "vit_b_16": Timed(
        partial(_torchvision, "vit_b_16"), 224, hint=torch_pruning.VISION_TRANSFORMER
    ),
    "mobilenet_v2": Timed(partial(_torchvision, "mobilenet_v2"), 224),
}
TINY: Mapping[str, Timed] = {
    "ResNet-8": Timed(partial(CifarResNet, 8), 8, hint=torch_pruning.INSIDE_BLOCKS)
}


def networks(scale: Scale) -> Mapping[str, Timed]:
    return TINY if scale.is_dry else NETWORKS


@dataclass(frozen=True)
class Smaller:
    """A smaller network, and the share of the MACs that it has left."""

    module: nn.Module
    macs_left: float


def _ours(network: Timed, **options: Any) -> nn.Module:
    """By the product, from random weights: chosen by magnitude, so that no data are needed."""
    asked = {"criterion": "l2", "best_effort": True, "format": ("pt2",), **options}
    subject = Subject(network.factory().eval(), network.images(1))
    return cut(*plan(subject, Options(ratio=RATIO, **asked), Silent())).sliced.module


def _incumbent(network: Timed, step: int) -> nn.Module:
    goal = Goal(RATIO, round_to=step)
    return torch_pruning.prune(network.factory().eval(), network.images(1), goal, network.hint)


def _there(network: Timed, scale: Scale, **options: Any) -> nn.Module:
    """By what the product measures of this machine's layers; a time is met as it predicts it."""
    if scale.is_dry:
        machine = machine_of(1, 1, "torch-cpu")
        steps = {kind: dict.fromkeys(kernel.stepped, Step(4)) for kind, kernel in KERNELS.items()}
        write_table(
            LatencyTable(machine, steps), path_in_cache(machine)
        )  # which takes long to measure
        return _ours(network, latency_on="torch-cpu", **options)
    return _ours(network, latency_on="cuda", latency_precision="bf16", batch=256, **options)


Methods = Mapping[str, Callable[[Timed, Scale], nn.Module]]
AHEAD: Methods = {
    "Torch-Pruning, round_to=8": lambda network, _: _incumbent(network, 8),
    "Torch-Pruning, round_to=16": lambda network, _: _incumbent(network, 16),
    "ours, --round-to 8": lambda network, _: _ours(network, round_to=8),
}
"""What needs no GPU to be made."""
THERE: Methods = {
    "ours, steps of this GPU": _there,
    "ours, --of latency": lambda network, scale: _there(network, scale, of="latency"),
}
"""What is made by times measured on the GPU."""
GROUPS: Mapping[str, Methods] = {"ahead": AHEAD, "there": THERE}


def make_ahead(folder: Path) -> None:
    """All networks by all methods that need no GPU, those that are not in the folder yet."""
    scale = Scale(folder)
    for name in NETWORKS:
        for method in AHEAD:
            if not _file(folder, name, method).exists():
                print(f"{name}: {method}", flush=True)
                _keep(folder, name, method, _made(NETWORKS[name], AHEAD[method], scale))


def found_or_made(name: str, method: str, methods: Methods, scale: Scale) -> Smaller:
    """The smaller network, on the CPU, with weights of no meaning."""
    folders: Iterable[Path] = scale.made
    for folder in folders:
        if _file(folder, name, method).exists():
            try:
                return _read(_file(folder, name, method))
            except Exception as error:  # another version's classes: it is made here instead
                print(f"{name}, {method} is made anew: {type(error).__name__}: {error}")
    found = _made(networks(scale)[name], methods[method], scale)
    _keep(scale.made[-1], name, method, found)
    return found


def _made(network: Timed, make: Callable[[Timed, Scale], nn.Module], scale: Scale) -> Smaller:
    torch.manual_seed(0)
    module, example = make(network, scale).cpu().eval(), (network.images(1),)
    whole = count_macs(network.factory().eval(), example, {})
    return Smaller(module, count_macs(module, example, {}) / whole)


def _file(folder: Path, name: str, method: str) -> Path:
    words = f"{name} {method}".replace("--", "").replace(",", "").replace("=", " ")
    return folder / f"{'-'.join(words.split())}.pt"


def _keep(folder: Path, name: str, method: str, made: Smaller) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    module = copy.deepcopy(made.module).to("meta")
    torch.save({"module": module, "macs_left": made.macs_left}, stream)
    _file(folder, name, method).write_bytes(stream.getvalue())


def _read(file: Path) -> Smaller:
    """A file of our own, so that its classes may be loaded."""
    found = torch.load(file, weights_only=False)
    module: nn.Module = found["module"].to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02)
        for buffer in module.buffers():
            buffer.fill_(1)
    return Smaller(module, found["macs_left"])
