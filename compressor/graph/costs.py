"""Count what a network costs by its equations, and say in words what that number leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compressor.graph.counting import count_params
from compressor.graph.counting_by_program import macs_of_program
from compressor.graph.network import Network
from compressor.listing import some_of
from compressor.records import Trace


@dataclass(frozen=True)
class NetworkForm:
    """A network whose costs are asked for: the traced one, or a smaller one made from it.

    Attributes:
        module: Its module; its parameters are counted.
        program: Its program.
        kept: Name of each group of which channels went -> how many are left.
    """

    module: nn.Module
    program: ExportedProgram
    kept: Mapping[str, int]


@dataclass(frozen=True)
class Costs:
    """What a network costs.

    Attributes:
        params: Number of elements in its parameters.
        macs: Multiply-adds of one sample.
        layers: Path of a layer -> multiply-adds of one sample.
    """

    params: int
    macs: int
    layers: Mapping[str, int]


def costs_of(traced: Trace, network: Network, form: NetworkForm | None = None) -> Costs:
    """Count the parameters and the multiply-adds of a form of the network, by default the traced.

    Where data decide a size, it is that of the example inputs: the program is run on them. Where
    the traced batch is fixed, the multiply-adds are a sample's share of the batch. What a detector
    computes after its program's end depends on what it finds, and is not counted.
    """
    form = form or NetworkForm(traced.module, traced.program, {})
    params = count_params(form.module)
    if not _has_other_symbols(traced):
        sizes = network.sizes(form.kept)
        return Costs(params, network.cost.macs(sizes), network.cost.macs_by_layer(sizes))
    args, kwargs, samples = one_sample(traced)
    layers = macs_of_program(form.program, args, kwargs)
    each = {name: count // samples for name, count in layers.items()}
    return Costs(params, sum(layers.values()) // samples, each)


def _has_other_symbols(traced: Trace) -> bool:
    """Return whether the program has a size that is neither fixed nor the batch."""
    known = {traced.batch_symbol} if traced.batch_symbol else set()
    return any(str(symbol) not in known for symbol in traced.program.range_constraints)


def one_sample(traced: Trace) -> tuple[tuple[object, ...], dict[str, object], int]:
    """Return the example inputs cut to one sample, where the batch is free, and how many they are.

    Returns:
        Positional inputs, inputs by name, and the number of samples in them.
    """
    examples = (traced.examples.args, dict(traced.examples.kwargs))
    if traced.batch_symbol is None:
        return *examples, traced.batch
    one = pytree.tree_map(lambda x: x[:1] if isinstance(x, Tensor) and x.dim() else x, examples)
    return *one, 1


def notes_on_macs(traced: Trace, network: Network) -> Iterator[str]:
    """Yield what a user must know to read the network's MACs; nothing where they count all work."""
    if _has_other_symbols(traced):
        yield (
            "sizes beside the batch are open until the network runs: budgets and predictions count "
            "them as one, the MACs before and after are those of the example inputs"
        )
    if network.uncounted:
        listed = [
            f"{u.operator} ({_calls(u.calls)}: {some_of(u.places)})" for u in network.uncounted
        ]
        yield f"not counted in the MACs, having no formula: {'; '.join(listed)}"
    if network.unread.layers:
        share = network.unread.macs / max(1, network.cost.macs())
        yield (
            f"{share:.1%} of the MACs are thrown away: no output of an evaluation depends on "
            f"{some_of(network.unread.layers)}; they are counted and kept as they are, and an ONNX "
            "file leaves them out"
        )


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"
