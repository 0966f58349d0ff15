"""Say in words what the number of multiply-adds leaves out, and what in it is thrown away."""

from __future__ import annotations

from collections.abc import Iterator

from compressor.graph.network import Network
from compressor.listing import some_of


def notes_on_macs(network: Network) -> Iterator[str]:
    """Yield what a user must know to read the network's MACs; nothing where they count all work."""
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
