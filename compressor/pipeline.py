"""Run the stages in order: from a model to a plan, and from a plan to a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from compressor import slicing
from compressor.delivery.accounting import account
from compressor.delivery.delivering import deliver
from compressor.delivery.giving_back import given_back
from compressor.delivery.result import Result
from compressor.options import Options
from compressor.plain import round_to
from compressor.planning.deciding import Planned, plan, say_how_met
from compressor.planning.preparing import LATENCY, seeded
from compressor.planning.subject import Subject
from compressor.records import Plan
from compressor.recovery.journal import MADE, Journal
from compressor.recovery.recovering import Judge
from compressor.recovery.training import sparsified, trained_at_the_end
from compressor.stepping.accuracy_floor import smallest
from compressor.stepping.steps import Made, at_once, record_of, remade, stepped
from compressor.trace import caches_as_before
from compressor.unexpected import Explaining
from compressor.watch import Silent, Stopwatch, Watch

__all__ = ["carry_out", "compress", "plan", "run", "smaller"]


def compress(
    model: nn.Module | str,
    example_inputs: Any = None,
    ratio: float | None = None,
    *,
    data: Any = None,
    test: Any = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    metric: str | Callable[[Any, Any], Any] | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Result:
    """Compress a network; the model that is passed in is not changed.

    Args:
        model: A module, or a MODEL as on the command line ("model.pt", "torchvision:resnet18").
        example_inputs: A tensor, a tuple of positionals, a dict of keywords, or a pair
            (tuple, dict); may be left out where the model or the data has some.
        ratio: Share to remove of the whole network's total MACs (or of what `of` names), between
            0 and 1. Default: 0.5, or what `layer_ratio` alone or `plan` removes.
        data: Training data: a dataset of (inputs, target), or specs as for --data.
        test: Data that is only evaluated on, given likewise.
        loss: Callable of (outputs, target), or its spec; default cross-entropy.
        metric: Callable of (outputs, target), or its spec; default top-1 accuracy.
        watch: Is told of stages and progress.
        options: The command line's options by name, e.g. `of="params"`, `epochs=2`
            (`compressor.options.Options`).

    Raises:
        UsageError: An option cannot be meant.
        CompressorError: Anything else is wrong with the model, the data or the budget. Unforeseen
            errors are raised as this too, chained to the original exception.
    """
    plain = {name: value for name, value in (("loss", loss), ("metric", metric)) if _is_spec(value)}
    plain |= {name: value for name, value in (("data", data), ("test", test)) if _is_specs(value)}
    with Explaining():
        chosen = Options.of_keywords({"ratio": ratio, **plain, **options})
        subject = Subject(
            model,
            example_inputs,
            data=None if "data" in plain else data,
            test=None if "test" in plain else test,
            loss=loss if callable(loss) else None,
            metric=metric if callable(metric) else None,
        )
        return run(subject, chosen, watch or Silent(), command=_call(model, chosen))


def _is_spec(value: Any) -> bool:
    return isinstance(value, str)


def _is_specs(value: Any) -> bool:
    return _is_spec(value) or (isinstance(value, list | tuple) and all(map(_is_spec, value)))


def _call(model: nn.Module | str, options: Options) -> str:
    """Return the call as Python text, with the options that are not the defaults."""
    changed = [
        f"{field.name}={getattr(options, field.name)!r}"
        for field in fields(options)
        if field.name == "ratio" or getattr(options, field.name) != field.default
    ]
    subject = repr(model) if isinstance(model, str) else type(model).__name__
    return f"compressor.compress({', '.join([subject, *changed])})"


def run(
    subject: Subject,
    options: Options,
    watch: Watch,
    *,
    command: str,
    journal: Journal | None = None,
) -> Result:
    """Plan the compression and carry it out."""
    return carry_out(plan(subject, options, watch), command=command, journal=journal)


def carry_out(planned: Planned, *, command: str, journal: Journal | None = None) -> Result:
    """Carry out a plan: slice, recover, compare, export, measure and report.

    Args:
        planned: The choice, and all that is known of the network.
        command: The call or command line as text, for the report.
        journal: What it holds of an interrupted run is not done again.
    """
    journal = journal or Journal()
    options, traced, stopwatch = planned.options, planned.trace, planned.stopwatch
    judge = Judge(planned, planned.samples.test)
    with seeded(options.seed):
        moments = [{"step": "original", "metrics": judge("evaluate original", traced.module)}]
        made = smaller(planned, judge, journal)
        planned, sliced = made.planned, made.sliced
        moments += made.moments
        _say_what_form(stopwatch, sliced.plan)
        with stopwatch.stage("compare"):
            round_to(sliced.module.cpu().eval(), planned.loaded.stored)
            slicing.carry_weights(sliced.module, sliced.program)
            difference = slicing.compare(sliced, traced, stopwatch.note)
        delivery = deliver(sliced, planned)
        in_type = given_back(sliced, delivery, planned)
    caches_as_before(sliced.module, planned.loaded.given or planned.loaded.module)
    if options.of != LATENCY and delivery.is_hardly_faster:
        stopwatch.note(f"hardly faster: {_what_is_faster(options)}")
    sliced = replace(sliced, plan=delivery.plan)
    found = {"program and module": difference, **in_type}
    report = account(planned, sliced, delivery, moments, found, command)
    delivery.write_report(report)
    return Result(sliced.module, sliced.program, sliced.plan, report, delivery.files)


def smaller(planned: Planned, judge: Judge, journal: Journal) -> Made:
    """Slice, repair and train the network, and evaluate its metrics at each moment."""
    made = _made(planned, judge, journal)
    say_how_met(made.planned)
    made.moments += trained_at_the_end(made.sliced, made.planned, judge, made.schedule, journal)
    return made


def _made(planned: Planned, judge: Judge, journal: Journal) -> Made:
    """Slice and repair the network, not yet trained, or restore it from an interrupted run."""
    record = journal.kept(MADE)
    if record is not None:
        planned.stopwatch.note("choice and repair are those of the run that was interrupted")
        return remade(planned, record)
    planned, moments = sparsified(planned, judge, journal)
    if planned.options.max_drop is not None:
        planned = smallest(planned)
    made = (stepped if planned.options.steps > 1 else at_once)(planned, judge, journal)
    made.moments[:0] = moments
    journal.keep(MADE, record_of(made))
    return made


def _what_is_faster(options: Options) -> str:
    if options.round_to == 1:
        return "widths that kernels run well (--round-to auto) are quicker at the same MACs"
    return "--of latency spends the budget where it saves time"


def _say_what_form(stopwatch: Stopwatch, plan: Plan) -> None:
    if plan.form == "program":
        stopwatch.note(f"the result is a program: {plan.obstacle}")
    if plan.stand_ins:
        some = ", ".join(list(plan.stand_ins)[:3])
        more = f" and {len(plan.stand_ins) - 3} more" if len(plan.stand_ins) > 3 else ""
        stopwatch.note(f"replaced by their traced operators: {some}{more} (--keep-class avoids it)")
