"""Predict the network's latency at any choice of widths, from its layers' measured times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from compressor.graph.axes import Axis
from compressor.latency.latency_table import LatencyTable
from compressor.latency.layers import Layer, by_axis


@dataclass(frozen=True)
class LatencyModel:
    """A network's latency at any widths: times of its layers from a table, added up.

    Attributes:
        layers: The network's layers.
        table: Their measured times.
        factor: What the whole network was measured to take over what its layers are predicted to,
            at full width: what lies between the layers, and what the runtime does across them.

    Raises:
        CompressorError: The table lacks a layer.
    """

    layers: tuple[Layer, ...]
    table: LatencyTable
    factor: float = 1.0

    def __post_init__(self) -> None:
        self.table.check_covers(self.layers)

    def fit(self, measured_ms: float) -> LatencyModel:
        """Return the model whose prediction for the network at full width is `measured_ms`."""
        return replace(self, factor=self.factor * measured_ms / self.latency_ms({}))

    def of_layers(self, layers: Iterable[Layer]) -> LatencyModel:
        """Return the model of a network with other layers, such as one that lacks some.

        Layers that the table has no times of count for nothing: what is left of a block whose
        operators ran within others (an activation).
        """
        return replace(self, layers=tuple(filter(self.table.covers, layers)))

    def latency_ms(self, sizes: Mapping[Axis, int]) -> float:
        """Predict the whole network's milliseconds when the axes in `sizes` have those sizes."""
        return self.factor * sum(timer.ms(sizes) for timer in self._timers)

    def layers_ms(self, layers: Sequence[Layer], sizes: Mapping[Axis, int]) -> float:
        """Predict the milliseconds of some of the network's layers, as a part of `latency_ms`."""
        return self.factor * sum(self._timer_of[layer.name].ms(sizes) for layer in layers)

    def layers_of(self, axis: Axis) -> tuple[Layer, ...]:
        """Return the layers that get faster or slower with the axis."""
        return self._by_axis.get(axis, ())

    @cached_property
    def _timers(self) -> tuple[_Timer, ...]:
        return tuple(_Timer(layer, self.table) for layer in self.layers)

    @cached_property
    def _timer_of(self) -> dict[str, _Timer]:
        return {timer.layer.name: timer for timer in self._timers}

    @cached_property
    def _by_axis(self) -> dict[Axis, tuple[Layer, ...]]:
        return by_axis(self.layers)


class _Timer:
    """One layer's time at any widths, remembered by the sizes of its axes."""

    def __init__(self, layer: Layer, table: LatencyTable) -> None:
        self.layer = layer
        self.surface = table.surface(layer)
        self.defaults = [axis.size for axis in layer.axes]
        self.known: dict[tuple[int, ...], float] = {}

    def ms(self, sizes: Mapping[Axis, int]) -> float:
        key = tuple(map(sizes.get, self.layer.axes, self.defaults))
        ms = self.known.get(key)
        if ms is None:
            widths = self.layer.sizes(sizes)
            ms = self.surface.at([widths[name] for name in self.layer.free])
            self.known[key] = ms
        return ms
