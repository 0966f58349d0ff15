"""Say in words how a network is trained, and that its loss did not fall."""

from __future__ import annotations

from compressor.recover import OPTIMIZERS, Course, Objective, Recipe


def describe_recipe(
    recipe: Recipe, objective: Objective, batches: int, *, labelled: bool, because: str = ""
) -> str:
    """Describe what a training learns from, and how.

    Args:
        recipe: How it is trained.
        objective: What it makes small.
        batches: How many there are in an epoch.
        labelled: Whether the data have labels.
        because: What of the network asks for the optimizer; "" where nothing does.
    """
    if objective.step is not None:
        learnt = "by the step of --train"
    elif objective.loss is None and not labelled:
        learnt = "on the original's outputs alone"
    else:
        learnt = f"on labels and with weight {objective.weight:g} on the original's outputs"
    optimizer = f"{recipe.optimizer} (the network has {because})" if because else recipe.optimizer
    return (
        f"training {learnt}: {optimizer}, learning rate {recipe.lr:g} falling by half a "
        f"cosine, {batches} batches an epoch, in {recipe.form}"
    )


def describe_standstill(course: Course, recipe: Recipe) -> str:
    """Say that a training made its loss no smaller, and what to try."""
    first, last = ("epoch", "epoch") if course.has_epochs else ("tenth of the steps", "half")
    other = next(name for name in OPTIMIZERS if name != recipe.optimizer)
    return (
        "the loss did not fall by more than its noise: "
        f"{course.first:.4g} in the first {first}, {course.last:.4g} in the last {last}; try "
        f"another --lr than {recipe.lr:g}, --optimizer {other}, or a --loss of your own"
    )
