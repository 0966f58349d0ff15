"""Check that two forms of a network compute the same on several inputs and batch sizes."""

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
    is_loud,
    other_inputs,
    shake,
    thin,
    tolerance_of,
)
from compressor.errors import CompressorError
from compressor.graph.programs.attention_path import unfuse_attention
from compressor.graph.programs.beginning import end_after
from compressor.graph.programs.redraw import redraw_until_clear
from compressor.modules import copy_of
from compressor.on_demand import OnDemand, read_all
from compressor.records import ExampleInputs, Trace

Outputs = list[torch.Tensor]


def variants(trace: Trace, seed: int = 0) -> list[ExampleInputs]:
    """Return the example inputs, and other values of their kind (if free, a larger batch)."""
    more = trace.batch_symbol is not None
    return [trace.examples, other_inputs(trace.examples, more=more, seed=seed)]


def outputs_of(module: nn.Module, inputs: ExampleInputs, ends_after: Sequence[str] = ()) -> Outputs:
    """Run a module and return all tensors that it returns, without gradients.

    Of very large ones some rows are returned (`thin`).

    Args:
        module: What is run, on copies of the inputs.
        inputs: The inputs.
        ends_after: Paths of the modules after whose calls the class's program ends; what these
            calls return is then returned.
    """
    args, kwargs = pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf,
        (inputs.args, dict(inputs.kwargs)),
    )
    # as it was traced: fused, encoder layers give zeros at padded positions
    with torch.no_grad(), unfuse_attention(), end_after(module, ends_after):
        returned = module(*args, **kwargs)
    tensors = (leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor))
    return [thin(tensor) for tensor in tensors]


def tolerance_for(module: nn.Module) -> Tolerance:
    """Return the tolerance of the coarsest type that the module's parameters have."""
    types = {p.dtype for p in module.parameters() if p.is_floating_point()}
    tolerances = [tolerance_of(dtype) for dtype in types or {torch.float32}]
    return max(tolerances, key=lambda tolerance: tolerance.relative)


class Reference:
    """What one form computes on all variants of the inputs, to compare others with it."""

    def __init__(self, module: nn.Module, trace: Trace, more: Sequence[ExampleInputs] = ()) -> None:
        """Run the form on the variants of the traced inputs, and on further inputs."""
        self.module, self.inputs = module, [*variants(trace), *more]
        self.ends_after = trace.ends_after
        self.tolerance = tolerance_for(module)
        self.outputs = self._outputs(module)
        self.is_live = is_live(self.outputs)

    @property
    def lasts(self) -> bool:
        """Return whether nothing can change what the form computes: all is kept on demand."""
        parameters = [isinstance(each, OnDemand) for each in self.module.parameters()]
        return bool(parameters) and all(parameters)

    def agrees(self, found: Difference) -> bool:
        """Return whether a difference is so small that the forms compute the same."""
        return found.size <= self.tolerance.relative

    def worst_difference(self, other: nn.Module) -> Difference:
        """Return the largest difference over all variants; both forms must have the same weights.

        Where the outputs are dead (the same for different inputs), both are also compared under
        weights drawn anew, on copies.
        """
        worst = self._worst(self.module, self.outputs, other)
        if self.is_live or not self.agrees(worst):
            return worst
        module, outputs = self._redrawn
        follower = copy_of(other)
        read_all(follower)
        follower.load_state_dict(module.state_dict(), strict=False)
        return max(worst, self._worst(module, outputs, follower), key=lambda each: each.size)

    def _worst(self, own: nn.Module, expected: list[Outputs], other: nn.Module) -> Difference:
        actual = [outputs_of(other, example, self.ends_after) for example in self.inputs]
        return difference(
            expected,
            actual,
            self.tolerance,
            lambda: shake(own, self._outputs, self.tolerance),
        )

    def _outputs(self, module: nn.Module) -> list[Outputs]:
        return [outputs_of(module, example) for example in self.inputs]

    @property
    def shows_nothing(self) -> bool:
        """Return whether the outputs are dead under weights drawn anew as well.

        Whatever returns the same constant would then agree.
        """
        return not (self.is_live or is_live(self._redrawn[1]))

    @cached_property
    def _redrawn(self) -> tuple[nn.Module, list[Outputs]]:
        """Return a copy with weights drawn anew until its outputs change, and its outputs."""
        module = copy_of(self.module)
        read_all(module)

        def is_quiet() -> bool:
            return not is_loud(self._outputs(module), shake(module, self._outputs, self.tolerance))

        redraw_until_clear(module, lambda: is_live(self._outputs(module)), is_quiet)
        return module, self._outputs(module)


def require_agreement(reference: Reference, worst: Difference, what: str) -> None:
    """Raise an error if two forms compute different things.

    Raises:
        CompressorError: They do; `what` names the forms.
    """
    if not reference.agrees(worst):
        raise CompressorError(
            f"{what} compute different outputs (relative difference {worst.size:.1e})",
            where=worst.place,
            consequence="nothing is written, since one of them is wrong",
            next_step="please report the network; --protect the layers that differ until then",
        )
