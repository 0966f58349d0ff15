"""Define how a network is trained: the defaults, and what they become where left open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compressor.errors import UsageError
from compressor.graph.sequence_layers import sequence_layers

LEARNING_RATES: Mapping[str, float] = {"sgd": 0.01, "adamw": 1e-4}
"""Learning rates of a network that was trained before: a tenth of what training from the start
takes."""

FIRST_LEARNING_RATES: Mapping[str, float] = {"sgd": 0.1, "adamw": 1e-3}
"""Learning rates of a network that begins anew, or whose learning rate is wound back to where
its training began (Renda et al. 2020, Comparing Rewinding and Fine-tuning in Neural Network
Pruning)."""


def optimizer_for(program: ExportedProgram) -> tuple[str, str]:
    """Choose an optimizer for a network; return its name, and what of the network asks for it.

    Gradients of attention and of recurrent layers differ in scale from layer to layer, which the
    steps of AdamW do not follow; other networks are trained by SGD (cf. Zhang et al. 2020, Why are
    Adaptive Methods Good for Attention Models?).
    """
    reason = sequence_layers(program)
    return ("adamw", reason) if reason else ("sgd", "")


WARM_UP = 0.05
"""The share of the steps during which the learning rate rises."""


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes:
        epochs: Passes over the data.
        lr: Highest learning rate; half a cosine leads from there to zero.
        optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
        weight_decay: Weight decay of matrices and kernels; biases and norms have none.
        clip: Largest norm of all gradients together.
        accumulate: Batches whose gradients make one step.
        precision: "fp32", "bf16" (autocast; weights stay float32), or "auto": bf16 where matrices
            of it are multiplied faster.
        seed: Seed of dropout and its like.
        horizon: Epochs of the whole schedule, where this is a part of one that others go on with.
        compiled: Whether steps are compiled; the first ones take minutes.
        captured: Whether a step is recorded once as a CUDA graph, and replayed: for networks whose
            forward does the same in every step. Not on the CPU.
        channels_last: Whether images lie channels last in memory; None: on GPUs, and where steps
            compute in bf16.
    """

    epochs: int
    lr: float = LEARNING_RATES["sgd"]
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    clip: float = 5.0
    accumulate: int = 1
    precision: str = "auto"
    seed: int = 0
    horizon: int | None = None
    compiled: bool = False
    captured: bool = False
    channels_last: bool | None = None

    def __post_init__(self) -> None:
        if self.epochs < 0 or not self.lr > 0 or self.accumulate < 1:
            raise UsageError(
                f"training for {self.epochs} epochs at a learning rate of {self.lr}, "
                f"{self.accumulate} batches a step: impossible",
                next_step="give at least one epoch and batch, and a rate above zero",
            )
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(
                f"there is no optimizer {self.optimizer!r}",
                next_step=f"choose one of {', '.join(OPTIMIZERS)}",
            )

    def uses_bf16(self, device: torch.device) -> bool:
        """Return whether steps on the device compute in bfloat16."""
        if self.precision != "auto":
            return self.precision == "bf16"
        return multiplies_bf16(device)

    def is_channels_last(self, device: torch.device) -> bool:
        """Return whether images are in channels-last memory format on the device."""
        if self.channels_last is not None:
            return self.channels_last
        return device.type == "cuda" or self.uses_bf16(device)

    @property
    def form(self) -> str:
        """What steps compute in, and how images lie, in words."""
        numbers = "bfloat16" if self.precision == "bf16" else "float32"
        return f"{numbers}, channels last" if self.channels_last else numbers


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether a device has units that multiply matrices of bfloat16.

    Processors have them with Intel's tiles (AMX); those whose vectors alone know the type multiply
    float32 faster than that.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


Rate = float | Tensor
Maker = Callable[[list[dict[str, object]], Rate, bool], torch.optim.Optimizer]


def _sgd(groups: list[dict[str, object]], lr: Rate, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=fused or None)


def _adamw(groups: list[dict[str, object]], lr: Rate, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=lr, fused=fused or None, capturable=fused)


OPTIMIZERS: Mapping[str, Maker] = {"sgd": _sgd, "adamw": _adamw}


def optimizer_of(
    parameters: list[nn.Parameter], recipe: Recipe, *, on: torch.device | None = None
) -> torch.optim.Optimizer:
    """Make the optimizer, with weight decay on what has several dimensions.

    Args:
        parameters: What is trained.
        recipe: Says which optimizer, its learning rate and weight decay.
        on: The device where all that a step reads lies, the learning rate too, so that the step can
            be recorded; None: it is not to be.
    """
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, object]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    lr = recipe.lr if on is None else torch.tensor(recipe.lr, device=on)
    return OPTIMIZERS[recipe.optimizer](groups, lr, on is not None)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate; one that lies on a device is changed there."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def cosine(step: int, steps: int) -> float:
    """Return a step's factor of the learning rate: a short rise, then half a cosine to 0."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
