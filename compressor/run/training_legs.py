"""Train as the options say: the smaller network, and the original before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from compressor import slicing
from compressor.choose import ByPlan, WithinDrop, goal_of, prunable
from compressor.graph.trace import learning_in
from compressor.loading.data import Batches, batches
from compressor.modules import copy_of
from compressor.recover import (
    FIRST_LEARNING_RATES,
    LEARNING_RATES,
    GroupSparsity,
    Hooks,
    Objective,
    Recipe,
    Schedule,
    TrainingState,
    fine_tune,
    optimizer_for,
    rehearse,
    reinitialise,
)
from compressor.run.decide import Decision, decide_with_blocks
from compressor.run.journal import Journal
from compressor.run.judging import Judge, Moment
from compressor.run.loaded import earlier_weights
from compressor.run.opened import Run
from compressor.run.opening import reopen
from compressor.run.subject import loss_of, step_of
from compressor.run.training_words import describe_recipe, describe_standstill

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


def train(run: Run, module: nn.Module, judge: Judge, leg: Leg, journal: Journal) -> list[Moment]:
    """Train a network in place, and evaluate it.

    Returns:
        The moment after the last epoch with its metrics; before it that after the best epoch on
        validation data, if that was another one. Empty without epochs or training data.
    """
    if not leg.epochs or run.samples.train is None:
        return []
    state = _descend(run, module, leg, journal)
    return _moments(module, state, judge, leg, "fine-tuning")


def train_at_the_end(
    run: Run, sliced: slicing.Sliced, judge: Judge, schedule: Schedule, journal: Journal
) -> list[Moment]:
    """Train the sliced network in place from the weights that the policy begins with.

    Returns:
        The moments of the training with their metrics, as `train` returns them, after that of
        new weights if the policy gives some.
    """
    options = run.options
    if not options.epochs or run.samples.train is None:
        return []
    done = _begin(run, sliced, judge)
    if options.policy != "continue":
        schedule = Schedule(options.epochs)
    leg = Leg(options.epochs, schedule, AT_THE_END)
    return done + train(run, sliced.module, judge, leg, journal)


def learn_sparsity(
    root: Run, decision: Decision, judge: Judge, journal: Journal
) -> tuple[Run, Decision, list[Moment]]:
    """Train a copy of the original for sparsity, and score and choose from it anew.

    Returns:
        The trained network's run, the new choice and the moments of the training; what was given if
        no such training is wanted.
    """
    options = root.options
    if not options.sparsity_epochs or root.samples.train is None:
        return root, decision, []
    module = copy_of(root.original.module)
    slicing.learn(module, root.trace.learning)
    groups = prunable(root.network, options.protect, options.prune)
    penalty = GroupSparsity(root.network, module, groups, options.sparsity)
    epochs = options.sparsity_epochs
    leg = Leg(epochs, Schedule(epochs), BEFORE)
    state = _descend(root, module, leg, journal, penalty)
    moments = _moments(module, state, judge, leg, "sparsity learning")
    run = reopen(root, module.cpu())
    goal = goal_of(options, run.total)
    if isinstance(goal, WithinDrop | ByPlan):
        return run, replace(decision, timing=run.timing), moments
    with root.stopwatch.stage("select"):
        return run, decide_with_blocks(run, goal), moments


def _begin(run: Run, sliced: slicing.Sliced, judge: Judge) -> list[Moment]:
    """Give the sliced network the policy's weights in place; return the moment after that."""
    beginning = beginning_of(run)
    if beginning is None:
        return []
    dense, words = beginning
    slicing.carry_sliced(dense, sliced.plan, sliced.module)
    return [Moment(words, judge("evaluate what training begins with", sliced.module))]


def beginning_of(run: Run) -> tuple[nn.Module, str] | None:
    """Return the dense network with the weights that the policy begins with, and what they are.

    None where training goes on with the weights that are left.
    """
    options, original = run.options, run.original.module
    if options.policy == "reinitialise":
        return reinitialise(original, options.seed), "re-initialised"
    if options.rewind_to is not None:
        return earlier_weights(run.loaded, options), f"weights rewound to {options.rewind_to}"
    return None


def _optimizer_of(run: Run) -> tuple[str, str]:
    """Return the optimizer, as the options say, or the network where they do not, and why it."""
    asked: str = run.options.optimizer
    return optimizer_for(run.original.program) if asked == "auto" else (asked, "")


def _recipe_of(run: Run, leg: Leg, optimizer: str) -> Recipe:
    """Return the recipe of a training by an optimizer, else as the options say."""
    options = run.options
    begins = leg.record == AT_THE_END and options.policy != "continue"
    rates = FIRST_LEARNING_RATES if begins else LEARNING_RATES
    return Recipe(
        leg.epochs,
        horizon=leg.schedule.horizon,
        lr=options.lr or rates[optimizer],
        optimizer=optimizer,
        weight_decay=options.weight_decay,
        accumulate=options.accumulate,
        precision=options.precision,
        seed=options.seed,
        compiled=options.compile,
        captured=options.capture,
    )


def _descend(
    run: Run,
    module: nn.Module,
    leg: Leg,
    journal: Journal,
    penalty: GroupSparsity | None = None,
) -> TrainingState:
    train, options, stopwatch = run.samples.train, run.options, run.stopwatch
    assert train is not None
    whole = batches(
        train, options.batch_size, seed=options.seed, augment=options.augment, drop_last=True
    )
    optimizer, because = _optimizer_of(run)
    recipe = _recipe_of(run, leg, optimizer)
    teacher = run.original.module
    objective = Objective(
        loss=loss_of(run.subject, options),
        step=step_of(options),
        teacher=teacher,
        distill=options.distill,
        label_smoothing=options.label_smoothing,
        penalty=penalty,
        task=train.task,
    )
    learning = _let_learn(run, module)
    recipe = _rehearse(run, module, whole, recipe, objective, because)
    quiet, record = Judge(run, run.samples.validation), journal.find_record(leg.record)
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
            state=state,
            hooks=Hooks(
                validate=quiet.value if quiet.data is not None else None,
                better=quiet.measure.scale.better,
                after_epoch=lambda reached: journal.keep(leg.record, reached.to_dict()),
                progress=tick,
            ),
        )
        last = state.history[-1]
        said = f", {quiet.name} {last.metric:.4f} on validation" if last.metric is not None else ""
        tick(1, 1, f"loss {last.loss:.4f} in the last epoch{said}")
    if state.not_captured:
        stopwatch.note(f"training steps were not recorded as a CUDA graph: {state.not_captured}")
    if penalty is None and state.course is not None and not state.course.falls:
        stopwatch.note(leg.prefix + describe_standstill(state.course, recipe))
    teacher.cpu()
    slicing.learn(module, learning)
    leg.schedule.note(state)
    return state


def _let_learn(run: Run, module: nn.Module) -> frozenset[str]:
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
        run.stopwatch.note("every parameter is frozen: all are trained, and frozen again")
    elif frozen:
        run.stopwatch.note(f"{frozen} of {len(named)} parameters are frozen: not trained")
    return learning


def _fits(weights: Mapping[str, Any], module: nn.Module) -> bool:
    """Return whether stored weights have the names and shapes of this network's."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return {name: tensor.shape for name, tensor in weights.items()} == shapes


def _moments(
    module: nn.Module, state: TrainingState, judge: Judge, leg: Leg, words: str
) -> list[Moment]:
    done: list[Moment] = []
    best = state.best_epoch
    if best is not None and best != state.epoch and judge.data is not None:
        module.load_state_dict(state.best, strict=False)
        metrics = judge("evaluate best epoch", module)
        done.append(Moment(f"{leg.prefix}epoch {best}, best on validation", metrics))
        module.load_state_dict(state.weights, strict=False)
    metrics = judge(f"evaluate after {words}", module)
    epochs = "1 epoch" if leg.epochs == 1 else f"{leg.epochs} epochs"
    history = [asdict(result) for result in state.history]
    training = {"epochs": history, "best_epoch": best}
    return [*done, Moment(f"{leg.prefix}{epochs} of {words}", metrics, training)]


def _rehearse(
    run: Run,
    module: nn.Module,
    whole: Batches,
    recipe: Recipe,
    objective: Objective,
    because: str,
) -> Recipe:
    """Return the recipe in the form that steps will have; note it, and the time that it takes."""
    device, train = run.options.device, run.samples.train
    assert train is not None
    with run.stopwatch.stage("estimate training time") as tick:
        found = rehearse(module, whole, recipe, objective, device)
        tick(1, 1, f"about {found.seconds / 60:.1f} min")
    recipe = found.recipe
    words = describe_recipe(recipe, objective, len(whole), labelled=train.labelled, because=because)
    run.stopwatch.note(words)
    if found.why:
        run.stopwatch.note(f"training computes in {recipe.form}: {found.why}")
    return recipe
