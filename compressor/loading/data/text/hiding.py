"""Hide tokens from a masked language model, which has to find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.recover.evaluation import IGNORED

SHARE, BY_MASK, BY_OTHER = 0.15, 0.8, 0.1
"""Of the tokens so many are looked for (Devlin et al. 2019, section 3.1); of these so many are
replaced by the mask, and so many by any other token."""


@dataclass(frozen=True)
class Hiding:
    """How tokens are hidden: the same ones of a sample each time.

    Attributes:
        mask: The id of the mask token.
        vocabulary: How many tokens there are.
        special: Ids that are never hidden.
        seed: Seed of the choice, together with the sample's number.
    """

    mask: int
    vocabulary: int
    special: Sequence[int]
    seed: int

    def __call__(self, ids: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return a sample's ids with some hidden, and what was there; `IGNORED` elsewhere.

        Args:
            ids: Token ids, [positions].
            number: The sample's number.
        """
        rng = np.random.default_rng((self.seed, number))
        places = (~torch.isin(ids, torch.tensor(self.special))).nonzero().flatten().numpy()
        count = min(len(places), max(1, round(SHARE * len(places))))
        chosen = torch.from_numpy(np.sort(rng.permutation(places)[:count]))
        fate = torch.from_numpy(rng.random(count))
        others = torch.from_numpy(rng.integers(self.vocabulary, size=count))
        hidden, target = ids.clone(), torch.full_like(ids, IGNORED)
        target[chosen] = ids[chosen]
        hidden[chosen] = torch.where(
            fate < BY_MASK,
            self.mask,
            torch.where(fate < BY_MASK + BY_OTHER, others, ids[chosen]),
        )
        return hidden, target
