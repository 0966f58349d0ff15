"""Open a network: all that a choice follows from is loaded, traced, analysed, scored and timed."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from compressor.calls import Call
from compressor.choose.budget import is_found_by_trying, is_timed
from compressor.choose.curves import Sensitivity, read_sensitivity
from compressor.errors import CompressorError
from compressor.files.format_table import HF
from compressor.formats.job import check_installed
from compressor.formats.original import Original, missing
from compressor.graph.analysis import analyse
from compressor.graph.costs import notes_on_macs
from compressor.graph.trace import trace
from compressor.latency.on_host import reach
from compressor.loading.examples import SHARES
from compressor.loading.onnx import OnnxNetwork
from compressor.loading.other_sizes import check_program
from compressor.loading.plain import require_kept
from compressor.on_demand import parameters_on_demand, read_all
from compressor.options import Options, ScoringOptions
from compressor.records import AS_MADE, RANDOM, ExampleInputs, LoadedModel, Plan, Trace
from compressor.recover import reinitialise
from compressor.run.fitting_data import check_device, check_fit
from compressor.run.loaded import earlier_weights, open_model
from compressor.run.opened import Opened, Run
from compressor.run.rating import resolve_criterion, score_channels
from compressor.run.samples import Samples, open_inputs
from compressor.run.subject import Subject
from compressor.run.timing import aim, by_torch, timing_of
from compressor.run.uniform import find_widths, settle_formats
from compressor.score import needs_loss
from compressor.slicing import check_source
from compressor.watch import Stopwatch

WEIGHTS_NOTES = {
    RANDOM: "random weights: sizes and latency are real, accuracy means nothing",
    AS_MADE: "weights as the factory made them: if it draws them at random, accuracy means nothing",
}

LARGE = 10**9
"""Bytes of weights, converted, from which on they are read again for each batch of samples rather
than held: that takes a tenth longer."""


def open_run(
    subject: Subject,
    options: Options,
    stopwatch: Stopwatch,
    *,
    given: Plan | None = None,
    predict_latency: bool = False,
) -> Run:
    """Open a network for compression: load, trace, analyse, score and time it.

    Args:
        subject: The model and the data.
        options: What was asked for.
        stopwatch: Is told of stages and notes.
        given: A plan that takes the place of a choice; it must be for this network.
        predict_latency: Time the layers even where the budget is not one of latency.

    Raises:
        UsageError: Options do not fit the network or the machine.
        CompressorError: Anything is wrong with the model, the data or the given plan.
    """
    sensitivity = read_sensitivity(options.use) if options.use is not None else None
    if options.host is not None:
        reach(options.host, stopwatch)  # before anything long is done
    options = aim(options, stopwatch)
    asked, opened = options, open_network(subject, options, stopwatch)
    options = settle_formats(options, opened.loaded)
    if options.uniform:
        uniform, options = find_widths(opened, analyse(opened.trace), asked, options)
        opened = replace(opened, uniform=uniform)
    if options.keep_parametrisations:
        refits = opened.samples.train is not None and (options.repair or options.trains)
        require_kept(opened.loaded.computed, refits=refits)
    if given is not None:
        check_source(given, opened.trace.module)
    if options.rewind_to is not None:
        earlier_weights(opened.loaded, options)  # what is wrong with them is said at once
    if options.policy == "reinitialise":
        reinitialise(opened.trace.module)
    _say_what_is_missing(stopwatch, opened.samples)
    original = _try_formats(opened.trace, options, stopwatch)
    run = _complete(
        *(opened, options, original),
        sensitivity=sensitivity,
        predict_latency=predict_latency,
    )
    for note in (*notes_on_macs(run.trace, run.network), *run.network.remarks):
        stopwatch.note(note)
    if run.uniform is not None and (stays := run.uniform.describe_what_stays(run.network)):
        stopwatch.note(stays)
    return run


def _try_formats(traced: Trace, options: Options, stopwatch: Stopwatch) -> Original:
    """Try the requested formats on the original; those that fail are noted.

    Raises:
        CompressorError: It is to be timed and cannot be written as ONNX.
    """
    formats = options.format or ()
    for name in formats:
        check_installed(name, f"--format {name}")
    original = Original(traced, formats)
    with stopwatch.stage("try the formats"):
        unwritable = original.unwritable
    if is_timed(options) and not by_torch(options) and original.why_no_onnx:
        raise CompressorError(
            "--of latency times ONNX files, and there can be none of this network: "
            f"{original.why_no_onnx}",
            consequence="nothing was done",
            next_step="time it with PyTorch (--latency-on torch-cpu), or ask for --of macs",
        )
    for name, reason in unwritable.items():
        stopwatch.note(f"{missing(name)}: {reason}")
    return original


def _complete(
    opened: Opened,
    options: Options,
    original: Original,
    *,
    sensitivity: Sensitivity | None = None,
    predict_latency: bool = False,
) -> Run:
    """Score and time a traced network, so that channels can be chosen.

    Args:
        opened: The traced network.
        options: What was asked for.
        original: The network that went in, which may be another one.
        sensitivity: What `compress sensitivity` measured, if it is to be used.
        predict_latency: Time the layers even where the budget is not one of latency.
    """
    network, scores = score_channels(opened)
    options = replace(options, criterion=opened.options.criterion)
    own = original if original.module is opened.trace.module else Original(opened.trace)
    timing = timing_of(
        *(opened.trace, network, own, options, opened.stopwatch),
        with_clock=is_timed(options) or predict_latency,
    )
    return Run(
        subject=opened.subject,
        options=options,
        loaded=opened.loaded,
        examples=opened.examples,
        samples=opened.samples,
        trace=opened.trace,
        stopwatch=opened.stopwatch,
        network=network,
        scores=scores,
        timing=timing,
        original=original,
        sensitivity=sensitivity,
        uniform=opened.uniform,
    )


def reopen(run: Run, module: nn.Module) -> Run:
    """Trace, score and time a network that was made from the original.

    Args:
        run: The original's; it is not changed.
        module: The network that was made from it.
    """
    with run.stopwatch.stage("trace"):
        traced = trace(module, run.examples)
    opened = replace(run, trace=traced)
    return _complete(opened, run.options, run.original, sensitivity=run.sensitivity)


def open_network(subject: Subject, options: ScoringOptions, stopwatch: Stopwatch) -> Opened:
    """Load and trace the network, and check that the samples fit it.

    Raises:
        UsageError: Options do not fit the network, or the device is not there.
        CompressorError: The model cannot be loaded or traced, or the samples do not fit it.
    """
    check_device(options.device)
    with stopwatch.stage("load"):
        loaded = open_model(subject.model, options, may_wait=True)
    with stopwatch.stage("data and example inputs"):
        examples, samples = open_inputs(loaded, subject, options)
        if isinstance(loaded.module, OnnxNetwork):
            loaded.module.note_literals(examples.args)
        if not _may_wait(loaded, samples, options):
            read_all(loaded.module)
    _say_how_samples_are_read(stopwatch, samples, Call.of(examples).shapes)
    if loaded.weights in WEIGHTS_NOTES:
        stopwatch.note(WEIGHTS_NOTES[loaded.weights])
    traced = capture(loaded, examples, stopwatch)
    check_fit(traced.module, samples, subject, options)
    check_program(traced, samples.each)
    if options.scores:
        options = replace(options, criterion=resolve_criterion(traced, samples, options, stopwatch))
    return Opened(subject, options, loaded, examples, samples, traced, stopwatch)


def _may_wait(loaded: LoadedModel, samples: Samples, options: ScoringOptions) -> bool:
    """Return whether weights stay in their files and type until they are read, every time anew.

    With data that takes longer, and is worth it for large ones alone.
    """
    if loaded.computed or not _reads_weights_once(options):
        return False
    if not samples.each:
        return True
    waiting = {id(tensor): tensor for tensor in parameters_on_demand(loaded.module).values()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in waiting.values())
    return size > LARGE and options.device == "cpu" and not _changes_weights(options)


def _changes_weights(options: ScoringOptions) -> bool:
    """Return whether gradients of the weights are asked for, or the result is found by trying."""
    if needs_loss(options.criterion):
        return True
    return isinstance(options, Options) and (options.trains or is_found_by_trying(options))


def _reads_weights_once(options: ScoringOptions) -> bool:
    """Return whether nothing that is asked for runs the original again and again, or changes it."""
    if not isinstance(options, Options) or options.steps > 1:
        return False
    return options.format == (HF,) and options.plan is None and not is_timed(options)


def capture(loaded: LoadedModel, examples: ExampleInputs, stopwatch: Stopwatch) -> Trace:
    """Trace the model, and note what the user should know of the trace and of how it was loaded."""
    for note in loaded.notes:
        stopwatch.note(note)
    if examples.origin.startswith("a guess"):
        stopwatch.note(f"example inputs are {examples.origin}; --input says others")
    if examples.origin.endswith(SHARES):
        stopwatch.note(
            "example inputs are drawn between 0 and 1: to standard normal ones the network has no "
            "finite answer"
        )
    with stopwatch.stage("trace"):
        traced = trace(loaded.module, examples, shares=not loaded.is_held)
    for note in traced.notes:
        stopwatch.note(note)
    return traced


def _say_how_samples_are_read(stopwatch: Stopwatch, samples: Samples, inputs: str) -> None:
    """Note what the user should know of the samples.

    Args:
        stopwatch: Is told the notes.
        samples: All data.
        inputs: The shapes of the example inputs, in words.
    """
    for note in dict.fromkeys(note for data in samples.each for note in data.notes):
        stopwatch.note(note)
    for data in samples.each[:1]:
        if data.left_out:
            names = ", ".join(data.left_out)
            stopwatch.note(f"of the samples the network is not given {names}")
    if any(data.is_filled for data in samples.each):
        stopwatch.note(f"samples are filled up to one length, as the mask says: {inputs}")
    if any(data.is_ragged for data in samples.each):
        stopwatch.note(
            "samples have different shapes: batches are of one shape each, and files are written "
            f"for the example inputs ({inputs})"
        )


def _say_what_is_missing(stopwatch: Stopwatch, samples: Samples) -> None:
    if samples.train is None:
        stopwatch.note("no --data: nothing is repaired after slicing, and no metric is measured")
    elif samples.test is None:
        stopwatch.note(f"no metric is measured: {samples.evaluated_on}")
