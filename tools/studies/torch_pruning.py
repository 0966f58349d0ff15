"""The one adapter of Torch-Pruning: its pruner and its importances, to a budget by bisection."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compressor.graph.counting import count_macs
from tools.studies.bisection import bisect
from tools.studies.timing import time_modules

IMPORTANCES: Mapping[str, Callable[[], Any]] = {
    "random": tp.importance.RandomImportance,
    "magnitude L1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "magnitude L2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "LAMP": lambda: tp.importance.LAMPImportance(p=2),
    "FPGM": tp.importance.FPGMImportance,
    "BN scale": tp.importance.BNScaleImportance,
    "Taylor": tp.importance.GroupTaylorImportance,
}
MOST = 0.9
"""The largest share of a layer's channels that it removes, as in ours."""

Gradients = Sequence[Tensor | None]

History = Sequence[tuple[str, bool, Sequence[int]]]
"""What was cut, one after the other: a layer, whether its outputs, and which of those left."""

_Cut = tuple[nn.Module, History]
"""A smaller module, and how it became so."""


@dataclass(frozen=True)
class Goal:
    """How small, and by what.

    Attributes:
        ratio: The share that is to go.
        of: What it is a share of: "macs", or "latency", the measured time of a call.
        importance: A key of IMPORTANCES.
        round_to: Widths are multiples of it; None: any.
        seed: Of the random importance.
    """

    ratio: float
    of: str = "macs"
    importance: str = "magnitude L2"
    round_to: int | None = None
    seed: int = 0

    @property
    def close(self) -> float:
        """Return the difference in the share left at which a search ends."""
        return 0.005 if self.of == "macs" else 0.01


@dataclass(frozen=True)
class Hint:
    """What Torch-Pruning has to be told of a network.

    Attributes:
        options: Further options of its pruner, for a module.
        finish: Changes the module's attributes after its pruner has cut it.
    """

    options: Callable[[nn.Module], dict[str, Any]]
    finish: Callable[[nn.Module, Any], None] = lambda module, pruner: None


def _last_layer(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]


def _streams(module: nn.Module) -> dict[str, Any]:
    """Keep what makes a CIFAR ResNet's residual streams: they break at its padded shortcut."""
    kept = [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not name.endswith(".conv1")
    ]
    return {"ignored_layers": kept}


def _vision_transformer(module: nn.Module) -> dict[str, Any]:
    attentions = [x for x in module.modules() if isinstance(x, nn.MultiheadAttention)]
    loose = ("class_token", "encoder.pos_embedding")
    return {
        "ignored_layers": _last_layer(module),
        "num_heads": {layer: layer.num_heads for layer in attentions},
        "unwrapped_parameters": [
            (p, p.dim() - 1) for name, p in module.named_parameters() if name in loose
        ],
    }


def _narrow(module: Any, _: Any) -> None:
    module.hidden_dim = module.conv_proj.out_channels


def _heads_and_widths(module: Any) -> dict[str, Any]:
    """Of the character model: whole heads, and the widths inside its perceptrons."""
    blocks = list(module.blocks)
    streams = [layer for block in blocks for layer in (block.attention.out, block.down)]
    return {
        "ignored_layers": [module.token, module.head, *streams],
        "num_heads": {block.attention.qkv: block.attention.heads for block in blocks},
        "prune_num_heads": True,
        "prune_head_dims": False,
    }


def _count_heads(module: Any, pruner: Any) -> None:
    for block in module.blocks:
        block.attention.heads = pruner.num_heads[block.attention.qkv]


LAST_LAYER = Hint(lambda module: {"ignored_layers": _last_layer(module)})
INSIDE_BLOCKS = Hint(_streams)
VISION_TRANSFORMER = Hint(_vision_transformer, _narrow)
CHARACTER_MODEL = Hint(_heads_and_widths, _count_heads)


def pruner_of(
    module: nn.Module, example: Tensor | None, importance: str, share: float, **options: Any
) -> Any:
    """Return its pruner of a module, which has read the network's graph and cut nothing yet."""
    scored_by = IMPORTANCES[importance]()
    return tp.pruner.BasePruner(
        module, example, importance=scored_by, pruning_ratio=share, **options
    )


def prune(
    module: nn.Module,
    example: Tensor,
    goal: Goal,
    hint: Hint = LAST_LAYER,
    gradients: Gradients = (),
) -> nn.Module:
    """Return a smaller copy of the module, in eval mode, that is nearest to the goal.

    Args:
        module: Not changed.
        example: What it takes, [1, ...].
        goal: How small, and by what.
        hint: What Torch-Pruning has to be told.
        gradients: Of the loss by the module's parameters, in their order, for Taylor.
    """

    return _search(module, example, goal, hint, gradients)[0]


def find_history(module: nn.Module, example: Tensor, goal: Goal, hint: Hint) -> History:
    """Return what it cuts of a module, which is not changed, on the way to the goal."""
    return _search(module, example, goal, hint, ())[1]


def _search(
    module: nn.Module, example: Tensor, goal: Goal, hint: Hint, gradients: Gradients
) -> _Cut:
    def left(made: _Cut) -> float:
        smaller = made[0]
        if goal.of == "latency":
            both = {"original": module, "smaller": smaller}
            return float(time_modules(both, example, seconds=3.0)[0]["share"]["smaller"])
        return count_macs(smaller, (example,), {}) / count_macs(module, (example,), {})

    def make(share: float) -> _Cut:
        return _cut(module, example, goal, share, hint, gradients)

    return bisect(make, left, 1 - goal.ratio, close=goal.close)


def _cut(
    module: nn.Module,
    example: Tensor,
    goal: Goal,
    share: float,
    hint: Hint,
    gradients: Gradients,
) -> _Cut:
    copied = copy.deepcopy(module).eval()
    torch.manual_seed(goal.seed)
    options = hint.options(copied)
    if "prune_num_heads" in options:
        options["head_pruning_ratio"] = share
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        asked = {"global_pruning": True, "max_pruning_ratio": MOST, "round_to": goal.round_to}
        pruner = pruner_of(copied, example, goal.importance, share, **asked, **options)
        for parameter, gradient in zip(copied.parameters(), gradients, strict=False):
            parameter.grad = None if gradient is None else gradient.clone()
        pruner.step()
    hint.finish(copied, pruner)
    copied.zero_grad()
    return copied, pruner.DG.pruning_history()
