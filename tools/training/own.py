"""ResNets of CIFAR-10 trained from the start, once, and kept in torch's cache."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compressor.files.whole_file import write_whole
from compressor.loading.data import Batches
from compressor.recover import Recipe, fine_tune
from compressor.recover.recipe import FIRST_LEARNING_RATES
from tools.cifar_resnet import CifarResNet
from tools.training.kept import Kept

EPOCHS = 15


def trained_here(depth: int, train: Batches) -> nn.Module:
    """In eval mode; a training that was stopped goes on at its last whole epoch."""
    cache = Path(torch.hub.get_dir()) / "compressor"
    name = f"cifar10_resnet{depth}_{EPOCHS}epochs"
    file, kept = cache / f"{name}.safetensors", Kept(cache)
    torch.manual_seed(0)
    module = CifarResNet(depth)
    if not file.exists():
        recipe = Recipe(EPOCHS, lr=FIRST_LEARNING_RATES["sgd"])
        fine_tune(
            *(module, train, recipe),
            state=kept.state(name),
            after_epoch=lambda reached: kept.keep(name, reached),
        )
        with write_whole(file) as temporary:
            save_file(module.state_dict(), temporary)
        kept.drop(name)
    module.load_state_dict(load_file(file))
    return module.eval()
