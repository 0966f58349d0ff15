"""Do two forms of a network compute the same? On two inputs, and where it is free two batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import nn
from torch.utils import _pytree as pytree

from compressor.agreement import (
    Difference,
    Tolerance,
    difference,
    is_live,
    other_inputs,
    shaken,
    tolerance_of,
)
from compressor.errors import CompressorError
from compressor.modules import copy_of
from compressor.programs.beginning import ended_after
from compressor.programs.redraw import DRAWS, drawable, redraw_
from compressor.records import ExampleInputs, Trace

Outputs = list[torch.Tensor]


def variants(trace: Trace, seed: int = 0) -> list[ExampleInputs]:
    """The example inputs, and other values of their kind; with a free batch, of one sample more."""
    more = trace.batch_symbol is not None
    return [trace.examples, other_inputs(trace.examples, more=more, seed=seed)]


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


def tolerance_for(module: nn.Module) -> Tolerance:
    """The tolerance of the coarsest type that the module's parameters have."""
    types = {p.dtype for p in module.parameters() if p.is_floating_point()}
    found = [tolerance_of(dtype) for dtype in types or {torch.float32}]
    return max(found, key=lambda tolerance: tolerance.relative)


class Reference:
    """What one form computes on all variants, so that others can be held against it."""

    def __init__(self, module: nn.Module, trace: Trace) -> None:
        self.module, self.inputs = module, variants(trace)
        self.ends_after = trace.ends_after
        self.tolerance = tolerance_for(module)
        self.outputs = self._outputs(module)
        self.is_live = is_live(self.outputs)

    def agrees(self, found: Difference) -> bool:
        """Whether forms that are so far apart compute the same."""
        return found.size <= self.tolerance.relative

    def worst_difference(self, other: nn.Module) -> Difference:
        """The largest difference over all variants; both have the same weights.

        Where the outputs are dead (the same for different inputs), both are also compared under
        weights drawn anew, on copies.
        """
        worst = self._worst(self.module, self.outputs, other)
        if self.is_live or not self.agrees(worst):
            return worst
        module, outputs = self._redrawn
        follower = copy_of(other)
        follower.load_state_dict(module.state_dict(), strict=False)
        return max(worst, self._worst(module, outputs, follower), key=lambda each: each.size)

    def _worst(self, own: nn.Module, expected: list[Outputs], other: nn.Module) -> Difference:
        found = [outputs_of(other, example, self.ends_after) for example in self.inputs]
        return difference(
            expected,
            found,
            self.tolerance,
            lambda: shaken(own, self._outputs, self.tolerance),
        )

    def _outputs(self, module: nn.Module) -> list[Outputs]:
        return [outputs_of(module, example) for example in self.inputs]

    @property
    def shows_nothing(self) -> bool:
        """Whether the outputs are dead under weights drawn anew as well, so that whatever returns
        the same constant agrees."""
        return not (self.is_live or is_live(self._redrawn[1]))

    @cached_property
    def _redrawn(self) -> tuple[nn.Module, list[Outputs]]:
        """A copy with weights drawn anew until its outputs change, and its outputs."""
        module = copy_of(self.module)
        for seed in range(DRAWS):
            redraw_(drawable(module), seed)
            outputs = self._outputs(module)
            if is_live(outputs):
                break
        return module, outputs


def require_agreement(reference: Reference, worst: Difference, what: str) -> None:
    """Refuse to go on with forms that compute different things."""
    if not reference.agrees(worst):
        raise CompressorError(
            f"{what} compute different outputs (relative difference {worst.size:.1e})",
            where=worst.place,
            consequence="nothing is written, since one of them is wrong",
            next_step="please report the network; --protect the layers that differ until then",
        )
