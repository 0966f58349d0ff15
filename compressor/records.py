"""Define the frozen records that the stages hand to one another; stages never import each other."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

PLAN_SCHEMA = 1

RANDOM = "random weights"
AS_MADE = "as the factory made them"
"""Origin of the weights of a factory that is not a library's own: it may draw or load them."""


@dataclass(frozen=True)
class ExampleInputs:
    """Inputs that the model accepts: `model(*args, **kwargs)`.

    Attributes:
        args: Positional inputs.
        kwargs: Inputs by name.
        origin: Where they come from, in words that are printed ("--input", "a guess").
        has_free_sizes: Whether sizes were made up that the model leaves open: samples, where there
            are some, say them.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "given"
    has_free_sizes: bool = False


@dataclass(frozen=True)
class ModelFolder:
    """The transformers folder that a model was loaded from.

    Attributes:
        root: The folder that was given.
        transformer: Where in it config.json and the weights lie: "." or, in a folder of
            sentence-transformers, the name of a folder.
    """

    root: Path
    transformer: str = "."

    @property
    def home(self) -> Path:
        """Return the folder that holds config.json and the weights."""
        return self.root / self.transformer


@dataclass(frozen=True)
class LoadedModel:
    """A model as it is loaded from a MODEL.

    Attributes:
        module: The network that is worked on: it computes in float32 by weights that are plain
            parameters.
        name: A short name.
        recognised: What the file or spec was taken for, in words.
        weights: "loaded", "pretrained", "given", `RANDOM` or `AS_MADE`.
        sha256: Hash of the weights' file, or of the tensors where none was read.
        examples: The example inputs that came with the model, if any.
        given: The network as it came.
        types: Original types of the tensors that were converted, by name.
        stored: Types in which a file held tensors, by name, where they differ.
        notes: What the user should know of how it was loaded.
        computed: How weights were computed from others (`compressor.loading.plain.Computed`).
        folder: The transformers folder that it comes from, if it does.
        is_held: Whether others may hold the module (it was given, or code of the user's made it),
            so that no copy may share its weights.
    """

    module: nn.Module
    name: str
    recognised: str
    weights: str
    sha256: str | None = None
    examples: ExampleInputs | None = None
    given: nn.Module | None = None
    types: Mapping[str, torch.dtype] = field(default_factory=dict)
    stored: Mapping[str, torch.dtype] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    computed: tuple[Any, ...] = ()
    folder: ModelFolder | None = None
    is_held: bool = False


@dataclass(frozen=True)
class Removal:
    """The blocks that are taken out of a network, and what goes with them.

    Attributes:
        blocks: Names of the blocks.
        tensors: Names of the parameters and buffers that nothing needs any more.
        passing: Path of a module that hands on what it is given, since all that it did is gone ->
            how its call meets the program, as for stand-ins.
        muted: Path of a module that gives zeros as large as what it is given, in the place of a
            branch -> the same.
        leaving: Paths of the items that leave their `Sequential` or `ModuleList` in the end, after
            which parameters have other names than in the original and in the result's files.
    """

    blocks: tuple[str, ...]
    tensors: tuple[str, ...] = ()
    passing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    muted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    leaving: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shorter:
    """How a traced network came about that has fewer blocks than the one that was given.

    Attributes:
        whole: The network as it was given.
        removal: What was taken out.
        stands_for: Name of a node -> name of the whole program's node whose value it should come
            close to, since what followed it there is gone.
        stand_ins: Modules of the class that run their traced operators, as in `Plan`.
        obstacle: Why the class could not follow, in words; "" where it did.
    """

    whole: Trace
    removal: Removal
    stands_for: Mapping[str, str]
    stand_ins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    obstacle: str = ""


@dataclass(frozen=True)
class Trace:
    """An exported program with what it was made from.

    Attributes:
        program: The exported program.
        module: A detached copy of the network on the CPU, in eval mode.
        examples: The inputs that were traced; they have a batch of two or more where it is free.
        batch_symbol: Name of the program's symbolic batch; None where the batch had to be static
            (then `notes` says so).
        batch: Number of samples of the traced inputs.
        notes: What the user should know of the trace.
        training: The same network in training mode, where that has parameters that evaluation
            never uses (auxiliary heads).
        branched: Whether the forward chooses by values; the program is the example inputs' choice.
        ends_after: Where data decide the sizes of what follows, the paths of the modules after
            whose calls the program ends; it returns what they return.
        learning: All names of the parameters that learn (`requires_grad`) in the traced network.
        shorter: How it came about, where blocks were taken out of it.
    """

    program: ExportedProgram
    module: nn.Module
    examples: ExampleInputs
    batch_symbol: str | None
    batch: int
    notes: tuple[str, ...] = ()
    training: ExportedProgram | None = None
    branched: bool = False
    ends_after: tuple[str, ...] = ()
    learning: frozenset[str] = frozenset()
    shorter: Shorter | None = None

    @property
    def whole(self) -> Trace:
        """Return the trace of the network with all of its blocks."""
        return self if self.shorter is None else self.shorter.whole


@dataclass(frozen=True)
class Member:
    """One place that loses positions with its group: a dimension of a parameter or buffer.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: The dimension.
        contracted: Whether the dimension is summed over, so that the tensor consumes the channels.
    """

    tensor: str
    dim: int
    contracted: bool


@dataclass(frozen=True)
class Group:
    """The coupled channels of one axis: removing index j removes it in every member.

    Attributes:
        name: The producer's tensor and dimension ("conv1.weight:0"), and the role if it is
            another than "channels".
        size: Number of channels.
        role: "channels", "heads", "head_width", "experts" (a router chooses some of them for each
            row) or "stream" (crosses a cross-channel statistic).
        members: The places that lose positions.
        exact: Whether zeros in the contracted members compute what dropping computes.
        least: Number of channels without which the network cannot run.
        step: Number of whose multiples its width must be.
    """

    name: str
    size: int
    role: str
    members: tuple[Member, ...]
    exact: bool = True
    least: int = 1
    step: int = 1

    @property
    def producer(self) -> Member:
        """Return the first member that makes the channels, after which the group is named."""
        return producer(self.members)

    @property
    def layer(self) -> str:
        """Return the path of the producer's module; a parameter of the model is its own layer."""
        return self.producer.tensor.rpartition(".")[0] or self.producer.tensor


def producer(members: Sequence[Member]) -> Member:
    """Return the first member that is not summed over here, or the first one where all are."""
    return next((member for member in members if not member.contracted), members[0])


@dataclass(frozen=True)
class Protection:
    """Positions that stay, and why.

    Attributes:
        tensors: The parameters' dimensions that it reaches ("conv1.weight:1").
        size: Number of positions.
        reason: Why they stay, in words.
        place: The layer and source line that asked for it.
    """

    tensors: tuple[str, ...]
    size: int
    reason: str
    place: str


@dataclass(frozen=True)
class Plan:
    """What is kept of a network, complete enough to be replayed without tracing.

    Attributes:
        source: Hash of the original's tensor names and shapes.
        groups: Per group its size, role and the kept indices, ascending; `exact` as in `Group`.
        tensors: Per parameter, buffer or constant the kept indices per sliced dimension.
        aliases: Name of a tied tensor -> name under which it is stored.
        attributes: Per module path the attributes that change with the sizes.
        stand_ins: Modules that run their traced operators, since their code could not follow:
            per path how its call meets them.
        form: "class" if the user's class follows, else "program".
        obstacle: For "program": the module that could not follow, and why.
        silenced: Per tensor the sliced dimensions at which zeros stand for dropping; None in plans
            of earlier versions, which did not say.
        frozen: The parameters that do not learn; None in plans that do not say, where the factory
            decides.
        types: Per tensor its type, where the network came in another than float32.
        parametrised: Whether weights are computed in the result as they were in the network.
        removal: The blocks that are gone; None where all stay.
    """

    source: str
    groups: Mapping[str, Mapping[str, Any]]
    tensors: Mapping[str, Mapping[int, tuple[int, ...]]]
    aliases: Mapping[str, str]
    attributes: Mapping[str, Mapping[str, Any]]
    form: str
    obstacle: str = ""
    stand_ins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    silenced: Mapping[str, tuple[int, ...]] | None = None
    frozen: tuple[str, ...] | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    parametrised: bool = False
    removal: Removal | None = None

    @property
    def kept(self) -> dict[str, int]:
        """Group name -> how many of its channels stay."""
        return {name: len(group["keep"]) for name, group in self.groups.items()}

    def to_json(self) -> str:
        """Return the plan as JSON text, which is the same for the same plan, byte for byte."""
        said = {"schema": PLAN_SCHEMA, **vars(self)}  # a copy of a million indices takes its time
        gone = said.pop("removal")
        if gone is not None:
            said["removal"] = asdict(gone)
        return json.dumps(said, indent=1, sort_keys=True, default=to_number) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan from the text of `to_json`.

        Raises:
            ValueError, KeyError: The text is anything else.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.pop("schema", None) != PLAN_SCHEMA:
            raise ValueError(f"not a plan of schema {PLAN_SCHEMA}")
        raw["tensors"] = {
            name: {int(dim): tuple(kept) for dim, kept in dims.items()}
            for name, dims in raw["tensors"].items()
        }
        if raw.get("silenced") is not None:
            raw["silenced"] = {name: tuple(dims) for name, dims in raw["silenced"].items()}
        if raw.get("frozen") is not None:
            raw["frozen"] = tuple(raw["frozen"])
        if "removal" in raw:
            gone = raw["removal"]
            names = tuple(gone["blocks"]), tuple(gone["tensors"])
            raw["removal"] = Removal(
                *(*names, gone["passing"], gone.get("muted", {})), tuple(gone.get("leaving", ()))
            )
        return cls(**raw)


def to_number(value: Any) -> int | float:
    """Convert another library's number (numpy's or sympy's) to Python's, for JSON.

    Raises:
        TypeError: It is no number.
    """
    try:
        return operator.index(value)  # a traced size may be a number of sympy's
    except TypeError:
        return float(value)


@dataclass(frozen=True)
class Latency:
    """The measured times of one call, in milliseconds.

    Attributes:
        runtime: Name of the runtime.
        device: Where it ran: "cpu" or "cuda".
        threads: Threads within one operator.
        batch: Number of samples of the call.
        p50_ms: Median.
        p90_ms: 90th percentile.
        cpu_ms: Median of the processor's time, which is what a call takes when the machine does
            nothing else; known for one thread on the CPU.
        quantiles_ms: The 5th, 25th, 50th, 75th and 95th percentile, where they are known.
        host: The other machine that it ran on, as `--on` spells it; "" is this one.
    """

    runtime: str
    device: str
    threads: int
    batch: int
    p50_ms: float
    p90_ms: float
    cpu_ms: float | None = None
    quantiles_ms: tuple[float, ...] = ()
    host: str = ""

    @property
    def own_ms(self) -> float:
        """Return the milliseconds of a call by itself: the processor's time where known."""
        return self.p50_ms if self.cpu_ms is None else self.cpu_ms
