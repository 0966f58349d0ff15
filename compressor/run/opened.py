"""Define what is known of a network before anything is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compressor.choose.budget import cost_of
from compressor.choose.curves import Sensitivity
from compressor.choose.uniform import Uniform
from compressor.formats.original import Original
from compressor.graph.network import Network
from compressor.options import Options, ScoringOptions
from compressor.records import ExampleInputs, LoadedModel, Trace
from compressor.run.samples import Samples
from compressor.run.subject import Subject
from compressor.run.timing import Timing
from compressor.score import Scores
from compressor.watch import Stopwatch


@dataclass(frozen=True)
class Opened:
    """A network that is loaded and traced, with its samples.

    Attributes:
        uniform: The widths that its configuration can say, where it is held to them.
    """

    subject: Subject
    options: ScoringOptions
    loaded: LoadedModel
    examples: ExampleInputs
    samples: Samples
    trace: Trace
    stopwatch: Stopwatch
    uniform: Uniform | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Run(Opened):
    """All that is known of a network before anything is chosen; complete once it is opened.

    What is decided, cut and delivered are records of their own beside it, and are never merged into
    it. In steps each step's network has a run of its own, opened by `reopen`.

    Attributes:
        options: What was asked for, the criterion by its name.
        network: The groups of coupled channels.
        scores: One number per channel of each group, high for important ones.
        timing: What is known of the machine that the network is to run on.
        original: The network that went in.
        sensitivity: What `compress sensitivity` measured, if it is to be used.
        whole: The run of the network as it was before blocks were taken out of it; None where it
            has all of them.
    """

    options: Options
    network: Network
    scores: Scores
    timing: Timing
    original: Original
    sensitivity: Sensitivity | None
    whole: Run | None = None

    @property
    def before(self) -> Run:
        """Return the run of the network with all of its blocks."""
        return self.whole or self

    @property
    def unit(self) -> str:
        """Return the unit of cost that the budget is in."""
        return self.options.of

    def total(self, unit: str, kept: Mapping[str, int] | None = None) -> float:
        """Return the network's cost where groups keep so many channels, without running anything.

        Args:
            unit: "macs" (of one sample), "params" or "channels"; "latency" in milliseconds, if the
                latency is modelled.
            kept: Group name -> channels kept; other groups keep all of theirs.
        """
        sizes = self.network.sizes(kept or {})
        return cost_of(self.network, unit, sizes, self.timing.clock)
