"""Hold a network to the widths that its class's configuration can say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from compressor.choose.configured import Found, begin_search, find_all, scaled
from compressor.choose.kinds import kinds_that_go
from compressor.choose.layer_counts import Count, find_counts
from compressor.errors import CompressorError
from compressor.graph.blocks import Block
from compressor.graph.network import Network, Tied
from compressor.graph.whole_layers import path_of_layer
from compressor.listing import some_of
from compressor.loading.configurations import Configurations, Edits, Place
from compressor.records import Group, Protection


@dataclass(frozen=True)
class Uniform:
    """The widths that a configuration can say.

    Attributes:
        configuration: The name of its class.
        found: What its numbers hold.
        pins: Numbers that the folder's file leaves open, and which are said from now on.
        kinds: Kinds of units that may go.
        counts: The lists of layers whose length it says.
    """

    configuration: str
    found: tuple[Found, ...]
    pins: Edits
    kinds: frozenset[str]
    counts: tuple[Count, ...] = ()

    def can_lack(self, layer: Block) -> bool:
        """Return whether the configuration can say that a whole layer is gone."""
        container = path_of_layer(layer.name).rpartition(".")[0]
        return container in {count.container for count in self.counts}

    def restrict(self, network: Network) -> Network:
        """Return an analysis in which only widths that the configuration can say may change.

        Args:
            network: The analysis of the network, or of one that lacks blocks or channels of it.
        """
        ties = [tie for tie in self._ties(network) if not _meets(network.level, tie)]
        tied = {name for tie in ties for name in tie.groups}
        staying = [g for g in network.groups if g.role in self.kinds and g.name not in tied]
        names = {group.name for group in staying}
        return replace(
            network,
            groups=tuple(group for group in network.groups if group.name not in names),
            protections=(*network.protections, *map(self._protect, staying)),
            axes={name: axis for name, axis in network.axes.items() if name not in names},
            tied=tuple(ties),
        )

    def describe_what_stays(self, network: Network) -> str:
        """Return in words what a restricted network keeps whole for want of a number; "" if none.

        A layer is named without its number, since all layers share what the configuration says.
        """
        mine = [each for each in network.protections if each.reason == self._reason]
        layers = [each.tensors[0].rpartition(".")[0] for each in mine]
        names = dict.fromkeys(_without_numbers(layer) for layer in layers)
        return f"{some_of(list(names))} stay whole: {self._reason}" if names else ""

    def edits(
        self, network: Network, kept: Mapping[str, int], leaving: Sequence[str] = ()
    ) -> Edits:
        """Return what the configuration says of a network in which groups keep so many channels.

        Args:
            network: Its analysis.
            kept: Group name -> channels that stay; other groups keep all.
            leaving: Paths of the items of lists of layers that are gone.

        Raises:
            CompressorError: The widths are not such as it can say.
        """
        shares: dict[Place, Fraction] = {}
        knobs = {knob.path: knob for held in self.found for knob in held.knobs}
        ties = self._ties(network)
        for tie in ties:
            share = _share_of(network, tie, kept)
            for held in self.found:
                for knob in held.knobs if held.by == tie.by else ():
                    shares[knob.path] = shares.get(knob.path, Fraction(1)) * share
        others = kept.keys() - {name for tie in ties for name in tie.groups}
        if others:
            raise _unsayable(sorted(others))
        changed = {path: share for path, share in shares.items() if share != 1}
        said = {path: scaled([knobs[path]], share)[path] for path, share in changed.items()}
        return {**self.pins, **said, **self._fewer_layers(leaving)}

    def _fewer_layers(self, leaving: Sequence[str]) -> dict[Place, Any]:
        places: dict[str, set[int]] = {}
        for path in leaving:
            container, _, place = path.rpartition(".")
            places.setdefault(container, set()).add(int(place))
        counts = {count.container: count for count in self.counts}
        if unknown := sorted(places.keys() - counts.keys()):
            raise _unsayable(unknown)
        edits: dict[Place, Any] = {}
        for container, gone in places.items():
            edits |= counts[container].without(gone)
        return edits

    def _ties(self, network: Network) -> list[Tied]:
        known = [(held, group) for held in self.found for group in held.groups]
        ties: dict[tuple[str, ...], dict[str, int]] = {}
        for group in network.groups:
            held, like = max(known, key=lambda each: _likeness(group, each[1]))
            if _likeness(group, like):
                ties.setdefault(held.by, {})[group.name] = like.size // held.steps
        return [Tied(tuple(times), tuple(times.values()), by) for by, times in ties.items()]

    @property
    def _reason(self) -> str:
        return f"{self.configuration} has no number for them (--no-uniform cuts them)"

    def _protect(self, group: Group) -> Protection:
        places = tuple(f"{member.tensor}:{member.dim}" for member in group.members)
        first = f"{group.producer.tensor}:{group.producer.dim}"
        return Protection((first, *places), group.size, self._reason, group.layer)


def find_uniform(
    configurations: Configurations, network: Network, prune: Sequence[str]
) -> Uniform | None:
    """Find the widths of a network that its configuration can say; None where there are none.

    Args:
        configurations: Builds the network's class.
        network: Its analysis.
        prune: Kinds of units that go beside those that do by default.
    """
    kinds = kinds_that_go(prune)
    search = begin_search(configurations, network, kinds)
    held = tuple(find_all(search)) if search is not None else ()
    if search is None or not held:
        return None
    counts = find_counts(configurations, search.pins)
    return Uniform(configurations.name, held, search.pins, kinds, counts)


def _likeness(group: Group, other: Group) -> float:
    """Return which share of the places of two groups of one role is common to both."""
    one, two = ({(m.tensor, m.dim) for m in each.members} for each in (group, other))
    return len(one & two) / len(one | two) if group.role == other.role else 0.0


def _meets(links: Sequence[Sequence[str]], tie: Tied) -> bool:
    return any(set(link) & set(tie.groups) for link in links)


def _share_of(network: Network, tie: Tied, kept: Mapping[str, int]) -> Fraction:
    shares = {
        Fraction(kept.get(name, network.axes[name].size), network.axes[name].size)
        for name in tie.groups
    }
    if len(shares) > 1:
        raise _unsayable(tie.groups)
    return shares.pop()


def _unsayable(names: Sequence[str]) -> CompressorError:
    return CompressorError(
        f"the widths are not such as the configuration can say: {some_of(list(names))}",
        consequence="there is no folder that transformers loads",
        next_step="leave --no-uniform out, or load the result with compressor.load",
    )


def _without_numbers(layer: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in layer.split("."))
