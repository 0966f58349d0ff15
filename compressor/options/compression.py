"""Options of one compression."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self

from cyclopts import Parameter

from compressor.errors import UsageError
from compressor.files.format_table import FORMATS, HF, TARGETS
from compressor.hosts import Host, read_host
from compressor.options.budget import BudgetOptions
from compressor.options.checks import (
    at_least,
    check_choice,
    check_host,
    refusal,
)
from compressor.options.spelling import (
    DATA,
    LATENCY,
    RECOVERY,
    RUN,
    flag,
    listed_texts,
    option,
    several,
)

Target = Literal["cpu", "cuda", "torch-cpu", "torch-cuda", "openvino", "executorch", "ncnn"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Schedule = Literal["one-shot", "linear", "geometric", "cubic", "cosine"]


@Parameter(name="*")
@dataclass(frozen=True)
class Options(BudgetOptions):
    """The choices of one run; raises UsageError for a value that cannot be meant."""

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
        at_least(self, step_epochs=0, steps=1, threads=1, batch=1)
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
        if self.validation and self.max_drop is None and not self.trains:
            raise refusal("validation", "it decides with --max-drop or --epochs; give one of them")
        _check_steps(self)

    @property
    def trains(self) -> bool:
        """Return whether there are epochs: at the end, between steps or before the first cut."""
        return bool(self.epochs or self.step_epochs or self.sparsity_epochs)

    @property
    def host(self) -> Host | None:
        """Return the other machine that is measured; None where this one is."""
        return read_host(self.on, self.on_python or "") if self.on is not None else None

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


def _check_steps(options: "Options") -> None:
    if options.steps == 1:
        if options.step_epochs:
            raise refusal("step_epochs", "there is nothing between the steps of one; give --steps")
        return
    for name in ("layer_ratio", "use", "max_drop"):
        if getattr(options, name) not in (None, ()):
            raise refusal("steps", f"{flag(name)} is for the whole network, not for a step's")
