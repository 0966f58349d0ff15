"""Do two forms of a network compute the same? On two inputs, and where it is free two batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError
from compressor.modules import copy_of
from compressor.programs.beginning import ended_after
from compressor.programs.redraw import drawable, redraw_
from compressor.records import ExampleInputs, Trace

TOLERANCE = 1e-4
"""Largest relative difference between two forms of the same float32 network."""

Outputs = list[torch.Tensor]


def variants(trace: Trace, seed: int = 0) -> list[ExampleInputs]:
    """The example inputs, and other values of their kind; with a free batch, of one sample more."""
    generator = torch.Generator().manual_seed(seed)
    other = _mapped(trace.examples, lambda leaf: _another(leaf, generator))
    return [trace.examples, _mapped(other, _one_more) if trace.batch_symbol else other]


def _mapped(inputs: ExampleInputs, change: Any) -> ExampleInputs:
    def on_tensors(leaf: Any) -> Any:
        return change(leaf) if isinstance(leaf, torch.Tensor) and leaf.dim() else leaf

    args, kwargs = pytree.tree_map(on_tensors, (inputs.args, dict(inputs.kwargs)))
    return ExampleInputs(args, kwargs, inputs.origin)


def _another(leaf: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Values like the given ones in other places: legal wherever the given ones were."""
    order = torch.randperm(leaf.numel(), generator=generator)
    shuffled = leaf.reshape(-1)[order].view_as(leaf)
    if not leaf.is_floating_point():
        return shuffled
    noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float32)
    return (shuffled + 0.1 * noise.to(leaf.dtype)).contiguous()


def _one_more(leaf: torch.Tensor) -> torch.Tensor:
    return torch.cat([leaf, leaf[:1]])


def outputs_of(module: nn.Module, inputs: ExampleInputs, ends_after: Sequence[str] = ()) -> Outputs:
    """All tensors that the module returns, without gradients; of a class whose program ends after
    some calls, what they return."""
    args, kwargs = pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf,
        (inputs.args, dict(inputs.kwargs)),
    )
    with torch.no_grad(), ended_after(module, ends_after):
        returned = module(*args, **kwargs)
    return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]


def difference(reference: Outputs, others: Outputs) -> float:
    """max |a - b| / max |a| over all outputs; infinite where shapes, values or NaNs disagree."""
    if [a.shape for a in reference] != [b.shape for b in others]:
        return float("inf")
    return max((_relative(a, b) for a, b in zip(reference, others, strict=True)), default=0.0)


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    if not a.numel() or torch.equal(a, b):
        return 0.0
    largest = float((a.double() - b.double()).abs().max())
    scale = float(a.double().abs().max())
    return largest / scale if scale and largest == largest else float("inf")


def is_live(outputs: Sequence[Sequence[torch.Tensor]], bound: float = 1e-6) -> bool:
    """Whether the outputs vary from place to place, and between the first two inputs, by more than
    `bound` of the largest value."""
    first, second = outputs[0], outputs[1]
    pairs = [(a, b) for a, b in zip(first, second, strict=False) if a.is_floating_point()]
    return any(_varies(a, bound) and _relative(*_shared_part(a, b)) > bound for a, b in pairs)


def _varies(a: torch.Tensor, bound: float) -> bool:
    return a.numel() < 2 or float(a.double().std()) > bound * float(a.double().abs().max())


def _shared_part(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What two outputs of different batch sizes have in common."""
    part = tuple(slice(min(sizes)) for sizes in zip(a.shape, b.shape, strict=True))
    return a[part], b[part]


class Reference:
    """What one form computes on all variants, so that others can be held against it."""

    def __init__(self, module: nn.Module, trace: Trace) -> None:
        self.module, self.inputs = module, variants(trace)
        self.ends_after = trace.ends_after
        self.outputs = [outputs_of(module, example) for example in self.inputs]
        self.is_live = is_live(self.outputs)

    def worst_difference(self, other: nn.Module) -> float:
        """The largest relative difference over all variants; both have the same weights.

        Where the outputs are dead (constant, or the same for different inputs), both are also
        compared under weights drawn anew, on copies.
        """
        worst = self._worst(self.outputs, other)
        if self.is_live or worst > TOLERANCE:
            return worst
        module, outputs = self._redrawn
        follower = copy_of(other)
        follower.load_state_dict(module.state_dict(), strict=False)
        return max(worst, self._worst(outputs, follower))

    def _worst(self, expected: Sequence[Outputs], other: nn.Module) -> float:
        worst = 0.0
        for outputs, example in zip(expected, self.inputs, strict=True):
            found = outputs_of(other, example, self.ends_after)
            worst = max(worst, difference(outputs, found))
            if worst > TOLERANCE:
                break
        return worst

    @cached_property
    def _redrawn(self) -> tuple[nn.Module, list[Outputs]]:
        module = redrawn(self.module)
        return module, [outputs_of(module, example) for example in self.inputs]


def redrawn(module: nn.Module) -> nn.Module:
    """A copy of the module with weights drawn anew."""
    alive = copy_of(module)
    redraw_(drawable(alive))
    return alive


def require_agreement(worst: float, what: str) -> None:
    """Refuse to go on with forms that compute different things."""
    if not worst <= TOLERANCE:
        raise CompressorError(
            f"{what} compute different outputs (relative difference {worst:.1e})",
            consequence="nothing is written, since one of them is wrong",
            next_step="please report the network; --protect the layers that differ until then",
        )
