"""From a model to a plan: load, trace, analyse, score, select. Nothing is sliced yet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from compressor.records import ExampleInputs, LoadedModel, Trace
from compressor.recover import primary_output, top1
from compressor.score import Calibration as ScoreData
from compressor.score import Scores, score
from compressor.selection import prunable, select
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
from compressor.trace import trace
from compressor.watch import Stopwatch, Watch

Keep = Mapping[str, tuple[int, ...]]


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
class Planned(Scored):
    """Everything up to the choice; nothing is sliced yet."""

    options: Options
    sensitivity: Sensitivity | None
    keep: Keep

    def predicted(self, unit: str) -> tuple[int, int]:
        """Cost before and after, from the equations alone."""
        sizes = self.network.sizes({name: len(kept) for name, kept in self.keep.items()})
        return self.network.cost.of(unit, {}), self.network.cost.of(unit, sizes)

    def predictions(self) -> dict[str, tuple[int, int]]:
        return {unit: self.predicted(unit) for unit in ("macs", "params", "channels")}

    def budget(self) -> dict[str, Any]:
        before, after = self.predicted(self.options.of)
        return {
            "ratio": ratio_of(self.options, self.network),
            "of": self.options.of,
            "removed": 1 - after / before,
            "predicted": {unit: after for unit, (_, after) in self.predictions().items()},
        }


def plan(subject: Subject, options: Options, watch: Watch) -> Planned:
    """Load, trace, analyse, score and select."""
    stopwatch = Stopwatch(watch)
    sensitivity = read_sensitivity(options.use) if options.use is not None else None
    with seeded(options.seed):
        opened = open_network(subject, options, stopwatch)
        _say_what_is_missing(stopwatch, opened.samples)
        scored = score_channels(opened)
        options = replace(options, criterion=scored.options.criterion)
        with stopwatch.stage("select"):
            keep = choose(scored, options, sensitivity)
    if sensitivity is not None:
        _say_what_was_used(scored, sensitivity, keep)
    return Planned(**{**vars(scored), "options": options}, sensitivity=sensitivity, keep=keep)


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
            unit=getattr(options, "of", "macs"),
            progress=tick,
            note=opened.stopwatch.note,
            criteria=CRITERIA,
        )
    traced.module.cpu()
    return Scored(**vars(opened), network=network, scores=scores)


def ratio_of(options: Options, network: Network) -> float | None:
    """The share to remove; None where the layers' own ratios say all.

    Raises:
        UsageError: The network is within the limit already.
    """
    limit = options.limit
    if limit is None:
        return options.ratio
    before = network.cost.of(limit.unit)
    if before <= limit.most:
        raise UsageError(
            f"the network has {before:,} {limit.unit}, which is within {limit.most:,} already",
            where=flag(limit.option),
            consequence="nothing is pruned",
            next_step="give a smaller number, or --ratio",
        )
    return 1 - limit.most / before


def choose(
    scored: Scored,
    options: Options,
    sensitivity: Sensitivity | None,
    also_protect: Sequence[str] = (),
) -> Keep:
    """The kept channels by the options, with further globs of what stays as it is."""
    network, protect = scored.network, (*options.protect, *also_protect)
    losses = None
    if sensitivity is not None:
        wanted = prunable(network, protect, options.prune)
        losses = losses_of(sensitivity, network.groups, wanted)
    return select(
        network,
        scored.scores,
        ratio=ratio_of(options, network),
        most=options.limit.most if options.limit is not None else None,
        of=options.of,
        scope=options.scope,
        protect=protect,
        prune=options.prune,
        layer_ratios=options.layer_ratios,
        losses=losses,
        round_to=options.round_to,
        best_effort=options.best_effort,
        keep_linked=options.keep_class,
    ).keep


def _say_what_was_used(scored: Scored, sensitivity: Sensitivity, keep: Keep) -> None:
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
