"""List all criteria by name: those in `score`, and reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from compressor import score
from compressor.least_squares import Memory, Workspace, reconstruction_scores
from compressor.options import CriterionName
from compressor.score import Criterion, Material, Rows
from compressor.score.data import WithoutTargets

AUTO = "auto"


def _reconstruction(material: Material) -> Rows:
    data = material.data
    found = reconstruction_scores(
        data.trace,
        material.network,
        lambda: WithoutTargets(data.batches),
        Workspace(
            data.device,
            seed=material.seed,
            memory=Memory.of(data.memory),
            note=material.note,
            progress=material.progress,
        ),
        of=material.unit,
    )
    return {name: [row] for name, row in found.items()}


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


def resolve(criterion: CriterionName, *, has_data: bool) -> CriterionName:
    """Return the criterion that "auto" stands for; any other is returned itself."""
    if criterion != AUTO:
        return criterion
    return "reconstruction" if has_data else "l2"
