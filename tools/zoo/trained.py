"""Small networks with trained weights and data to judge them by, where these are at hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.records import ExampleInputs
from tools.cifar_resnet import CifarResNet
from tools.stories import Stories
from tools.zoo.members import Batches, Judge, Quality, Settings, Subject

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
CIFAR_BATCH, WINDOW, WINDOWS_PER_BATCH = 100, 255, 10
BOS = 1


def mobilenet_v1() -> nn.Sequential:
    """MobileNet-V1 x0.25, under the parameter names of the checkpoint."""

    def dense(before: int, after: int, stride: int) -> nn.Sequential:
        conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())

    def separable(before: int, after: int, stride: int = 1) -> nn.Sequential:
        depthwise = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
        pointwise = nn.Conv2d(before, after, 1, bias=False)
        return nn.Sequential(
            *(depthwise, nn.BatchNorm2d(before), nn.ReLU()),
            *(pointwise, nn.BatchNorm2d(after), nn.ReLU()),
        )

    stages = {
        "stage1": nn.Sequential(
            *(dense(3, 8, 2), separable(8, 16), separable(16, 32, 2), separable(32, 32)),
            *(separable(32, 64, 2), separable(64, 64)),
        ),
        "stage2": nn.Sequential(separable(64, 128, 2), *(separable(128, 128) for _ in range(5))),
        "stage3": nn.Sequential(separable(128, 256, 2), separable(256, 256)),
    }
    network = nn.Sequential()
    for name, stage in stages.items():
        network.add_module(name, stage)
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(256, 1000))
    return network


def mobilenet_v2() -> nn.Module:
    import torchvision

    module: nn.Module = torchvision.models.mobilenet_v2(weights=None)
    return module


# -- data ----------------------------------------------------------------------------------------


def _cifar(root: Path) -> Batches:
    """The first test images with their classes."""
    stored = np.load(root / "cifar10_test.npz")
    images = torch.from_numpy(stored["images"][: 15 * CIFAR_BATCH]).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(stored["labels"][: 15 * CIFAR_BATCH].astype(np.int64))
    return list(zip(((images - MEAN) / STD).chunk(15), labels.chunk(15), strict=True))


def _photos(root: Path) -> Batches:
    """Photos of every eighth class, 0 to 1, [25, 3, 224, 224]; the class is in the name."""
    from PIL import Image
    from torchvision import transforms

    prepare = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    )
    images, labels = [], []
    with zipfile.ZipFile(root / "imagenet_sample_125.zip") as archive:
        for name in sorted(archive.namelist()):
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            images.append(prepare(image))
            labels.append(int(name[:3]))
    return list(zip(torch.stack(images).chunk(5), torch.tensor(labels).chunk(5), strict=True))


def _normalised_photos(root: Path) -> Batches:
    return [((images - MEAN) / STD, labels) for images, labels in _photos(root)]


def _rotated_photos(root: Path) -> Batches:
    """As the MobileNet-V2 checkpoint wants them: -1 to 1, turned by 180 degrees."""
    return [((images * 2 - 1).flip(-1, -2), labels) for images, labels in _photos(root)]


def _stories(root: Path) -> Batches:
    """Windows of token ids, each after the token that begins a text."""
    ids = torch.from_numpy(np.load(root / "tinystories_sample_tok512.npy").astype(np.int64))
    count = 8 * WINDOWS_PER_BATCH
    windows = ids[: count * WINDOW].view(count, WINDOW)
    inputs = torch.cat([torch.full((count, 1), BOS), windows[:, :-1]], dim=1)
    return list(zip(inputs.chunk(8), windows.chunk(8), strict=True))


# -- quality -------------------------------------------------------------------------------------


def accuracy(module: nn.Module, batches: Batches) -> Quality:
    with torch.no_grad():
        hits = [(module(x).argmax(1) == y).sum().item() for x, y in batches]
    return Quality("accuracy", sum(hits) / sum(len(y) for _, y in batches))


def loss(module: nn.Module, batches: Batches) -> Quality:
    with torch.no_grad():
        found = [next_token_loss(module(x), y) for x, y in batches]
    return Quality("loss", float(torch.stack(found).mean()))


def next_token_loss(logits: Tensor, ids: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), ids.flatten())


@dataclass(frozen=True)
class Trained:
    """A factory, the file of its weights, what it reads, and how it is judged.

    The first `evaluated` batches are for judging, the rest for calibration; where there are no
    more, both use all.
    """

    factory: Callable[[], nn.Module]
    weights: str
    batches: Callable[[Path], Batches]
    evaluated: int
    quality: Callable[[nn.Module, Batches], Quality] = accuracy
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy


def cifar_resnet(depth: int) -> Trained:
    return Trained(lambda: CifarResNet(depth), f"cifar10_resnet{depth}.safetensors", _cifar, 10)


NETWORKS: Mapping[str, Trained] = {
    **{f"cifar_resnet{depth}": cifar_resnet(depth) for depth in (20, 32, 44, 56)},
    "mobilenet_v1": Trained(
        mobilenet_v1, "imagenet_mobilenet_v1_025.safetensors", _normalised_photos, 5
    ),
    "mobilenet_v2": Trained(mobilenet_v2, "imagenet_mobilenet_v2.safetensors", _rotated_photos, 5),
    "stories260k": Trained(Stories, "stories260k.safetensors", _stories, 4, loss, next_token_loss),
}


def load(trained: Trained, root: Path) -> nn.Module:
    """Return a network with its trained weights, in eval mode."""
    from safetensors.torch import load_file

    module = trained.factory().eval()
    stored = load_file(root / trained.weights)
    module.load_state_dict({key.removeprefix("module."): value for key, value in stored.items()})
    return module


def _is_there(name: str, settings: Settings) -> bool:
    root = settings.data_root
    return root is not None and (root / NETWORKS[name].weights).exists()


def names(settings: Settings) -> list[str]:
    return [name for name in NETWORKS if _is_there(name, settings)]


def skipped(settings: Settings) -> dict[str, str]:
    missing = [name for name in NETWORKS if not _is_there(name, settings)]
    return {name: f"{NETWORKS[name].weights} is not in --data-root" for name in missing}


def build(name: str, settings: Settings) -> Subject:
    root, trained = settings.data_root, NETWORKS[name]
    assert root is not None
    module = load(trained, root)
    batches = trained.batches(root)
    judged, rest = batches[: trained.evaluated], batches[trained.evaluated :]
    judge = Judge(lambda m: trained.quality(m, judged), rest or judged, trained.loss)
    return Subject(module, ExampleInputs((batches[0][0][:1],)), judge)
