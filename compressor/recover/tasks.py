"""Say what outputs are for, and so what training makes small and what networks are judged by.

The class of a network of the transformers library tells its task: the library lists the classes of
each in a table of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.metrics import EMBEDDING_SHIFT, FIDELITY, PERPLEXITY, TOP1
from compressor.padding import MASK
from compressor.recover.evaluation import IGNORED, primary_output, why_no_classes

IDS = "input_ids"
"""The input of token ids."""

Aligned = tuple[Tensor, Tensor]
"""Scores with the classes along dimension 1, and as many targets."""


@dataclass(frozen=True)
class Task:
    """What the first output of a network is for.

    Attributes:
        words: What it does, in words.
        tables: Names of transformers' tables of the classes that do so.
        metric: Name of the metric where there are targets.
        unlabelled: Name of the metric where there are none.
        align: (scores, targets) -> the scores of each target's classes, beside the targets.
        classes: The dimension of the scores that goes through the classes; None where the shapes
            of scores and targets say it.
        learns_inputs: Whether targets are the input's own tokens, where none are given.
    """

    words: str
    tables: tuple[str, ...]
    metric: str
    unlabelled: str = FIDELITY
    align: Callable[[Tensor, Tensor], Aligned] = lambda scores, target: (scores, target)
    classes: int | None = None
    learns_inputs: bool = False

    def complete(self, inputs: Any, target: Any) -> Any:
        """Return a sample's target, or its own tokens where it has none and they are to be found.

        Args:
            inputs: The sample's, by name, else they have no tokens that are known.
            target: What is given.
        """
        ids = inputs.get(IDS) if isinstance(inputs, Mapping) else None
        if target is not None or not self.learns_inputs or not isinstance(ids, Tensor):
            return target
        mask = inputs.get(MASK)
        is_masked = isinstance(mask, Tensor) and mask.shape == ids.shape
        return ids.masked_fill(mask == 0, IGNORED) if is_masked else ids


def _next_tokens(scores: Tensor, target: Tensor) -> Aligned:
    """Lay the scores at each position beside the token after it."""
    return scores[:, :-1].flatten(0, -2), target[:, 1:].flatten()


def _same_tokens(scores: Tensor, target: Tensor) -> Aligned:
    """Lay the scores at each position beside the target there."""
    return scores.flatten(0, -2), target.flatten()


USUAL = Task("scores classes, along dimension 1", (), TOP1)
CAUSAL = Task(
    "finds the next token",
    ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    PERPLEXITY,
    align=_next_tokens,
    classes=-1,
    learns_inputs=True,
)
MASKED = Task(
    "finds hidden tokens",
    ("MODEL_FOR_MASKED_LM_MAPPING_NAMES",),
    PERPLEXITY,
    align=_same_tokens,
    classes=-1,
)
ENCODER_DECODER = Task(
    "finds the next token of a text that follows from another",
    ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",),
    PERPLEXITY,
    align=_same_tokens,
    classes=-1,
)
TOKENS = Task(
    "scores classes of each token",
    ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",),
    TOP1,
    align=_same_tokens,
    classes=-1,
)
CLASSES = Task(
    "scores classes of a text",
    ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",),
    TOP1,
)
EMBEDDINGS = Task(
    "gives vectors",
    ("MODEL_MAPPING_NAMES", "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES"),
    TOP1,
    unlabelled=EMBEDDING_SHIFT,
)

TASKS = (CAUSAL, MASKED, ENCODER_DECODER, TOKENS, CLASSES, EMBEDDINGS)
"""The tasks that a class of transformers tells; of several that list it, the first counts."""


def task_of(module: nn.Module) -> Task:
    """Return what the outputs of a network are for, as far as its class tells; else `USUAL`."""
    library = sys.modules.get("transformers.models.auto.modeling_auto")
    if library is None or getattr(module, "main_input_name", "") != IDS:
        return USUAL
    theirs = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("transformers.")]
    for task in TASKS:
        names = {name for table in task.tables for name in _names(library, table)}
        if not names.isdisjoint(theirs):
            return task
    return USUAL


def _names(library: Any, table: str) -> set[str]:
    """Return the names of the classes in one of transformers' tables, by kind of model."""
    each = getattr(library, table, {}).values()
    return {name for names in each for name in ([names] if isinstance(names, str) else names)}


def why_not(task: Task, outputs: Any, target: Any) -> str:
    """Return in words why outputs and targets are not those of a task; "" where they are."""
    scores = primary_output(outputs)
    if task.classes is not None and scores.ndim > 1:
        scores = scores.movedim(task.classes, 1)
    return why_no_classes(scores, target)


def cross_entropy(
    outputs: Any, target: Tensor, task: Task = USUAL, label_smoothing: float = 0.0
) -> Tensor:
    """Compute the cross-entropy of a network's first output with what it was to find, a scalar."""
    scores, classes = task.align(primary_output(outputs), target)
    return F.cross_entropy(scores, classes, label_smoothing=label_smoothing)
