"""Options of whatever opens a model, and of whatever scores its channels.

Annotations here and in what inherits are evaluated at once: the reader of a sub-class's fields
looks names up in the sub-class's module alone.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_type_hints

from cyclopts import Parameter

from compressor.options.checks import at_least, check_kind, count_of, refusal
from compressor.options.spelling import (
    CHOICE,
    DATA,
    MODEL,
    RECOVERY,
    RUN,
    listed_numbers,
    option,
    repeated,
    several,
    switch,
)

CriterionName = Literal[
    "auto",
    "reconstruction",
    "l2",
    "l1",
    "lp",
    "lamp",
    "geometric-median",
    "bn-scale",
    "gradient",
    "taylor",
    "taylor-elementwise",
    "fisher",
    "activation",
    "wanda",
    "flap",
    "random",
]
ReductionName = Literal["mean", "sum", "max", "product", "first"]
NormalisationName = Literal["usual", "none", "mean", "sum", "max", "norm", "standardise", "lamp"]
Role = Literal["stream", "head_width", "experts", "block"]
Augment = Literal["none", "crop", "crop-flip"]


LEAST_MEMORY = 10**6


@dataclass(frozen=True)
class Checked:
    """Options that are of their kinds."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            check_kind(name, getattr(self, name), hint)


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions(Checked):
    """How MODEL is opened; raises UsageError for a value that cannot be meant."""

    input: Annotated[tuple[str, ...], repeated(MODEL, "SPEC")] = ()
    """Shape of an input, as [name=]1x3x224x224[:int64<512]. Repeat for several inputs."""

    factory: Annotated[str | None, option(MODEL, "SPEC")] = None
    """Builds the network for a state dict: 'torchvision:resnet50', 'timm:resnet18', \
'package.module:callable' or 'path/file.py:callable'."""

    factory_arg: Annotated[tuple[str, ...], repeated(MODEL, "NAME=VALUE")] = ()
    """An argument of the factory, e.g. num_classes=10 or variant=small. Repeatable."""

    weights: Annotated[str | None, option(MODEL, "FILE")] = None
    """State dict for a MODEL that is a factory."""

    weights_key: Annotated[str | None, option(MODEL, "KEY")] = None
    """Where the weights are in a checkpoint, e.g. 'state_dict_ema' or 'ema.module'; default: what \
fits, weights before their averages."""

    ignore_unexpected: Annotated[tuple[str, ...], repeated(MODEL, "GLOB")] = ()
    """Tensors of a checkpoint that the network does without, e.g. 'aux.*'. Repeatable."""

    pretrained: Annotated[bool, switch(MODEL)] = False
    """The library's own pretrained weights, for a torchvision or timm MODEL."""

    trust_pickle: Annotated[bool, switch(MODEL)] = False
    """Load a file that can run code. Only for files whose author you trust."""


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions(Checked):
    """Samples, and how they are read and measured; raises UsageError for a value that cannot be
    meant."""

    data: Annotated[tuple[str, ...], several(DATA, "TRAIN")] = ()
    """Training data: .npz files (images, labels; or inputs, or arrays named like the network's \
inputs, and targets), .npy files, text (.txt, or .jsonl, .csv, .parquet with a column text), a \
folder of them, of images or of recordings (a sub-folder per class), or 'package.module:name' or \
'path/file.py:name' of a dataset, a DataLoader, a list of samples, a dict of columns, or a \
function that returns one. Calibrates and fine-tunes."""

    test: Annotated[tuple[str, ...], several(DATA, "TEST")] = ()
    """Data that is only evaluated on; without it a tenth of --data is held out."""

    mean: Annotated[tuple[float, ...], listed_numbers(DATA, "R,G,B")] = ()
    """Per colour, subtracted after dividing by 255; default ImageNet's, 0.5 for grey."""

    std: Annotated[tuple[float, ...], listed_numbers(DATA, "R,G,B")] = ()
    """Per colour, divided by afterwards; default ImageNet's, 0.5 for grey."""

    sample_rate: Annotated[int | None, option(DATA, "HZ")] = None
    """Recordings are resampled to it; default their own."""

    window: Annotated[float | None, option(DATA, "SECONDS")] = None
    """Length of the pieces that recordings are cut into; default that of the network's input."""

    length: Annotated[int | None, option(DATA, "TOKENS")] = None
    """Length of the windows that text is cut into, and the most that a row of a table has; \
default 512, or what the network takes if that is less."""

    tokenizer: Annotated[str | None, option(DATA, "FOLDER")] = None
    """Folder of the tokenizer that text is read with; default that of the transformers folder."""

    batch_size: Annotated[int, option(DATA, "N")] = 64
    """Samples per step of calibration (fewer where --memory asks for it), fine-tuning and \
evaluation."""

    metric: Annotated[str | None, option(DATA, "SPEC")] = None
    """'module:name' of what is called with (outputs, target), or one of top1, perplexity, \
embedding_shift and fidelity: the cosine with the original's outputs. Default what the network is \
for; top-1 accuracy where nothing tells it, without labels fidelity."""

    seed: Annotated[int, option(RUN, "N")] = 0
    """Seed of everything that is random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, batch_size=2)
        if self.length is not None:
            at_least(self, length=2)
        if self.sample_rate is not None:
            at_least(self, sample_rate=1)
        if self.window is not None and not 0 < self.window < math.inf:
            raise refusal("window", f"it is a length in seconds, not {self.window:g}")
        if any(not deviation > 0 for deviation in self.std):
            raise refusal("std", "a standard deviation is positive")


@Parameter(name="*")
@dataclass(frozen=True)
class ScoringOptions(ModelOptions, DataOptions):
    """What channels are scored by, and on which data; raises UsageError for a value that cannot be
    meant."""

    criterion: Annotated[CriterionName, option(CHOICE)] = "auto"
    """How important a channel is; --list-criteria says what each name measures, and which need \
--data. auto: reconstruction where there is --data, else l2."""

    norm_p: Annotated[float, option(CHOICE, "P")] = 2.0
    """The p of the criterion lp."""

    reduction: Annotated[ReductionName, option(CHOICE)] = "mean"
    """How the numbers of a channel's parameters become one; first: that of the layer that makes \
it."""

    normalise: Annotated[NormalisationName, option(CHOICE)] = "usual"
    """What each group's scores are divided by, so that groups compare; standardise: mean 0 and \
deviation 1; lamp: shares of what is not smaller; usual: mean, unless the criterion has its own."""

    protect: Annotated[tuple[str, ...], repeated(CHOICE, "GLOB")] = ()
    """Modules or parameters that stay as they are, e.g. 'layer1.*'. Repeatable."""

    prune: Annotated[tuple[Role, ...], repeated(CHOICE, "ROLE")] = ()
    """Prune a role that is left alone otherwise: 'stream', residual streams that cross a \
LayerNorm's statistics (approximate); 'head_width', the widths of attention's heads; 'experts', \
whole experts of a mixture (approximate: routers choose among fewer); 'block', \
whole branches that are added to a stream (needs --data; with --of latency they go without being \
asked for). Repeatable."""

    augment: Annotated[Augment, option(DATA)] = "none"
    """Random changes of the training images, while fine-tuning and, beside the images as they \
are, for calibration."""

    calibration: Annotated[int, option(RECOVERY, "N")] = 1024
    """Samples of --data that criteria look at and that the network is repaired on; labels are not \
needed for reconstruction and repair."""

    loss: Annotated[str | None, option(RECOVERY, "SPEC")] = None
    """'module:name' of what is called with (outputs, target), e.g. torch.nn:L1Loss; default \
cross-entropy, or distillation from the original where the data has no labels."""

    device: Annotated[str, option(RUN)] = "cpu"
    """Where data runs through the network: cpu, cuda, cuda:1, mps."""

    memory: Annotated[str | None, option(RUN, "BYTES")] = None
    """Most that choice and repair by data take beside the network, e.g. 4G; samples run through \
it in batches that fit, and layers too large are re-fitted part by part. Default: half of what is \
free, 3 GB at most."""

    @property
    def memory_bytes(self) -> int | None:
        """Return `memory` in bytes; None where the default is taken."""
        return None if self.memory is None else count_of("memory", self.memory)

    @property
    def scores(self) -> bool:
        """Return whether the command scores channels at all."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, calibration=1)
        if self.memory_bytes is not None and self.memory_bytes < LEAST_MEMORY:
            raise refusal("memory", f"{self.memory} is less than {LEAST_MEMORY:,} bytes")
        if not 0 < self.norm_p < math.inf:
            raise refusal("norm_p", f"p is a positive number, not {self.norm_p:g}")
