"""Records of a traced network, and of the blocks that were taken out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compressor.records.models import ExampleInputs

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


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
