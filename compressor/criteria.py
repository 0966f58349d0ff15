"""All criteria by name: those that score what is there, and reconstruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from types import MappingProxyType
from typing import Any

from compressor import score
from compressor.options import CriterionName
from compressor.reconstruction import reconstruction_scores
from compressor.score import Criterion, Material, Rows

AUTO = "auto"


def _reconstruction(material: Material) -> Rows:
    data = material.data
    found = reconstruction_scores(
        data.trace,
        material.network,
        lambda: _Inputs(data.batches),
        of=material.unit,
        device=data.device,
        seed=material.seed,
        progress=material.progress,
    )
    return {name: [row] for name, row in found.items()}


class _Inputs:
    """Batches without their targets."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches) if isinstance(self.batches, Sized) else 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return (inputs for inputs, _ in self.batches)


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "reconstruction": Criterion(
            "what a least-squares re-fit of the consumers cannot make up for, per unit of cost",
            "Hassibi and Stork 1993, Optimal Brain Surgeon, for whole channels; cf. Frantar and "
            "Alistarh 2022, Optimal Brain Compression",
            _reconstruction,
            needs="data",
            normalise="none",
        ),
        **score.CRITERIA,
    }
)


def resolved(criterion: CriterionName, *, has_data: bool) -> CriterionName:
    """The criterion that "auto" stands for."""
    if criterion != AUTO:
        return criterion
    return "reconstruction" if has_data else "l2"
