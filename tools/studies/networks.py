"""The networks of all studies, with the data that they are calibrated, trained and judged on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from compressor.graph.programs.redraw import drawable, redraw_
from compressor.loading.data import load_data
from compressor.metrics import FIDELITY
from compressor.recover.fidelity import fidelity
from tools.studies import torch_pruning
from tools.studies.language import network as language
from tools.studies.models import LENGTH, CharacterModel, trained_here, vision_transformer
from tools.studies.packages import modules, voices
from tools.studies.packages.carried import Carried
from tools.studies.packages.files import FILES, FileNetwork
from tools.studies.torch_pruning import Hint
from tools.zoo.trained import NETWORKS, cifar_resnet, load, next_token_loss

VISION_STEPS, CHARACTER_STEPS = 4000, 2500
"""Of the trainings here, some ten minutes each on one core."""


@dataclass(frozen=True)
class Network:
    """A network in eval mode, and its data.

    Attributes:
        module: The network.
        example: What it takes, [1, ...].
        train: Labelled samples to calibrate and train on.
        test: Labelled samples that decide nothing.
        loss: Of (outputs, target); None: cross-entropy.
        metric: Of (outputs, target); None: top-1 accuracy.
        hint: What Torch-Pruning has to be told.
        batch_size: Of training.
        augment: Of training.
        carried: The package with its weights, where one carries them.
        judge: Returns what a smaller network is worth to its users, by the name of the measure.
        model: The MODEL that ours are made of, where it is no module.
        texts: The options that name the files with its data then.
    """

    module: nn.Module
    example: Tensor
    train: Dataset[Any] | None = None
    test: Dataset[Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Callable[[Any, Any], Any] | None = None
    hint: Hint = torch_pruning.LAST_LAYER
    batch_size: int = 64
    augment: str = "none"
    carried: Carried | None = None
    judge: Callable[[nn.Module], Mapping[str, float]] | None = None
    model: str = ""
    texts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def given(self) -> dict[str, Any]:
        """Return what `compressor.compress` is given beside the options, as far as it is there."""
        if self.model:
            return {"model": self.model, **self.texts, "metric": self.metric}
        subject = {"model": self.module, "example_inputs": self.example}
        names = ("train", "test", "loss", "metric")
        found = {name: value for name in names if (value := getattr(self, name)) is not None}
        data = {"data" if name == "train" else name: value for name, value in found.items()}
        named = {"metric": FIDELITY} if self.metric is fidelity else {}
        return subject | data | named


@cache
def cifar(root: Path, *names: str) -> Dataset[Any]:
    """Return the normalised images of some files, e.g. "train_1", as the product reads them."""
    return load_data([str(root / f"cifar10_{name}.npz") for name in names]).dataset


def _on_cifar(module: nn.Module, root: Path, hint: Hint) -> Network:
    """Return a network with the 50 000 training and 10 000 test images of CIFAR-10."""
    train: Any = cifar(root, *(f"train_{shard}" for shard in range(1, 6)))
    test = cifar(root, "test")
    example = train[0][0][None]
    options: dict[str, Any] = {"batch_size": 128, "augment": "crop-flip"}
    return Network(module, example, train, test, hint=hint, **options)


def resnet(depth: int, root: Path) -> Network:
    """Return a trained ResNet of CIFAR-10."""
    return _on_cifar(load(cifar_resnet(depth), root), root, torch_pruning.INSIDE_BLOCKS)


def _vision_transformer(root: Path) -> Network:
    torch.manual_seed(0)
    network = _on_cifar(vision_transformer(), root, torch_pruning.VISION_TRANSFORMER)
    train: Any = network.train

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        some = torch.randint(len(train), (128,), generator=generator).tolist()
        images, labels = train.__getitems__(some).batch
        flipped = torch.rand((), generator=generator) < 0.5
        return images.flip(3) if flipped else images, labels

    trained_here("cifar10-vision-transformer", network.module, draw, VISION_STEPS)
    return network


def _thirds(name: str, root: Path, **how: Any) -> Network:
    """Return a network of the zoo: a third of its samples to train on, the rest as test data."""
    trained = NETWORKS[name]
    inputs, targets = (torch.cat(each) for each in zip(*trained.batches(root), strict=True))
    first = torch.arange(len(inputs)) % 3 == 0
    train, test = (TensorDataset(inputs[part], targets[part]) for part in (first, ~first))
    return Network(load(trained, root), inputs[:1], train, test, batch_size=16, **how)


def _stories(root: Path) -> Network:
    return _thirds("stories260k", root, loss=next_token_loss, metric=next_token_loss)


@cache
def characters(root: Path) -> tuple[Tensor, int]:
    """Return tiny Shakespeare as numbers, and how many different characters there are."""
    text = (root / "tinyshakespeare.txt").read_text(encoding="utf-8")
    known = {symbol: number for number, symbol in enumerate(sorted(set(text)))}
    return torch.tensor([known[symbol] for symbol in text]), len(known)


def windows(ids: Tensor, begin: float, end: float) -> TensorDataset:
    """Return all windows of a part of the text, side by side, and what follows each place."""
    first, last = (int(share * len(ids)) for share in (begin, end))
    count = (last - first - 1) // LENGTH
    inputs, targets = (ids[first + i : first + i + count * LENGTH] for i in (0, 1))
    return TensorDataset(inputs.view(count, LENGTH), targets.view(count, LENGTH))


def _character_model(root: Path, steps: int = CHARACTER_STEPS, **sizes: int) -> Network:
    """Nine tenths of the text are trained on, the last twentieth is the test."""
    ids, symbols = characters(root)
    train, test = windows(ids, 0.0, 0.9), windows(ids, 0.95, 1.0)
    torch.manual_seed(0)
    module, (inputs, targets) = CharacterModel(symbols, **sizes), train.tensors

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        some = torch.randint(len(inputs), (24,), generator=generator)
        return inputs[some], targets[some]

    trained_here(
        f"shakespeare-{len(module.blocks)}x{module.norm.weight.numel()}", module, draw, steps
    )
    hint = torch_pruning.CHARACTER_MODEL
    return Network(module, inputs[:1], train, test, hint=hint, batch_size=32)


def _drawn(name: str, hint: Hint, root: Path) -> Network:
    """Return a network of torchvision with random weights, which have no influence on its time;
    redrawn, so that no output is constant."""
    module = getattr(torchvision.models, name)(weights=None).eval()
    redraw_(drawable(module), seed=0)
    generator = torch.Generator().manual_seed(0)
    return Network(module, torch.randn(1, 3, 224, 224, generator=generator), hint=hint)


def _sentences(root: Path) -> Network:
    """Calibrated and trained on the validation text without labels, judged on the test text."""
    weights = modules.MINILM.required()
    module = modules.sentence_encoder(weights)
    train, test = (
        modules.windows(weights.parent, root / f"wikitext2_{part}.txt", count)
        for part, count in (("valid", modules.WINDOWS), ("test", modules.JUDGED))
    )
    with torch.inference_mode():
        wanted = torch.cat([module(part) for part in test.split(64)]).clone()
    hint = Hint(modules.heads_and_widths, modules.count_attention_heads)
    data = TensorDataset(train), TensorDataset(test, wanted)
    return Network(
        *(module, train[:1], *data),
        metric=fidelity,
        hint=hint,
        batch_size=32,
        carried=modules.MINILM,
        judge=partial(modules.judge_embeddings, wanted, test),
    )


def _efficientnet(root: Path) -> Network:
    """Every other photo is calibrated on; the others are judged."""
    module = modules.image_classifier(modules.EFFICIENTNET.required())
    train, test = (TensorDataset(*modules.photos(root, first)) for first in (0, 1))
    return Network(module, train.tensors[0][:1], train, test, carried=modules.EFFICIENTNET)


def _voices(_: Path) -> Network:
    """Calibrated and trained on some languages without labels, judged on others."""
    module = voices.voice_encoder(voices.ENCODER.required())
    train = voices.windows_of(voices.CALIBRATED, voices.SPEEDS, 10)
    test = voices.windows_of(voices.JUDGED, (1.0,), 20)
    with torch.inference_mode():
        wanted = module(test).clone()
    return Network(
        *(module, train[:1], TensorDataset(train), TensorDataset(test, wanted)),
        metric=fidelity,
        batch_size=32,
        carried=voices.ENCODER,
        judge=partial(modules.judge_embeddings, wanted, test),
    )


def _stories_folder(root: Path) -> Network:
    """The same weights as a transformers folder, and text: ours are made of the folder."""
    folder = language.folder_of(root)
    train, test = (language.samples(folder, part) for part in ("train", "test"))
    options = {"data": str(folder / "train.txt"), "test": str(folder / "test.txt")}
    return Network(
        language.Logits(language.load_model(folder)).eval(),
        train.tensors[0][:1],
        *(train, test, language.next_token_loss, language.next_token_loss),
        hint=Hint(language.perceptron_widths),
        batch_size=16,
        model=f"hf:{folder}",
        texts={**options, "length": language.LENGTH},
    )


STORIES_FOLDER = "stories260k, a folder"
IN_NATS = ("stories260k", STORIES_FOLDER)
"""Judged by a loss, in nats."""
BY_FIDELITY = ("all-MiniLM-L6-v2", "voice encoder")
"""Judged by how near outputs are to the original's; all others by the share that is right."""

TIMED: Mapping[str, Hint] = {
    "resnet50": torch_pruning.LAST_LAYER,
    "mobilenet_v2": torch_pruning.LAST_LAYER,
    "vit_b_16": torch_pruning.VISION_TRANSFORMER,
}

ALL: Mapping[str, Callable[[Path], Network | FileNetwork]] = {
    "ResNet-20": partial(resnet, 20),
    "ResNet-56": partial(resnet, 56),
    "MobileNet-V1": partial(_thirds, "mobilenet_v1"),
    "MobileNet-V2": partial(_thirds, "mobilenet_v2"),
    "stories260k": _stories,
    STORIES_FOLDER: _stories_folder,
    "character GPT": _character_model,
    "Vision Transformer": _vision_transformer,
    **{name: partial(_drawn, name, hint) for name, hint in TIMED.items()},
    "all-MiniLM-L6-v2": _sentences,
    "EfficientNet-lite0": _efficientnet,
    "voice encoder": _voices,
    **FILES,
}
"""Every network by name, made from the folder with the data."""

CARRIED: Mapping[str, Sequence[Carried]] = {
    "all-MiniLM-L6-v2": (modules.MINILM,),
    "EfficientNet-lite0": (modules.EFFICIENTNET, modules.EFFICIENTNET_CLASS),
    "voice encoder": (voices.ENCODER, voices.SPEECH),
    **{name: (make(Path()).carried,) for name, make in FILES.items()},
}
"""What lies in packages, which need not be installed."""
