"""The order of the stages: from a model to a plan, from a plan to a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from compressor import slicing
from compressor.accounting import account
from compressor.data import batches
from compressor.delivery import deliver
from compressor.errors import CompressorError
from compressor.options import Options
from compressor.planning import Planned, choose, plan, seeded
from compressor.records import Plan
from compressor.recover import evaluate, fine_tune
from compressor.repairing import repair
from compressor.result import Result
from compressor.subject import Subject, loss_of, metric_of
from compressor.watch import Silent, Stopwatch, Tick, Watch

__all__ = ["carry_out", "compress", "plan", "run"]


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
        ratio: Share to remove of the whole network's total MACs (or what `of` says); 0.5, or with
            `layer_ratio` alone what that removes.
        data: Training data: a dataset of (inputs, target), or specs as for --data.
        test: Data that is only evaluated on, likewise.
        loss: Callable of (outputs, target), or its spec; default cross-entropy.
        metric: Callable of (outputs, target), or its spec; default top-1 accuracy.
        watch: Is told of stages and progress.
        options: The command line's options by name, e.g. `of="params"`, `epochs=2`
            (`compressor.options.Options`).

    Raises:
        UsageError: an option that cannot be meant.
        CompressorError: anything else that is wrong with the model, the data or the budget.
    """
    plain = {name: value for name, value in (("loss", loss), ("metric", metric)) if _is_spec(value)}
    plain |= {name: value for name, value in (("data", data), ("test", test)) if _is_specs(value)}
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
    """The call as text, with the options that are not the defaults."""
    changed = [
        f"{field.name}={getattr(options, field.name)!r}"
        for field in fields(options)
        if field.name == "ratio" or getattr(options, field.name) != field.default
    ]
    subject = repr(model) if isinstance(model, str) else type(model).__name__
    return f"compressor.compress({', '.join([subject, *changed])})"


def run(subject: Subject, options: Options, watch: Watch, *, command: str) -> Result:
    """Plan and carry out."""
    return carry_out(plan(subject, options, watch), command=command)


def carry_out(planned: Planned, *, command: str) -> Result:
    """Slice, recover, compare, export, measure and report."""
    options, traced, stopwatch = planned.options, planned.trace, planned.stopwatch
    recovery: list[dict[str, Any]] = []
    with seeded(options.seed):
        judge = _Judge(planned)
        recovery.append({"step": "original", "metrics": judge("evaluate original", traced.module)})
        with stopwatch.stage("slice"):
            planned, sliced = _slice(planned)
        _say_what_form(stopwatch, sliced.plan)
        recovery.append({"step": "sliced", "metrics": judge("evaluate sliced", sliced.module)})
        _recover(sliced, planned, judge, recovery)
        with stopwatch.stage("compare"):
            slicing.carry_weights(sliced.module.cpu().eval(), sliced.program)
            difference = slicing.compare(sliced, traced)
        delivery = deliver(sliced, traced, stopwatch)
    if options.round_to == 1 and not delivery.is_faster:
        stopwatch.note("hardly faster: widths in steps of 8 (--round-to 8) suit processors better")
    sliced = replace(sliced, plan=delivery.plan)
    report = account(planned, sliced, delivery, recovery, difference, command)
    delivery.write_report(report)
    return Result(sliced.module, sliced.program, sliced.plan, report, delivery.files)


def _slice(planned: Planned) -> tuple[Planned, slicing.Sliced]:
    """The choice, sliced. With --keep-class what the class cannot follow is protected, and the
    choice made again."""
    keep_class, protected = planned.options.keep_class, list[str]()
    while True:
        sliced = slicing.slice_network(
            planned.trace, planned.network, planned.keep, stand_ins_allowed=not keep_class
        )
        if not keep_class or sliced.plan.form == "class":
            return planned, sliced
        stuck = sliced.stuck
        while stuck in protected:
            stuck = stuck.rpartition(".")[0]
        if not stuck:
            raise CompressorError(
                f"the class cannot be kept: {sliced.plan.obstacle}",
                consequence="nothing was written",
                next_step="leave --keep-class out: the same network is delivered in another form",
            )
        protected.append(stuck)
        keep = choose(planned, planned.options, planned.sensitivity, protected)
        planned = replace(planned, keep=keep)


def _say_what_form(stopwatch: Stopwatch, plan: Plan) -> None:
    if plan.form == "program":
        stopwatch.note(f"the result is a program: {plan.obstacle}")
    if plan.stand_ins:
        some = ", ".join(list(plan.stand_ins)[:3])
        more = f" and {len(plan.stand_ins) - 3} more" if len(plan.stand_ins) > 3 else ""
        stopwatch.note(f"replaced by their traced operators: {some}{more} (--keep-class avoids it)")


class _Judge:
    """Measures the metric, where there is data for it."""

    def __init__(self, planned: Planned) -> None:
        self.name, self.metric = metric_of(planned.subject, planned.options)
        self.planned = planned

    def __call__(self, stage: str, module: nn.Module) -> dict[str, float]:
        test, options = self.planned.samples.test, self.planned.options
        if test is None:
            return {}
        with self.planned.stopwatch.stage(stage) as tick:
            whole = batches(test, options.batch_size)
            value = evaluate(module, whole, self.metric, options.device, tick)
            tick(len(whole), len(whole), f"{self.name} {value:.4f}")
        module.cpu()
        return {self.name: value}


def _recover(
    sliced: slicing.Sliced, planned: Planned, judge: _Judge, recovery: list[dict[str, Any]]
) -> None:
    """Repair, then fine-tuning, each with its metrics."""
    train, options = planned.samples.train, planned.options
    if train is None:
        return
    if options.repair:
        step = repair(sliced, planned)
        if step:
            metrics = judge("evaluate repaired", sliced.module)
            recovery.append({"step": step, "metrics": metrics})
    if options.epochs:
        with planned.stopwatch.stage("fine-tune") as tick:
            _fine_tune(sliced.module, planned, tick)
        metrics = judge("evaluate fine-tuned", sliced.module)
        epochs = "1 epoch" if options.epochs == 1 else f"{options.epochs} epochs"
        recovery.append({"step": f"{epochs} of fine-tuning", "metrics": metrics})


def _fine_tune(module: nn.Module, planned: Planned, tick: Tick) -> None:
    train, options = planned.samples.train, planned.options
    assert train is not None
    epochs = fine_tune(
        module,
        batches(
            train,
            options.batch_size,
            seed=options.seed,
            augment=options.augment,
            drop_last=True,
        ),
        epochs=options.epochs,
        loss=loss_of(planned.subject, options),
        teacher=None if train.labelled else planned.trace.module,
        lr=options.lr,
        device=options.device,
        progress=tick,
        seed=options.seed,
    )
    planned.trace.module.cpu()
    tick(1, 1, f"loss {epochs[-1].loss:.4f} in the last epoch")
