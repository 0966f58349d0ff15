"""Score the channels of an opened network by the criterion that the options name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from compressor.choose.budget import weighed_unit
from compressor.choose.units import prunable
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.options import CriterionName, ScoringOptions
from compressor.processes import each_alone, of_the_first
from compressor.records import Trace
from compressor.recover import cross_entropy
from compressor.run.opened import Opened
from compressor.run.samples import Samples
from compressor.run.subject import loss_of
from compressor.score import Calibration, Material, Scores, score
from compressor.score.criteria import resolve
from compressor.score.data import CalibrationBatches, WithoutPadding
from compressor.watch import Stopwatch, Tick


def resolve_criterion(
    traced: Trace, samples: Samples, options: ScoringOptions, stopwatch: Stopwatch
) -> CriterionName:
    """Return what "auto" stands for: reconstruction if the program runs on the data."""
    train = samples.train
    obstacle = CalibrationBatches(traced, train, options).obstacle if train is not None else ""
    criterion = resolve(options.criterion, has_data=train is not None and not obstacle)
    if obstacle and criterion != options.criterion:
        stopwatch.note(f"channels are chosen by {criterion}: {obstacle}")
    return criterion


def analyse_anew(opened: Opened, traced: Trace) -> Network:
    """Analyse a network made from the opened one, within the widths that this is held to.

    A given plan says itself what goes.
    """
    network = analyse(traced)
    if opened.uniform is None or not opened.options.scores:
        return network
    return opened.uniform.restrict(network)


def score_channels(opened: Opened) -> tuple[Network, Scores]:
    """Analyse the network, and score what may go of it where the options ask for scores."""
    options, traced = opened.options, opened.trace
    with opened.stopwatch.stage("analyse"):
        network = analyse_anew(opened, traced)
    if not options.scores:
        return network, {}
    with opened.stopwatch.stage("score") as tick, each_alone():
        scores = rate(opened, network, tick, opened.stopwatch.note)
    traced.module.cpu()
    return network, of_the_first(lambda: scores)


def rate(opened: Opened, network: Network, progress: Tick, note: Callable[[str], None]) -> Scores:
    """Score each channel that may go of an analysed network by the options' criterion.

    Args:
        opened: What is known of it.
        network: Its analysis.
        progress: Is told how far it is.
        note: Is told what the user should know.
    """
    options = opened.options
    groups = prunable(network, options.protect, options.prune)
    material = Material(
        replace(network, groups=tuple(groups)),
        _parameters(opened.trace),
        calibration=_calibration(opened),
        norm_p=options.norm_p,
        seed=options.seed,
        unit=weighed_unit(options),
        progress=progress,
        note=note,
    )
    return score(
        material,
        options.criterion,
        reduction=options.reduction,
        normalise=options.normalise,
    )


def _parameters(traced: Trace) -> dict[str, Tensor]:
    program = traced.program
    return {name: program.state_dict[name] for name in program.graph_signature.parameters}


def _calibration(opened: Opened) -> Calibration | None:
    options, train = opened.options, opened.samples.train
    if train is None:
        return None
    some = CalibrationBatches(opened.trace, train, options).batches()
    own = loss_of(opened.subject, options)
    return Calibration(
        opened.trace,
        WithoutPadding(some) if own is None else some,  # one's own may take no other classes
        own or partial(cross_entropy, task=train.task),
        options.device,
        options.memory_bytes,
    )
