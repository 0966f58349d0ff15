"""What the torch at hand does otherwise than later ones."""

from __future__ import annotations

import pytest
import torch

IS_2_11 = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 12)

follows_branches = pytest.mark.skipif(
    IS_2_11, reason="torch 2.11 follows no branch on a number that data decide: it is refused"
)
