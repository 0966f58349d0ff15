"""Scores of a network's channels from its parts, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compressor.graph.network import Network
from compressor.score import Scores, scoring
from compressor.score.criterion import Material

SETTINGS = ("reduction", "normalise", "criteria")


def score(
    network: Network, tensors: Mapping[str, torch.Tensor], criterion: str, **options: Any
) -> Scores:
    """Score by a criterion; options are those of `Material` or of `compressor.score.score`."""
    settings = {name: options.pop(name) for name in SETTINGS if name in options}
    material = Material(network, tensors, **options)
    return scoring.score(material, criterion, **settings)
