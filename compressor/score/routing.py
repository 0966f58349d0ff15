"""Score experts of mixtures, and their widths, by what routers send through them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from compressor.calls import Call
from compressor.least_squares import price_of
from compressor.padding import counted_of
from compressor.score.averages import Average
from compressor.score.criterion import Floats, Material, Rows
from compressor.score.places import Place, places
from compressor.score.routed_program import RoutedProgram
from compressor.score.traced_program import told_apart

Energies = Mapping[str, Floats]


def routed_energies(material: Material) -> Rows:
    """Return a row per group of experts, and per group of channels that experts alone sum over.

    An expert's score is its share of what all add: the energy of its outputs, each times the weight
    that the router gives it. A channel's is its share of the energy of the products that it is in,
    over all experts. Both are per share of the cost that is saved; padding counts for nothing.

    Raises:
        CompressorError: The network fails on a batch, or the inputs are not the traced call's.
    """
    network = material.network
    if not network.routers:
        return {}
    added, given = _measure(material)
    energies = {**added, **_energies_of_channels(material, given)}
    return {
        group.name: [_share(energies[group.name]) / price_of(network, group, material.unit)]
        for group in network.groups
        if group.name in energies
    }


def _share(energies: Floats) -> Floats:
    return energies / max(float(energies.sum()), 1e-30)


def _measure(material: Material) -> tuple[Energies, Energies]:
    """Run the data through the program.

    Returns:
        Group of experts -> what each adds, [experts]. Node of a product with experts' weights ->
        sums of squares of what each expert is given, [experts * features].
    """
    data, network = material.data, material.network
    program = RoutedProgram(data.trace, network, data.device)
    sizes = {group.name: group.size for group in network.groups}
    added = Average({name: sizes[name] for name in program.groups})
    features = {
        c.node: network.tensors[c.tensor][0].size * network.tensors[c.tensor][c.dim].size
        for c in network.consumers
        if c.node in program.products
    }
    given = Average(features)
    with torch.no_grad():
        for inputs, _ in data.batches:
            counted = counted_of(Call.of(inputs))
            program.counted = None if counted is None else counted.reshape(-1)
            with told_apart(inputs):
                program(inputs, lambda consumer, activation: activation)
            for name in program.groups:
                added.add(name, program.added(name, sizes[name]))
            for node in features:
                given.add(node, program.given(node))
    return added.result(), given.result()


def _energies_of_channels(material: Material, given: Energies) -> Energies:
    """Return the energies of channels' products, for groups that experts alone sum over."""
    network, found = material.network, dict[str, Floats]()
    nodes = {(c.tensor, c.dim): c.node for c in network.consumers if c.node in given}
    for name, there in places(network, material.tensors).items():
        summed = [place for place in there if place.member.contracted]
        keys = [(place.member.tensor, place.member.dim) for place in summed]
        if summed and all(key in nodes for key in keys):
            each = [_products(p, given[nodes[key]]) for p, key in zip(summed, keys, strict=True)]
            found[name] = np.sum(each, axis=0)
    return found


def _products(place: Place, squares: Floats) -> Floats:
    """Return the energy of each channel's products, over all experts, [channels].

    Args:
        place: A stack of weights, its first dimension the experts.
        squares: Sums of squares of what each expert is given, [experts * features].
    """
    weights = place.weight.square().movedim(place.member.dim, 1).sum(2).cpu().numpy()
    return place.sums((weights * squares.reshape(weights.shape)).sum(0))
