"""Score by what least squares on the consumers cannot make up for."""

from __future__ import annotations

from compressor.least_squares import Memory, Workspace, reconstruction_scores
from compressor.score.criterion import Material, Rows
from compressor.score.data import WithoutTargets


def reconstruction(material: Material) -> Rows:
    """Return a finished row per group: the error that dropping its channels adds, per cost."""
    data = material.data
    scores = reconstruction_scores(
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
    return {name: [row] for name, row in scores.items()}
