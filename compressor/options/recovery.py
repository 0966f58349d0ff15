"""Options of training."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from compressor.options.checks import at_least, refusal
from compressor.options.model_and_data import ScoringOptions
from compressor.options.spelling import RECOVERY, option, switch

Optimizer = Literal["auto", "sgd", "adamw"]
Policy = Literal["continue", "rewind-rate", "rewind-weights", "reinitialise"]
Precision = Literal["auto", "fp32", "bf16"]


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingOptions(ScoringOptions):
    """How the smaller network is trained."""

    epochs: Annotated[int, option(RECOVERY, "N")] = 0
    """Epochs of fine-tuning on --data, a tenth of which is kept for validation."""

    lr: Annotated[float | None, option(RECOVERY, "RATE")] = None
    """Highest learning rate, from which half a cosine leads to zero; default 0.01 for sgd, \
0.0001 for adamw, ten times that with a --policy other than continue."""

    optimizer: Annotated[Optimizer, option(RECOVERY)] = "auto"
    """auto: adamw for networks with attention or recurrent layers, for others sgd with Nesterov \
momentum 0.9. Gradients are clipped to a norm of 5."""

    weight_decay: Annotated[float, option(RECOVERY, "RATE")] = 5e-4
    """Weight decay of matrices and kernels; biases and norms have none."""

    label_smoothing: Annotated[float, option(RECOVERY, "SHARE")] = 0.0
    """Share of a label that goes to all classes alike; the outputs of the original are smooth."""

    distill: Annotated[float | None, option(RECOVERY, "SHARE")] = None
    """Weight of the original's outputs beside the labels, from 0 to 1; default 0.5, and 0 with a \
--loss of your own. Without labels it is all that is learnt from."""

    accumulate: Annotated[int, option(RECOVERY, "N")] = 1
    """Batches whose gradients make one step."""

    compile: Annotated[bool, switch(RECOVERY)] = False
    """Compile the training step: minutes at first, then quicker."""

    capture: Annotated[bool, switch(RECOVERY)] = False
    """Record the training step as a CUDA graph and replay it: small networks train several \
times as fast on a GPU. For networks whose forward does the same in every step."""

    precision: Annotated[Precision, option(RECOVERY)] = "auto"
    """What training computes in; weights stay fp32. auto: bf16 on GPUs that have it, and on \
processors with units for it (AMX), where the network takes it."""

    train: Annotated[str | None, option(RECOVERY, "CALLABLE")] = None
    """Your own training step, e.g. own.py:step: called with (model, inputs, target), and teacher \
if it has such a parameter; returns the loss. For detection, segmentation, language."""

    policy: Annotated[Policy, option(RECOVERY)] = "continue"
    """What the training at the end begins from. rewind-rate: as left, at the learning rate of a \
first training; rewind-weights: those of --rewind-to; reinitialise: drawn anew (the control: \
training from scratch)."""

    rewind_to: Annotated[str | None, option(RECOVERY, "FILE")] = None
    """Weights of the same network from earlier in its training, which are cut as the network is."""

    sparsity_epochs: Annotated[int, option(RECOVERY, "N")] = 0
    """Epochs of training on --data before anything is cut, in which weak channels are made weaker \
(Fang et al. 2023)."""

    sparsity: Annotated[float, option(RECOVERY, "STRENGTH")] = 5e-4
    """How hard --sparsity-epochs press."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, epochs=0, sparsity_epochs=0, accumulate=1)
        if self.lr is not None and not self.lr > 0:
            raise refusal("lr", f"a learning rate is positive, not {self.lr:g}")
        if not self.weight_decay >= 0:
            raise refusal("weight_decay", f"{self.weight_decay:g} is below zero")
        if not 0 <= self.label_smoothing < 1:
            raise refusal("label_smoothing", f"{self.label_smoothing:g} is no share below 1")
        if self.distill is not None and not 0 <= self.distill <= 1:
            raise refusal("distill", f"{self.distill:g} is no share between 0 and 1")
        if not self.sparsity > 0:
            raise refusal("sparsity", f"{self.sparsity:g} presses nothing; it is above zero")
        if self.policy != "continue" and not self.epochs:
            raise refusal("policy", "it is for the training at the end; give --epochs")
        if (self.policy == "rewind-weights") != (self.rewind_to is not None):
            raise refusal("rewind_to", "it goes with --policy rewind-weights, and only with that")
