"""From a model to a plan: load, trace, analyse, score, select. Nothing is sliced yet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compressor.calibration import Calibration
from compressor.criteria import CRITERIA, resolved
from compressor.curves import Sensitivity, losses_of, read_sensitivity
from compressor.errors import UsageError
from compressor.graph import analyse
from compressor.network import Network
from compressor.options import Options, ScoringOptions, flag
from compressor.original import Original
from compressor.records import ExampleInputs, LoadedModel, Trace
from compressor.recover import primary_output, top1
from compressor.score import Calibration as ScoreData
from compressor.score import Scores, score
from compressor.selection import Choice, OutOfReachError, prunable, select
from compressor.subject import (
    RANDOM,
    Samples,
    Subject,
    check_device,
    check_fit,
    loss_of,
    metric_of,
    open_inputs,
    open_model,
)
from compressor.timing import Timing, timing_of
from compressor.trace import trace
from compressor.watch import Stopwatch, Watch

Keep = Mapping[str, tuple[int, ...]]

LATENCY = "latency"
UNITS = ("macs", "params", "channels")


@dataclass(frozen=True)
class Opened:
    """A network that was loaded, with its samples, and traced."""

    subject: Subject
    options: ScoringOptions
    loaded: LoadedModel
    examples: ExampleInputs
    samples: Samples
    trace: Trace
    stopwatch: Stopwatch


@dataclass(frozen=True)
class Scored(Opened):
    """Its channels are known, and what they matter."""

    network: Network
    scores: Scores


@dataclass(frozen=True)
class Prepared(Scored):
    """All that a choice follows from, but how much is to go."""

    options: Options
    sensitivity: Sensitivity | None
    timing: Timing
    original: Original

    def total(self, unit: str, kept: Mapping[str, int] | None = None) -> float:
        """Cost of the network where groups keep so many channels, from the equations alone; in
        "latency" milliseconds, if the clock is there."""
        sizes = self.network.sizes(kept or {})
        if unit != LATENCY:
            return self.network.cost.of(unit, sizes)
        assert self.timing.clock is not None
        return self.timing.clock.latency_ms(sizes)


@dataclass(frozen=True)
class Goal:
    """How much is to go: a share, and what that leaves where it is known exactly. Neither: what
    the layers' own ratios say."""

    ratio: float | None
    most: float | None = None


@dataclass(frozen=True)
class Planned(Prepared):
    """Everything up to the choice; nothing is sliced yet. Without a choice, which nothing but
    trying can make, the network stays as it is."""

    goal: Goal
    choice: Choice | None
    found: Mapping[str, Any] = field(default_factory=dict)
    """What was measured on the way to the choice, for the report's budget."""

    @property
    def keep(self) -> Keep:
        return self.choice.keep if self.choice is not None else {}

    @property
    def kept(self) -> dict[str, int]:
        return {name: len(kept) for name, kept in self.keep.items()}

    def predictions(self) -> dict[str, tuple[float, float]]:
        """Per unit the cost before and after."""
        units = [*UNITS, LATENCY] if self.timing.clock is not None else UNITS
        return {unit: (self.total(unit), self.total(unit, self.kept)) for unit in units}

    def budget(self) -> dict[str, Any]:
        """What was asked for, and what the equations say of the result."""
        of, predictions = self.options.of, self.predictions()
        before, after = predictions[of]
        last = self.choice.last if self.choice is not None else None
        return {
            "ratio": self.goal.ratio,
            "of": of,
            "removed": 1 - after / before,
            "predicted": {unit: after for unit, (_, after) in predictions.items()},
            "price": last.price if last is not None else None,
            **self.found,
        }


def plan(
    subject: Subject, options: Options, watch: Watch, *, predict_latency: bool = False
) -> Planned:
    """Load, trace, analyse, score and select.

    Args:
        predict_latency: Also where the budget is of something else; layers are then timed.
    """
    stopwatch = Stopwatch(watch)
    with seeded(options.seed):
        prepared = prepare(subject, options, stopwatch, predict_latency=predict_latency)
        if options.max_drop is not None:
            return Planned(**vars(prepared), goal=Goal(None), choice=None)
        with stopwatch.stage("select"):
            planned = decided(prepared, goal_of(prepared))
    if planned.sensitivity is not None:
        _say_what_was_used(planned, planned.sensitivity, planned.keep)
    return planned


def prepare(
    subject: Subject, options: Options, stopwatch: Stopwatch, *, predict_latency: bool = False
) -> Prepared:
    """Everything before the choice."""
    sensitivity = read_sensitivity(options.use) if options.use is not None else None
    opened = open_network(subject, options, stopwatch)
    _say_what_is_missing(stopwatch, opened.samples)
    return scored_and_timed(
        opened, options, sensitivity=sensitivity, predict_latency=predict_latency
    )


def scored_and_timed(
    opened: Opened,
    options: Options,
    *,
    sensitivity: Sensitivity | None = None,
    predict_latency: bool = False,
) -> Prepared:
    """What a traced network's choice follows from."""
    scored = score_channels(opened)
    options = replace(options, criterion=scored.options.criterion)
    original = Original(scored.trace)
    timing = timing_of(
        *(scored.trace, scored.network, original, options, scored.stopwatch),
        with_clock=options.of == LATENCY or predict_latency,
    )
    found = {**vars(scored), "options": options}
    return Prepared(**found, sensitivity=sensitivity, timing=timing, original=original)


def open_network(subject: Subject, options: ScoringOptions, stopwatch: Stopwatch) -> Opened:
    """Load and trace; the samples are known to fit the network."""
    check_device(options.device)
    with stopwatch.stage("load"):
        loaded = open_model(subject.model, options)
    with stopwatch.stage("data and example inputs"):
        examples, samples = open_inputs(loaded, subject, options)
    fits = samples.train is not None and Calibration.fits(examples, samples.train)
    options = replace(options, criterion=resolved(options.criterion, has_data=fits))
    if loaded.weights == RANDOM:
        stopwatch.note("random weights: sizes and latency are real, accuracy means nothing")
    traced = capture(loaded, examples, stopwatch)
    loss, (_, metric) = loss_of(subject, options), metric_of(subject, options)
    check_fit(traced.module, samples, own_loss=loss is not None, own_metric=metric is not top1)
    return Opened(subject, options, loaded, examples, samples, traced, stopwatch)


def capture(loaded: LoadedModel, examples: ExampleInputs, stopwatch: Stopwatch) -> Trace:
    """Trace, and note what the user should know of it."""
    if examples.origin.startswith("a guess"):
        stopwatch.note(f"example inputs are {examples.origin}; --input says others")
    with stopwatch.stage("trace"):
        traced = trace(loaded.module, examples)
    for note in traced.notes:
        stopwatch.note(note)
    return traced


def score_channels(opened: Opened) -> Scored:
    """Analyse, and score each channel by the criterion."""
    options, traced = opened.options, opened.trace
    with opened.stopwatch.stage("analyse"):
        network = analyse(traced)
    with opened.stopwatch.stage("score") as tick:
        scores = score(
            network,
            _parameters(traced),
            options.criterion,
            calibration=_calibration(opened),
            reduction=options.reduction,
            normalise=options.normalise,
            norm_p=options.norm_p,
            seed=options.seed,
            unit=_weighed(options),
            progress=tick,
            note=opened.stopwatch.note,
            criteria=CRITERIA,
        )
    traced.module.cpu()
    return Scored(**vars(opened), network=network, scores=scores)


def _weighed(options: ScoringOptions) -> str | None:
    """The unit that scores are per; the clock weighs its milliseconds itself."""
    unit = getattr(options, "of", "macs")
    return None if unit == LATENCY else unit


def goal_of(prepared: Prepared) -> Goal:
    """As the options say.

    Raises:
        UsageError: The network is within the limit already.
    """
    limit = prepared.options.limit
    if limit is None:
        return Goal(prepared.options.ratio)
    before = prepared.total(limit.unit)
    if before <= limit.most:
        raise UsageError(
            f"the network has {before:,.10g} {limit.unit}, which is within {limit.most:,.10g} "
            "already"
            if limit.unit != LATENCY
            else f"a call takes {before:.4g} ms, which is within {limit.most:g} already",
            where=flag(limit.option),
            consequence="nothing is pruned",
            next_step="give a smaller number, or --ratio",
        )
    return Goal(1 - limit.most / before, limit.most)


def decided(
    prepared: Prepared,
    goal: Goal,
    also_protect: Sequence[str] = (),
    *,
    best_effort: bool = False,
    floors: Mapping[str, int] | None = None,
) -> Planned:
    """The choice that meets a goal by the options; where widths that run well do not reach it, in
    steps half as large.

    Args:
        also_protect: Further globs of what stays as it is.
        best_effort: Take what is reachable, whatever the options say.
        floors: Numbers of channels that groups keep at least.
    """
    network, options = prepared.network, prepared.options
    protect = (*options.protect, *also_protect)
    losses = None
    if prepared.sensitivity is not None:
        wanted = prunable(network, protect, options.prune)
        losses = losses_of(prepared.sensitivity, network.groups, wanted)
    before = {name: getattr(prepared, name) for name in Prepared.__dataclass_fields__}
    while True:
        timing = before["timing"]
        try:
            choice = select(
                network,
                prepared.scores,
                ratio=goal.ratio,
                most=goal.most,
                of=options.of,
                scope=options.scope,
                protect=protect,
                prune=options.prune,
                layer_ratios=options.layer_ratios,
                losses=losses,
                round_to=timing.steps,
                clock=timing.clock if options.of == LATENCY else None,
                best_effort=best_effort or options.best_effort,
                keep_linked=options.keep_class,
                floors=floors or {},
            )
        except OutOfReachError:
            finer = timing.finer()
            if options.round_to != "auto" or finer is None:
                raise
            before["timing"] = finer
        else:
            return Planned(**before, goal=goal, choice=choice)


def _say_what_was_used(scored: Prepared, sensitivity: Sensitivity, keep: Keep) -> None:
    """How far the measured losses had to go, and whether they were this network's."""
    note, loaded, options = scored.stopwatch.note, scored.loaded, scored.options
    cut = [group for group in scored.network.groups if group.name in keep]
    losses = losses_of(sensitivity, scored.network.groups, cut)
    found = [float(losses[g.name][g.size - len(keep[g.name]) - 1]) for g in cut]
    worst = max(filter(math.isfinite, found), default=0.0)
    note(f"no layer on its own loses more than {worst:.4g} of {sensitivity.metric}")
    if not all(map(math.isfinite, found)):
        note("but for those that --layer-ratio cuts further than was measured")
    if loaded.sha256 != sensitivity.model["sha256"]:
        note("the sensitivities were measured with other weights")
    if options.criterion != sensitivity.criterion:
        note(f"the sensitivities were measured with --criterion {sensitivity.criterion}")


def _say_what_is_missing(stopwatch: Stopwatch, samples: Samples) -> None:
    if samples.train is None:
        stopwatch.note("no --data: nothing is repaired after slicing, and no metric is measured")
    elif samples.test is None:
        stopwatch.note(f"no metric is measured: {samples.evaluated_on}")


def _parameters(traced: Trace) -> dict[str, Tensor]:
    program = traced.program
    return {name: program.state_dict[name] for name in program.graph_signature.parameters}


def _calibration(opened: Opened) -> ScoreData | None:
    options, train = opened.options, opened.samples.train
    if train is None:
        return None
    some = Calibration(opened.trace, train, options).batches()
    loss = loss_of(opened.subject, options) or cross_entropy
    return ScoreData(opened.trace, some, loss, options.device)


def cross_entropy(outputs: Any, target: Any) -> Tensor:
    """The default loss, on the first tensor of the outputs."""
    return functional.cross_entropy(primary_output(outputs), target)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers start from the seed, and go on afterwards as if nothing had been."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
