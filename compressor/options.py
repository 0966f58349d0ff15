"""What a user may choose: one dataclass for the command line and for Python, checked once.

Every field is plain data (numbers, texts), so that a report can repeat it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token

from compressor.errors import UsageError

DEFAULT_RATIO = 0.5
MOST = 0.9
"""No layer loses a larger share of its channels."""

Quantity = Literal["macs", "params", "channels"]
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
    "random",
]
ReductionName = Literal["mean", "sum", "max", "product", "first"]
NormalisationName = Literal["usual", "none", "mean", "sum", "max", "norm", "standardise", "lamp"]
Scope = Literal["global", "layer", "isomorphic"]
Role = Literal["stream"]
Augment = Literal["none", "crop", "crop-flip"]

_BUDGET = Group("How much is removed", sort_key=1)
_CHOICE = Group("Which channels are removed", sort_key=2)
_MODEL = Group("The model", sort_key=3)
_DATA = Group("Data", sort_key=4)
_RECOVERY = Group("Recovering accuracy", sort_key=5)
_RUN = Group("The run", sort_key=6)


def _numbers(_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    return tuple(float(number) for token in tokens for number in token.value.split(",") if number)


def _option(group: Group, metavar: str | None = None) -> Parameter:
    return Parameter(group=group, metavar=metavar, negative=())


def _flag(group: Group) -> Parameter:
    return Parameter(group=group, negative=(), show_default=False)


def _several(group: Group, metavar: str) -> Parameter:
    return Parameter(
        group=group, metavar=metavar, negative=(), consume_multiple=True, show_default=False
    )


def _repeated(group: Group, metavar: str) -> Parameter:
    return Parameter(group=group, metavar=metavar, negative=(), show_default=False)


def _listed_numbers(group: Group, metavar: str) -> Parameter:
    return Parameter(
        group=group,
        metavar=metavar,
        negative=(),
        consume_multiple=True,
        converter=_numbers,
        show_default=False,
    )


@dataclass(frozen=True)
class Limit:
    """At most `most` of a unit, as the option of that name says."""

    option: str
    unit: Quantity
    most: int


LIMITS: Mapping[str, Quantity] = {"max_macs": "macs", "max_params": "params"}


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """How MODEL is opened; raises UsageError for a value that cannot be meant."""

    input: Annotated[tuple[str, ...], _repeated(_MODEL, "SPEC")] = ()
    """Shape of an input, as [name=]1x3x224x224[:int64<512]. Repeat for several inputs."""

    factory: Annotated[str | None, _option(_MODEL, "SPEC")] = None
    """Builds the network for a state dict: 'torchvision:resnet50', 'timm:resnet18', \
'package.module:callable' or 'path/file.py:callable'."""

    factory_arg: Annotated[tuple[str, ...], _repeated(_MODEL, "NAME=VALUE")] = ()
    """An argument of the factory, e.g. num_classes=10. Repeatable."""

    weights: Annotated[str | None, _option(_MODEL, "FILE")] = None
    """State dict for a MODEL that is a factory."""

    pretrained: Annotated[bool, _flag(_MODEL)] = False
    """The library's own pretrained weights, for a torchvision or timm MODEL."""

    trust_pickle: Annotated[bool, _flag(_MODEL)] = False
    """Load a file that can run code. Only for files whose author you trust."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check_kind(name, getattr(self, name), hint)


@Parameter(name="*")
@dataclass(frozen=True)
class ScoringOptions(ModelOptions):
    """What channels are scored by, and on which data; raises UsageError for a value that cannot be
    meant."""

    criterion: Annotated[CriterionName, _option(_CHOICE)] = "auto"
    """How important a channel is; --list-criteria says what each name measures, and which need \
--data. auto: reconstruction where there is --data, else l2."""

    norm_p: Annotated[float, _option(_CHOICE, "P")] = 2.0
    """The p of the criterion lp."""

    reduction: Annotated[ReductionName, _option(_CHOICE)] = "mean"
    """How the numbers of a channel's parameters become one; first: that of the layer that makes \
it."""

    normalise: Annotated[NormalisationName, _option(_CHOICE)] = "usual"
    """What each group's scores are divided by, so that groups compare; standardise: mean 0 and \
deviation 1; lamp: shares of what is not smaller; usual: mean, unless the criterion has its own."""

    protect: Annotated[tuple[str, ...], _repeated(_CHOICE, "GLOB")] = ()
    """Modules or parameters that stay as they are, e.g. 'layer1.*'. Repeatable."""

    prune: Annotated[tuple[Role, ...], _repeated(_CHOICE, "ROLE")] = ()
    """Prune a role that is left alone otherwise: 'stream', residual streams that cross a \
LayerNorm's statistics (approximate). Repeatable."""

    data: Annotated[tuple[str, ...], _several(_DATA, "TRAIN")] = ()
    """Training data: .npz files (images, labels), a folder with one sub-folder per class, or \
'package.module:callable' returning a dataset. Calibrates and fine-tunes."""

    test: Annotated[tuple[str, ...], _several(_DATA, "TEST")] = ()
    """Data that is only evaluated on; without it a tenth of --data is held out."""

    mean: Annotated[tuple[float, ...], _listed_numbers(_DATA, "R,G,B")] = ()
    """Per colour, subtracted after dividing by 255; default ImageNet's, 0.5 for grey."""

    std: Annotated[tuple[float, ...], _listed_numbers(_DATA, "R,G,B")] = ()
    """Per colour, divided by afterwards; default ImageNet's, 0.5 for grey."""

    augment: Annotated[Augment, _option(_DATA)] = "none"
    """Random changes of the training images, while fine-tuning and, beside the images as they \
are, for calibration."""

    batch_size: Annotated[int, _option(_DATA, "N")] = 64
    """Samples per step of calibration, fine-tuning and evaluation."""

    calibration: Annotated[int, _option(_RECOVERY, "N")] = 1024
    """Samples of --data that criteria look at and that the network is repaired on; labels are not \
needed for reconstruction and repair."""

    loss: Annotated[str | None, _option(_RECOVERY, "SPEC")] = None
    """'module:callable' called with (outputs, target); default cross-entropy, or distillation \
from the original where the data has no labels."""

    metric: Annotated[str | None, _option(_DATA, "SPEC")] = None
    """'module:callable' called with (outputs, target); default top-1 accuracy."""

    seed: Annotated[int, _option(_RUN, "N")] = 0
    """Seed of everything that is random."""

    device: Annotated[str, _option(_RUN)] = "cpu"
    """Where data runs through the network: cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, batch_size=2, calibration=1)
        if any(not deviation > 0 for deviation in self.std):
            raise _refusal("std", "a standard deviation is positive")
        if not 0 < self.norm_p < math.inf:
            raise _refusal("norm_p", f"p is a positive number, not {self.norm_p:g}")


@Parameter(name="*")
@dataclass(frozen=True)
class SensitivityOptions(ScoringOptions):
    """The choices of one measurement of sensitivity; raises UsageError for a value that cannot be
    meant."""

    ratios: Annotated[tuple[float, ...], _listed_numbers(_BUDGET, "SHARE,…")] = (
        0.1,
        0.3,
        0.5,
        0.7,
        0.9,
    )
    """Shares of its channels that each group loses, one after the other; default \
0.1,0.3,0.5,0.7,0.9."""

    samples: Annotated[int, _option(_DATA, "N")] = 256
    """Samples that each cut is measured on: of --test, else of a tenth of --data that is held \
out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, samples=1)
        if not self.ratios or any(not 0 < ratio < 1 for ratio in self.ratios):
            raise UsageError(
                "the ratios are shares between 0 and 1",
                where="--ratios",
                consequence="nothing was loaded",
                next_step="for example: --ratios 0.1,0.3,0.5,0.7,0.9",
            )


@Parameter(name="*")
@dataclass(frozen=True)
class Options(ScoringOptions):
    """The choices of one run; raises UsageError for a value that cannot be meant."""

    ratio: Annotated[float | None, _option(_BUDGET, "SHARE")] = None
    """Share to remove of the whole network's total, between 0 and 1; default 0.5, or what \
--layer-ratio removes where that is given."""

    max_macs: Annotated[str | None, _option(_BUDGET, "N")] = None
    """Instead of --ratio: at most so many multiply-adds for one sample, e.g. 2G or 350M."""

    max_params: Annotated[str | None, _option(_BUDGET, "N")] = None
    """Instead of --ratio: at most so many parameters, e.g. 5M."""

    of: Annotated[Quantity, _option(_BUDGET)] = "macs"
    """What the share is of: multiply-adds, parameters or channels."""

    scope: Annotated[Scope, _option(_BUDGET)] = "global"
    """Compare channels across the whole network, or take the same share of each layer, or of all \
layers of one shape."""

    layer_ratio: Annotated[tuple[str, ...], _repeated(_BUDGET, "GLOB=SHARE")] = ()
    """Share of its channels that each matching module loses, e.g. 'blocks.*=0.3'; 0 keeps all. \
The other modules make up --ratio. Repeatable; of several that match, the last one counts."""

    round_to: Annotated[int, _option(_BUDGET, "N")] = 1
    """Keep numbers of channels that are multiples of N."""

    use: Annotated[str | None, _option(_BUDGET, "FILE")] = None
    """The sensitivity.json of `compress sensitivity`: each layer is cut as far as it bears, so \
that --ratio is met at the smallest loss that any layer has on its own."""

    keep_class: Annotated[bool, _flag(_BUDGET)] = False
    """Prune only what your own class can follow as it is written (equal halves of a chunk, no \
layer replaced by its traced operators)."""

    best_effort: Annotated[bool, _flag(_BUDGET)] = False
    """Take what is reachable where the budget is not."""

    repair: Annotated[bool, Parameter(group=_RECOVERY, negative="--no-repair")] = True
    """Re-fit what consumes the removed channels by least squares on --data, after slicing."""

    epochs: Annotated[int, _option(_RECOVERY, "N")] = 0
    """Epochs of fine-tuning on --data."""

    lr: Annotated[float, _option(_RECOVERY, "RATE")] = 0.01
    """Highest learning rate of fine-tuning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None:
            _check_alone(self)
            object.__setattr__(self, "of", self.limit.unit)
        elif self.ratio is None and not (self.layer_ratios and self.use is None):
            object.__setattr__(self, "ratio", DEFAULT_RATIO)
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UsageError(
                f"the ratio is the share to remove, between 0 and 1, not {self.ratio:g}",
                where="--ratio",
                consequence="nothing was loaded",
                next_step="for half of the multiply-adds: --ratio 0.5",
            )
        _at_least(self, round_to=1, epochs=0)
        if self.use is not None and self.scope != "global":
            raise _refusal("use", "the measured losses rank the layers, so --scope has no say")
        if not self.lr > 0:
            raise _refusal("lr", f"a learning rate is positive, not {self.lr:g}")

    @property
    def limit(self) -> Limit | None:
        """What must not be exceeded, where no ratio is given."""
        for name, unit in LIMITS.items():
            given = getattr(self, name)
            if given is not None:
                return Limit(name, unit, _count(name, given))
        return None

    @property
    def layer_ratios(self) -> tuple[tuple[str, float], ...]:
        """`layer_ratio` as pairs of a glob and a share."""
        return tuple(map(_glob_and_share, self.layer_ratio))

    def spelled(self) -> list[str]:
        """The command line that says this: the ratio, and what is not the default."""
        words: list[str] = []
        for field in sorted(fields(self), key=lambda field: field.name != "ratio"):
            value = getattr(self, field.name)
            if value is None or (field.name != "ratio" and value == field.default):
                continue
            if isinstance(value, bool):
                words.append(flag(field.name) if value else flag(f"no_{field.name}"))
            else:
                listed = value if isinstance(value, tuple) else (value,)
                words += [word for item in listed for word in (flag(field.name), str(item))]
        return words

    @classmethod
    def of_keywords(cls, keywords: dict[str, Any]) -> Options:
        """Options from Python keywords; a single text stands for a list of one."""
        known = [field.name for field in fields(cls)]
        for name in keywords.keys() - set(known):
            near = difflib.get_close_matches(name, known, n=3) or known
            raise UsageError(
                f"there is no option {name!r}",
                where="compressor.compress",
                consequence="nothing was done",
                next_step=f"nearest: {', '.join(near)}",
            )
        defaults = {field.name: field.default for field in fields(cls)}
        numbers = LIMITS.keys() & {name for name, v in keywords.items() if isinstance(v, int)}
        keywords = {**keywords, **{name: str(keywords[name]) for name in numbers}}
        return cls(**{name: _as_kind_of(defaults[name], value) for name, value in keywords.items()})


def _as_kind_of(default: Any, value: Any) -> Any:
    if not isinstance(default, tuple):
        return value
    if isinstance(value, Mapping):
        return tuple(f"{name}={item}" for name, item in value.items())
    return (value,) if isinstance(value, str | int | float) else tuple(value)


_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


def _count(option: str, text: str) -> int:
    """A number such as 2G, 1.5M or 300000."""
    number = text.strip().lower().rstrip("kmgbt")
    suffix = text.strip().lower()[len(number) :]
    try:
        count = float(number) * _SUFFIXES[suffix]
    except (ValueError, KeyError):
        count = math.nan
    if not 1 <= count < math.inf:
        raise _refusal(option, f"{text!r} is no number such as 2G, 350M or 4000000")
    return int(count)


def _check_alone(options: Options) -> None:
    given = [name for name in ("ratio", *LIMITS) if getattr(options, name) is not None]
    assert options.limit is not None
    if len(given) > 1:
        raise _refusal(given[1], f"give one of {' and '.join(map(flag, given))}, not both")
    if options.of not in ("macs", options.limit.unit):
        raise _refusal("of", f"{flag(options.limit.option)} is of the {options.limit.unit}")


def _glob_and_share(text: str) -> tuple[str, float]:
    glob, _, share = text.rpartition("=")
    try:
        number = float(share)
    except ValueError:
        number = math.nan
    if not glob or not 0 <= number <= MOST:
        raise UsageError(
            f"{text!r} is not a glob and a share between 0 and {MOST:g}",
            where="--layer-ratio",
            consequence="nothing was loaded",
            next_step="for three tenths of the channels of each layer in blocks: "
            "--layer-ratio 'blocks.*=0.3'",
        )
    return glob, number


def flag(name: str) -> str:
    """The command line's spelling of an option: 'round_to' -> '--round-to'."""
    return "--" + name.replace("_", "-")


def _at_least(options: ModelOptions, **least: int) -> None:
    for name, bound in least.items():
        if getattr(options, name) < bound:
            raise _refusal(name, f"{getattr(options, name)} is below the least, {bound}")


def _refusal(name: str, what: str) -> UsageError:
    return UsageError(what, where=flag(name), consequence="nothing was loaded")


_KINDS: dict[Any, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    float | None: (int, float, type(None)),
    str: (str,),
    str | None: (str, type(None)),
}


def _check_kind(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) is tuple:
        for item in value:
            _check_kind(name, item, get_args(hint)[0])
    elif get_origin(hint) is Literal:
        _check_choice(name, value, get_args(hint))
    elif not isinstance(value, _KINDS[hint]) or (isinstance(value, bool) and hint is not bool):
        raise _refusal(name, f"{value!r} is not of the kind that is wanted here, {hint}")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1) or choices[:1]
        raise UsageError(
            f"{value!r} is not one of {', '.join(choices)}",
            where=flag(name),
            consequence="nothing was loaded",
            next_step=f"for example: {flag(name)} {near[0]}",
        )
