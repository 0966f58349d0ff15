"""Options of one compression."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self

from cyclopts import Parameter

from compressor.errors import UsageError
from compressor.files.format_table import FORMATS, HF, TARGETS
from compressor.hosts import Host, read_host
from compressor.options.checks import (
    at_least,
    check_choice,
    check_host,
    count_of,
    glob_and_share,
    refusal,
)
from compressor.options.recovery import TrainingOptions
from compressor.options.spelling import (
    BUDGET,
    CHOICE,
    DATA,
    LATENCY,
    RECOVERY,
    RUN,
    flag,
    listed_texts,
    named_in,
    option,
    repeated,
    several,
    switch,
)

DEFAULT_RATIO = 0.5

Quantity = Literal["macs", "params", "channels", "latency"]
Target = Literal["cpu", "cuda", "torch-cpu", "torch-cuda", "openvino", "executorch", "ncnn"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Schedule = Literal["one-shot", "linear", "geometric", "cubic", "cosine"]
Scope = Literal["global", "layer", "isomorphic"]


@dataclass(frozen=True)
class Limit:
    """At most `most` of a unit, as the option of that name says; latency in milliseconds."""

    option: str
    unit: Quantity
    most: float


LIMITS: Mapping[str, Quantity] = {
    "max_macs": "macs",
    "max_params": "params",
    "max_latency_ms": "latency",
}


_MAKING_STEPS = ("steps", "step_epochs", "sparsity_epochs")
"""Options of recovery after which channels are chosen."""


@Parameter(name="*")
@dataclass(frozen=True)
class Options(TrainingOptions):
    """The choices of one run; raises UsageError for a value that cannot be meant."""

    ratio: Annotated[float | None, option(BUDGET, "SHARE")] = None
    """Share to remove of the whole network's total, between 0 and 1; default 0.5, or what \
--layer-ratio removes where that is given."""

    max_macs: Annotated[str | None, option(BUDGET, "N")] = None
    """Instead of --ratio: at most so many multiply-adds for one sample, e.g. 2G or 350M."""

    max_params: Annotated[str | None, option(BUDGET, "N")] = None
    """Instead of --ratio: at most so many parameters, e.g. 5M."""

    max_latency_ms: Annotated[float | None, option(BUDGET, "MS")] = None
    """Instead of --ratio: at most so many milliseconds for one call."""

    max_drop: Annotated[float | None, option(BUDGET, "POINTS")] = None
    """Instead of --ratio: the smallest network, in what --of says, that loses at most so many \
points of accuracy (of perplexity, per cent) on --validation, with the recovery asked for."""

    of: Annotated[Quantity, option(BUDGET)] = "macs"
    """What the share is of: multiply-adds, parameters, channels, or the time of one call, which \
is measured (see --latency-on)."""

    plan: Annotated[str | None, option(BUDGET, "FILE")] = None
    """The plan.json of an earlier run: other weights of the same network are cut by it, and \
nothing is chosen."""

    scope: Annotated[Scope, option(BUDGET)] = "global"
    """Compare channels across the whole network, or take the same share of each layer, or of all \
layers of one shape."""

    layer_ratio: Annotated[tuple[str, ...], repeated(BUDGET, "GLOB=SHARE")] = ()
    """Share of its channels that each matching module loses, e.g. 'blocks.*=0.3'; 0 keeps all. \
The other modules make up --ratio. Repeatable; of several that match, the last one counts."""

    round_to: Annotated[int | Literal["auto"], option(BUDGET, "N")] = "auto"
    """Keep numbers of channels that are multiples of N. auto: of what kernels on this machine run \
well, which is measured once; 1: any number, so that the budget is met to within one channel."""

    use: Annotated[str | None, option(BUDGET, "FILE")] = None
    """The sensitivity.json of `compress sensitivity`: each layer is cut as far as it bears, so \
that --ratio is met at the smallest loss that any layer has on its own."""

    search: Annotated[int | Literal["auto"], option(BUDGET, "N")] = "auto"
    """Make so many smaller networks on a part of --calibration, and take the one whose outputs \
are nearest to the original's on other samples: with other blocks taken out, where those may go, \
and other shares of each layer. auto: 12 where blocks may go; 3 where channels are chosen by \
reconstruction and repaired: by the layers' errors as they are, by what the outputs have at \
stake, and the same share of each layer; none where one would take minutes. 0: none."""

    keep_class: Annotated[bool, switch(BUDGET)] = False
    """Prune only what your own class can follow as it is written (equal halves of a chunk, no \
layer replaced by its traced operators)."""

    uniform: Annotated[
        bool | None, Parameter(group=BUDGET, negative="--no-uniform", show_default=False)
    ] = None
    """Keep only widths that the configuration of a transformers model has numbers for, the same \
in all layers that share one, so that from_pretrained loads the result. Default: where the format \
hf is written."""

    keep_parametrisations: Annotated[bool, switch(BUDGET)] = False
    """Put weight norm and pruning masks back on the result, whose class must then follow as with \
--keep-class. Default: weights that are computed become plain ones."""

    best_effort: Annotated[bool, switch(BUDGET)] = False
    """Take what is reachable where the budget is not."""

    latency_on: Annotated[Target, option(LATENCY)] = "cpu"
    """Where the network is run: cpu and cuda by ONNX Runtime, torch-cpu and torch-cuda by PyTorch \
(on a GPU as a CUDA graph), openvino, executorch and ncnn by these on the CPU, in which format the \
result is written then, too (the last two keep no record of their operators: ONNX Runtime times \
single layers). cuda is torch-cuda where ONNX Runtime has no CUDA."""

    latency_precision: Annotated[Precision, option(LATENCY)] = "fp32"
    """What PyTorch computes in there; anything but fp32 is timed with PyTorch."""

    threads: Annotated[int, option(LATENCY, "N")] = 1
    """Threads within one operator."""

    batch: Annotated[int, option(LATENCY, "N")] = 1
    """Samples in one call."""

    latency_table: Annotated[str | None, option(LATENCY, "FILE")] = None
    """A table of layers' times that was measured elsewhere: widths and --of latency go by it, and \
nothing is measured here. Default: measured on this machine, once, and kept."""

    on: Annotated[str | None, option(LATENCY, "HOST")] = None
    """Another machine where layers and networks are timed, by your own ssh, so that the result is \
fast there: ssh:user@host:port, or ssh: and a name of your ssh configuration. It needs Python 3.8 \
or later with onnxruntime and numpy; nothing is left there."""

    on_python: Annotated[str | None, option(LATENCY, "FILE")] = None
    """The Python to run there, e.g. ~/venv/bin/python; default python3 or python."""

    validation: Annotated[tuple[str, ...], several(DATA, "DATA")] = ()
    """Labelled data that epochs of training are compared on, or with --max-drop the size of the \
network is decided on; default a tenth of --data, which says little of the size if the network was \
trained on it."""

    steps: Annotated[int, option(RECOVERY, "N")] = 1
    """Prune in so many steps, each traced and scored anew after the one before was repaired."""

    schedule: Annotated[Schedule, option(RECOVERY)] = "geometric"
    """How much is gone after each of --steps. geometric: the same share of what is left in each; \
cubic: most in the first (Zhu and Gupta 2017); cosine: least in the first and the last."""

    step_epochs: Annotated[int, option(RECOVERY, "N")] = 0
    """Epochs of fine-tuning on --data after each of --steps but the last."""

    repair: Annotated[bool, Parameter(group=RECOVERY, negative="--no-repair")] = True
    """Re-fit what consumes the removed channels by least squares on --data, after slicing."""

    format: Annotated[tuple[str, ...] | None, listed_texts(RUN, "NAME,…")] = None
    """What is written beside the weights, the plan and the report: onnx (with what times it \
elsewhere), pt2 (a torch.export program), openvino, executorch, ncnn (a model of OpenVINO's, a \
program of ExecuTorch's and a model of ncnn's for phones and boards, each compared and timed in \
its own runtime), hf (of a transformers folder: such a folder again; alone, nothing is timed). \
Default: onnx and pt2, and hf where the model is such a folder. All are tried before anything else \
is done; what cannot be written is said, and the rest is."""

    def __post_init__(self) -> None:
        if self.format is not None:
            listed = (self.format,) if isinstance(self.format, str) else self.format
            names = (name for given in listed for name in str(given).split(","))
            object.__setattr__(self, "format", tuple(dict.fromkeys(names)))
        for name in self.format or ():
            check_choice("format", name, tuple(FORMATS))
        if self.uniform is False and HF in (self.format or ()):
            raise refusal("no_uniform", f"--format {HF} takes widths that a configuration can say")
        super().__post_init__()
        if self.keep_parametrisations:
            object.__setattr__(self, "keep_class", True)
        if self.plan is not None:
            _check_plan(self)
        if self.limit is not None:
            _check_alone(self)
            object.__setattr__(self, "of", self.limit.unit)
        elif (
            self.ratio is None
            and self.plan is None
            and self.max_drop is None
            and not (self.layer_ratios and self.use is None)
        ):
            object.__setattr__(self, "ratio", DEFAULT_RATIO)
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UsageError(
                f"the ratio is the share to remove, between 0 and 1, not {self.ratio:g}",
                where="--ratio",
                consequence="nothing was loaded",
                next_step="for half of the multiply-adds: --ratio 0.5",
            )
        at_least(self, step_epochs=0, steps=1, threads=1, batch=1)
        if self.round_to != "auto":
            at_least(self, round_to=1)
        if self.search != "auto":
            at_least(self, search=0)
        is_given = self.format is not None  # else it is settled when the model is known
        if is_given and self.latency_on in TARGETS and self.latency_on not in (self.format or ()):
            object.__setattr__(self, "format", (*(self.format or ()), self.latency_on))
        if self.latency_precision != "fp32" and "cuda" not in self.latency_on:
            raise refusal("latency_precision", "it is of GPUs; give --latency-on torch-cuda")
        check_host(self.on, self.on_python)
        if self.on is not None and self.latency_table is not None:
            raise refusal("on", "the table says what layers take; give --on or --latency-table")
        if self.on is not None and self.latency_on != "cpu":
            raise refusal("on", "ONNX Runtime runs there, on the CPU: --latency-on says otherwise")
        _check_drop(self)
        _check_steps(self)
        if self.use is not None and self.scope != "global":
            raise refusal("use", "the measured losses rank the layers, so --scope has no say")

    @property
    def scores(self) -> bool:
        """Return whether channels are scored: not where a plan is given."""
        return self.plan is None

    @property
    def trains(self) -> bool:
        """Return whether there are epochs: at the end, between steps or before the first cut."""
        return bool(self.epochs or self.step_epochs or self.sparsity_epochs)

    @property
    def host(self) -> Host | None:
        """Return the other machine that is measured; None where this one is."""
        return read_host(self.on, self.on_python or "") if self.on is not None else None

    @property
    def limit(self) -> Limit | None:
        """Return what must not be exceeded; None where a ratio is given instead."""
        for name, unit in LIMITS.items():
            given = getattr(self, name)
            if given is not None:
                return Limit(name, unit, _most(name, given))
        return None

    @property
    def layer_ratios(self) -> tuple[tuple[str, float], ...]:
        """Return `layer_ratio` as pairs of a glob and the share that is removed there."""
        return tuple(map(glob_and_share, self.layer_ratio))

    def spelled(self) -> list[str]:
        """Return the options as words of a command line: the ratio, and what is not the default."""
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
    def of_keywords(cls, keywords: dict[str, Any]) -> Self:
        """Build options from Python keywords; a single text stands for a list of one.

        Raises:
            UsageError: There is no option of a name, or a value cannot be meant.
        """
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
        numbers = {"max_macs", "max_params"} & {
            n for n, v in keywords.items() if isinstance(v, int)
        }
        keywords = {**keywords, **{name: str(keywords[name]) for name in numbers}}
        return cls(**{name: _as_kind_of(defaults[name], value) for name, value in keywords.items()})


def _as_kind_of(default: Any, value: Any) -> Any:
    if not isinstance(default, tuple):
        return value
    if isinstance(value, Mapping):
        return tuple(f"{name}={item}" for name, item in value.items())
    return (value,) if isinstance(value, str | int | float) else tuple(value)


def _most(option: str, given: str | float) -> float:
    if isinstance(given, str):
        return count_of(option, given)
    if not 0 < given < math.inf:
        raise refusal(option, f"{given:g} is no time in milliseconds")
    return given


def _check_drop(options: "Options") -> None:
    if options.max_drop is None:
        if options.validation and not options.trains:
            raise refusal("validation", "it decides with --max-drop or --epochs; give one of them")
        return
    if not 0 < options.max_drop < 100:
        raise refusal("max_drop", f"{options.max_drop:g} is no number of points between 0 and 100")
    others = [n for n in ("ratio", *LIMITS) if getattr(options, n) is not None]
    if others:
        raise refusal("max_drop", f"give one of {flag(others[0])} and --max-drop, not both")


def _check_plan(options: "Options") -> None:
    """Refuse, beside a plan, options that choose channels: they would have no say."""
    deciding = {*named_in(Options, BUDGET, CHOICE), *_MAKING_STEPS} - {"plan", "uniform"}
    for field in fields(options):
        if field.name in deciding and getattr(options, field.name) != field.default:
            raise refusal(field.name, "--plan has chosen already; give one of the two")


def _check_steps(options: "Options") -> None:
    if options.steps == 1:
        if options.step_epochs:
            raise refusal("step_epochs", "there is nothing between the steps of one; give --steps")
        return
    for name in ("layer_ratio", "use", "max_drop"):
        if getattr(options, name) not in (None, ()):
            raise refusal("steps", f"{flag(name)} is for the whole network, not for a step's")


def _check_alone(options: "Options") -> None:
    given = [name for name in ("ratio", *LIMITS) if getattr(options, name) is not None]
    assert options.limit is not None
    if len(given) > 1:
        raise refusal(given[1], f"give one of {' and '.join(map(flag, given))}, not both")
    if options.of not in ("macs", options.limit.unit):
        raise refusal("of", f"{flag(options.limit.option)} is of the {options.limit.unit}")
