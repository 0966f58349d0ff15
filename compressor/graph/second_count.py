"""Count a network's multiply-adds once more, independently, to check those of the equations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compressor.errors import CompressorError
from compressor.graph.costs import NetworkForm, one_sample
from compressor.graph.counting import count_macs, has_formula
from compressor.graph.network import Network
from compressor.graph.programs.beginning import end_after
from compressor.records import Trace


@dataclass(frozen=True)
class SecondCount:
    """The multiply-adds of one sample as fvcore counts them, on the network's module.

    Attributes:
        macs: Their number; None where the module's code cannot be traced.
        left_out: Operators of which fvcore has no formula -> their multiply-adds by their rules.
        reason: Why there is no number.
    """

    macs: int | None
    left_out: Mapping[str, int]
    reason: str = ""

    def contradicts(self, macs: int) -> bool:
        """Return whether the number differs from `macs` by more than what it leaves out."""
        return self.macs is not None and self.macs + sum(self.left_out.values()) != macs


def count_again(traced: Trace, network: Network, form: NetworkForm) -> SecondCount:
    """Count a form of the network by fvcore, which knows nothing of rules and equations."""
    by_operator = network.cost.macs_by_operator(network.sizes(form.kept))
    left_out = {op: macs for op, macs in by_operator.items() if not has_formula(op)}
    args, kwargs, samples = one_sample(traced)
    try:
        with end_after(form.module, traced.ends_after):
            counted = count_macs(form.module, args, kwargs, reads_weights=traced.branched)
    except CompressorError as error:
        return SecondCount(None, left_out, f"{error.what} ({error.where})")
    return SecondCount(counted // samples, left_out)
