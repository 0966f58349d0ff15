"""Run the stages in order: from a model to a plan, and from a plan to a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from compressor import slicing
from compressor.choose import WithinDrop
from compressor.choose.budget import is_timed
from compressor.listing import some_of
from compressor.loading.plain import round_to
from compressor.options import Options
from compressor.records import Plan
from compressor.run.account import account
from compressor.run.decide import Decision, plan, say_how_met
from compressor.run.deliver import deliver
from compressor.run.giving_back import give_back, give_caches_back, say_what_leaves
from compressor.run.in_steps import Recovered, cut_at_once, cut_in_steps, record_of, restore
from compressor.run.journal import MADE, Journal
from compressor.run.judging import Judge, Moment, compare_outputs
from compressor.run.opened import Run
from compressor.run.result import Result
from compressor.run.searching import search
from compressor.run.seeding import seeded
from compressor.run.subject import Subject
from compressor.run.training_legs import learn_sparsity, train_at_the_end
from compressor.run.until_accurate import decide_until_accurate
from compressor.slicing.leaving import leave
from compressor.unexpected import Explaining
from compressor.watch import Silent, Stopwatch, Watch

__all__ = ["carry_out", "compress", "cut_and_recover", "plan", "run"]


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
        result = run(subject, chosen, watch or Silent(), command=_call(model, chosen))
        slicing.read_weights(result.module, result.program)
        if result.plan.form == "class":
            slicing.part_weights(result.module, result.program)  # who trains one keeps the other
        return result


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
    """Compress a network: open it, decide, cut, recover and deliver.

    Args:
        subject: The model and the data.
        options: What was asked for.
        watch: Is told of stages and progress.
        command: The command as the report shows it.
        journal: Where the run's progress is kept; what it has is not done again.
    """
    opened, decision = plan(subject, options, watch)
    return carry_out(opened, decision, command=command, journal=journal)


def carry_out(
    opened: Run, decision: Decision, *, command: str, journal: Journal | None = None
) -> Result:
    """Cut as decided, recover, compare, deliver and report.

    Args:
        opened: The network and the data.
        decision: Which of its channels go.
        command: The command as the report shows it.
        journal: Where the run's progress is kept; what it has is not done again.
    """
    journal = journal or Journal()
    judge = Judge(opened, opened.samples.test)
    with seeded(opened.options.seed):
        whole = opened.before.trace
        first = Moment("original", judge("evaluate original", whole.module))
        made = cut_and_recover(opened, decision, judge, journal)
        run, sliced = made.run, made.cut.sliced
        _say_what_form(run.stopwatch, sliced.plan)
        nearness = compare_outputs(run, sliced)
        with run.stopwatch.stage("compare"):
            round_to(sliced.module.cpu().eval(), run.loaded.stored)
            slicing.carry_weights(sliced.module, sliced.program)
            difference = slicing.compare(sliced, opened.trace, run.stopwatch.note)
            sliced = say_what_leaves(run, sliced)
        delivery = deliver(run, sliced)
        in_type = give_back(run, sliced, delivery)
    give_caches_back(run, sliced)
    if not is_timed(run.options) and delivery.is_hardly_faster:
        run.stopwatch.note(f"hardly faster: {_what_is_faster(run.options)}")
    sliced = replace(sliced, plan=delivery.plan)
    found = {"program and module": difference, **in_type}
    cut = replace(made.cut, sliced=sliced)
    report = account(run, cut, delivery, [first, *made.moments], found, command, nearness)
    delivery.write_report(report)
    if sliced.plan.removal is not None:
        leave(sliced.module, sliced.plan.removal.leaving)
    return Result(sliced.module, sliced.program, sliced.plan, report, delivery.files)


def cut_and_recover(run: Run, decision: Decision, judge: Judge, journal: Journal) -> Recovered:
    """Return the smaller network, repaired and trained, with the metrics at each moment."""
    made = _cut_and_repair(run, decision, judge, journal)
    say_how_met(made.run, made.cut.decision)
    made.moments += train_at_the_end(made.run, made.cut.sliced, judge, made.schedule, journal)
    return made


def _cut_and_repair(run: Run, decision: Decision, judge: Judge, journal: Journal) -> Recovered:
    """Return the smaller network before it is trained."""
    record = journal.find_record(MADE)
    if record is not None:
        run.stopwatch.note("choice and repair are those of the run that was interrupted")
        return restore(run, decision, record)
    run, decision, moments = learn_sparsity(run, decision, judge, journal)
    if isinstance(decision.goal, WithinDrop):
        decision = decide_until_accurate(run, decision.goal)
    run, decision = search(run, decision)
    cut_all = cut_in_steps if run.options.steps > 1 else cut_at_once
    made = cut_all(run, decision, judge, journal)
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
        some = some_of(plan.stand_ins)
        stopwatch.note(f"replaced by their traced operators: {some} (--keep-class avoids it)")
