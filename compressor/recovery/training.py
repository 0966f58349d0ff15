"""Train as the options say: the smaller network, and the original before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from compressor import slicing
from compressor.data import Batches, batches
from compressor.modules import copy_of
from compressor.options import Options
from compressor.planning.deciding import Planned, decided, goal_of
from compressor.planning.preparing import Prepared, anew
from compressor.planning.subject import earlier_weights, loss_of, step_of
from compressor.recover import (
    FIRST_LEARNING_RATES,
    LEARNING_RATES,
    GroupSparsity,
    Objective,
    Recipe,
    Schedule,
    TrainingState,
    estimated_seconds,
    fine_tune,
    reinitialised,
)
from compressor.recovery.journal import Journal
from compressor.recovery.recovering import Judge, Moments
from compressor.selection import prunable
from compressor.trace import learning_in

AT_THE_END, BEFORE = "training", "sparsity"
"""Names of the journal's records of the last training, and of that before the first cut."""


@dataclass(frozen=True)
class Leg:
    """One training of a run.

    Attributes:
        epochs: Number of epochs.
        schedule: The schedule that it is part of.
        record: Name of its record in the journal.
        prefix: Stands before the names of its moments.
    """

    epochs: int
    schedule: Schedule
    record: str
    prefix: str = ""


def trained(
    module: nn.Module, prepared: Prepared, judge: Judge, leg: Leg, journal: Journal
) -> Moments:
    """Train a network in place, and evaluate it.

    Returns:
        The moment after the last epoch with its metrics; before it that after the best epoch on
        validation data, if that was another one. Empty without epochs or training data.
    """
    if not leg.epochs or prepared.samples.train is None:
        return []
    state = _descend(module, prepared, leg, journal)
    return _moments(module, state, judge, leg, "fine-tuning")


def trained_at_the_end(
    sliced: slicing.Sliced, planned: Planned, judge: Judge, schedule: Schedule, journal: Journal
) -> Moments:
    """Train the sliced network in place from the weights that the policy begins with.

    Returns:
        The moments of the training with their metrics, as `trained` returns them, after that of
        new weights if the policy gives some.
    """
    options = planned.options
    if not options.epochs or planned.samples.train is None:
        return []
    done = _begun(sliced, planned, judge)
    if options.policy != "continue":
        schedule = Schedule(options.epochs)
    leg = Leg(options.epochs, schedule, AT_THE_END)
    return done + trained(sliced.module, planned, judge, leg, journal)


def sparsified(root: Planned, judge: Judge, journal: Journal) -> tuple[Planned, Moments]:
    """Train a copy of the original for sparsity, and score and choose from it anew.

    Returns:
        The new choice and the moments of the training; `root` itself if no such training is wanted.
    """
    options = root.options
    if not options.sparsity_epochs or root.samples.train is None:
        return root, []
    module = copy_of(root.original.module)
    slicing.learn(module, root.trace.learning)
    groups = prunable(root.network, options.protect, options.prune)
    penalty = GroupSparsity(root.network, module, groups, options.sparsity)
    epochs = options.sparsity_epochs
    leg = Leg(epochs, Schedule(epochs), BEFORE)
    state = _descend(module, root, leg, journal, penalty)
    moments = _moments(module, state, judge, leg, "sparsity learning")
    prepared = anew(root, module.cpu())
    if root.choice is None:
        return _with(root, prepared), moments
    with root.stopwatch.stage("select"):
        return decided(prepared, goal_of(prepared)), moments


def _with(root: Planned, prepared: Prepared) -> Planned:
    return replace(root, **vars(prepared))


def _begun(sliced: slicing.Sliced, planned: Planned, judge: Judge) -> Moments:
    """Give the sliced network the policy's weights in place; return the moment after that."""
    beginning = beginning_of(planned)
    if beginning is None:
        return []
    dense, words = beginning
    slicing.carry_sliced(dense, sliced.plan, sliced.module)
    metrics = judge("evaluate what training begins with", sliced.module)
    return [{"step": words, "metrics": metrics}]


def beginning_of(prepared: Prepared) -> tuple[nn.Module, str] | None:
    """Return the dense network with the weights that the policy begins with, and what they are.

    None where training goes on with the weights that are left.
    """
    options, original = prepared.options, prepared.original.module
    if options.policy == "reinitialise":
        return reinitialised(original, options.seed), "re-initialised"
    if options.rewind_to is not None:
        return earlier_weights(prepared.loaded, options), f"weights rewound to {options.rewind_to}"
    return None


def recipe_of(options: Options, leg: Leg) -> Recipe:
    """Return the recipe of a training, as the options say."""
    begins = leg.record == AT_THE_END and options.policy != "continue"
    rates = FIRST_LEARNING_RATES if begins else LEARNING_RATES
    return Recipe(
        leg.epochs,
        horizon=leg.schedule.horizon,
        lr=options.lr or rates[options.optimizer],
        optimizer=options.optimizer,
        weight_decay=options.weight_decay,
        accumulate=options.accumulate,
        precision=options.precision,
        seed=options.seed,
        compiled=options.compile,
        captured=options.capture,
    )


def _descend(
    module: nn.Module,
    planned: Prepared,
    leg: Leg,
    journal: Journal,
    penalty: GroupSparsity | None = None,
) -> TrainingState:
    train, options, stopwatch = planned.samples.train, planned.options, planned.stopwatch
    assert train is not None
    whole = batches(
        train, options.batch_size, seed=options.seed, augment=options.augment, drop_last=True
    )
    recipe = recipe_of(options, leg)
    teacher = planned.original.module
    objective = Objective(
        loss=loss_of(planned.subject, options),
        step=step_of(options),
        teacher=teacher,
        distill=options.distill,
        label_smoothing=options.label_smoothing,
    )
    learning = _let_learn(module, planned)
    _say_how(planned, module, whole, recipe, objective)
    quiet, record = Judge(planned, planned.samples.validation), journal.kept(leg.record)
    state = leg.schedule.begin()
    if record is not None and _fits(record["weights"], module):
        state = TrainingState.from_dict(record)
        stopwatch.note(f"training goes on after epoch {state.epoch}")
    name = "fine-tune" if penalty is None else "learn sparsity"
    with stopwatch.stage(leg.prefix + name) as tick:
        state = fine_tune(
            module,
            whole,
            recipe,
            objective,
            device=options.device,
            validate=quiet.value if quiet.data is not None else None,
            penalty=penalty,
            state=state,
            after_epoch=lambda reached: journal.keep(leg.record, reached.to_dict()),
            progress=tick,
        )
        last = state.history[-1]
        found = f", {quiet.name} {last.metric:.4f} on validation" if last.metric is not None else ""
        tick(1, 1, f"loss {last.loss:.4f} in the last epoch{found}")
    if state.not_captured:
        stopwatch.note(f"training steps were not recorded as a CUDA graph: {state.not_captured}")
    teacher.cpu()
    slicing.learn(module, learning)
    leg.schedule.note(state)
    return state


def _let_learn(module: nn.Module, planned: Prepared) -> frozenset[str]:
    """Let all parameters learn, in place, where every one is frozen and training would do nothing.

    Returns:
        Names of the parameters that learned before.
    """
    learning = learning_in(module)
    named = dict(module.named_parameters())
    frozen = len(named) - len(learning & named.keys())
    if not learning:
        numbers = [n for n, p in named.items() if p.is_floating_point() or p.is_complex()]
        slicing.learn(module, numbers)
        planned.stopwatch.note("every parameter is frozen: all are trained, and frozen again")
    elif frozen:
        planned.stopwatch.note(f"{frozen} of {len(named)} parameters are frozen: not trained")
    return learning


def _fits(weights: Mapping[str, Any], module: nn.Module) -> bool:
    """Return whether stored weights have the names and shapes of this network's."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return {name: tensor.shape for name, tensor in weights.items()} == shapes


def _moments(
    module: nn.Module, state: TrainingState, judge: Judge, leg: Leg, words: str
) -> Moments:
    done: Moments = []
    best = state.best_epoch
    if best is not None and best != state.epoch and judge.data is not None:
        module.load_state_dict(state.best, strict=False)
        metrics = judge("evaluate best epoch", module)
        done.append({"step": f"{leg.prefix}epoch {best}, best on validation", "metrics": metrics})
        module.load_state_dict(state.weights, strict=False)
    metrics = judge(f"evaluate after {words}", module)
    epochs = "1 epoch" if leg.epochs == 1 else f"{leg.epochs} epochs"
    history = [asdict(result) for result in state.history]
    return [
        *done,
        {
            "step": f"{leg.prefix}{epochs} of {words}",
            "metrics": metrics,
            "training": {"epochs": history, "best_epoch": best},
        },
    ]


def _say_how(
    planned: Prepared, module: nn.Module, whole: Batches, recipe: Recipe, objective: Objective
) -> None:
    """Note the recipe and an estimate of the time that it takes, before the training starts."""
    with planned.stopwatch.stage("estimate training time") as tick:
        device = planned.options.device
        seconds = estimated_seconds(module, whole, recipe, objective, device)
        tick(1, 1, f"about {seconds / 60:.1f} min")
    train = planned.samples.train
    assert train is not None
    if objective.step is not None:
        learnt = "by the step of --train"
    elif objective.loss is None and not train.labelled:
        learnt = "on the original's outputs alone"
    else:
        learnt = f"on labels and with weight {objective.weight:g} on the original's outputs"
    planned.stopwatch.note(
        f"training {learnt}: {recipe.optimizer}, learning rate {recipe.lr:g} falling by half a "
        f"cosine, {len(whole)} batches an epoch"
    )
