"""Commands put together at random: a small network, what is around it, data, and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import numpy as np
import torch
from random_networks import PIECES, SIDE, RandomNetwork
from torch import Tensor, nn

INPUT = ("--input", f"2x2x{SIDE}x{SIDE}")
AROUND: Mapping[str, Callable[[nn.Module, Tensor], object]] = {
    "nothing": lambda network, x: network(x),
    "a pair": lambda network, x: (network(x), x.mean()),
    "a dictionary": lambda network, x: {"logits": network(x), "auxiliary": None},
    "a list in a tuple": lambda network, x: (network(x), [x.relu()]),
    "one number": lambda network, x: network(x).mean(1),
    "tiny": lambda network, x: network(x) * 1e-12,
    "huge": lambda network, x: network(x) * 1e30,
    "constant": lambda network, x: network(x) * 0,
    "not a number": lambda network, x: network(x) / (x.sum() * 0),
    "infinite": lambda network, x: network(x).masked_fill(x.mean((2, 3))[:, :1] > 0, -torch.inf),
    "logarithms": lambda network, x: network(torch.log(x)),
    "complex numbers": lambda network, x: torch.complex(network(x), network(x)),
    "whole numbers": lambda network, x: network(x).argmax(1),
    "a branch": lambda network, x: network(x) if x.sum() > 0 else network(-x),
}
"""What a forward does before and after the network."""

SWITCHES = ("--keep-class", "--best-effort", "--prune stream", "--seed 3", "--round-to 1",
            "--round-to 2", "--calibration 4", "--device cpu", "--protect *head*",
            "--protect nothing",
            "--layer-ratio *=0.3", "--layer-ratio layers.*=0.9", "--norm-p 3", "--threads 2",
            "--batch 2", "--latency-on cpu", "--keep-parametrisations", "--trust-pickle",
            "--mean 0.5,0.5", "--std 1", "--input x:2x2x3x3", "--input 1x2x3x3:int64")  # fmt: skip
CHOICES: Mapping[str, tuple[str, ...]] = {
    "--ratio": ("0.1", "0.25", "0.5", "0.9", "0.999"),
    "--of": ("macs", "params", "channels"),
    "--scope": ("global", "layer", "isomorphic"),
    "--criterion": ("l1", "l2", "lp", "lamp", "geometric-median", "bn-scale", "random", "taylor",
                    "fisher", "wanda", "flap", "activation", "gradient"),
    "--reduction": ("mean", "sum", "max", "product", "first"),
    "--normalise": ("none", "mean", "max", "norm", "standardise", "lamp"),
    "--metric": ("top1", "mse", "no"),
    "--loss": ("mse", "cross-entropy"),
    "--batch-size": ("1", "7", "64"),
    "--steps": ("1", "2"),
    "--max-macs": ("10", "2k", "1G"),
    "--max-params": ("1", "100"),
    "--max-drop": ("0", "50"),
}  # fmt: skip


class Around(nn.Module):
    """A network with something around it."""

    def __init__(self, network: nn.Module, what: str) -> None:
        super().__init__()
        self.network, self.what = network, what

    def forward(self, x: Tensor) -> object:
        return AROUND[self.what](self.network, x)


def write_command(seed: int, folder: Path) -> list[str]:
    """Write net.pt and perhaps data.npz into a folder; the words of a command that uses them."""
    rng = Random(seed)
    torch.manual_seed(seed)
    size = rng.randrange(1, 7)
    recipe = [(rng.choice(PIECES), rng.randrange(31), rng.randrange(31)) for _ in range(size)]
    network: nn.Module = RandomNetwork(recipe)
    if rng.random() < 0.6:
        network = Around(network, rng.choice(list(AROUND)))
    if rng.random() < 0.1:
        network = rng.choice([nn.Module.half, nn.Module.double, nn.Module.bfloat16])(network)
    torch.save(network, folder / "net.pt")
    named = rng.random() < 0.9 or any(isinstance(layer, nn.RNNBase) for layer in network.modules())
    words = ["net.pt", "--trust-pickle", *(INPUT if named else ())]
    if rng.random() < 0.5:
        write_data(rng, folder / "data.npz")
        words += ["--data", "data.npz", *(["--epochs", "1"] if rng.random() < 0.2 else [])]
    for name in rng.sample(list(CHOICES), rng.randrange(4)):
        words += [name, rng.choice(CHOICES[name])]
    for switch in rng.sample(SWITCHES, rng.randrange(3)):
        words += switch.split()
    kind = rng.random()
    if kind < 0.1:
        return ["inspect", "net.pt", "--trust-pickle", *INPUT]
    return [*words, "--dry-run"] if kind < 0.4 else [*words, "--out", "out"]


def write_data(rng: Random, path: Path) -> None:
    """Arrays that fit the network, or that nearly do."""
    count = rng.choice([0, 1, 3, 40])
    side = rng.choice([SIDE, SIDE, SIDE, 5])
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 2), np.uint8)
    labels = {
        "classes": np.arange(count) % 3,
        "too many": np.arange(count),
        "numbers": np.linspace(-1, 1, count, dtype=np.float32),
        "rows": np.zeros((count, 3), np.float32),
        "fewer": np.zeros(count // 2, np.int64),
    }
    kind = rng.choice(["classes", "classes", "none", *labels])
    arrays = {"images": images} | ({} if kind == "none" else {"labels": labels[kind]})
    np.savez(path, **arrays)
