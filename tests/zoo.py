"""The hand-made networks, at most 20 lines each: one idea that other tools trip over, and the axes
that can shrink in it."""

import zoo_attention
import zoo_convolutions
import zoo_forms
import zoo_layouts
import zoo_norms
import zoo_recurrent
import zoo_spectral
from zoo_member import MEMBERS, Member

FAMILIES = (
    zoo_attention,
    zoo_convolutions,
    zoo_forms,
    zoo_layouts,
    zoo_norms,
    zoo_recurrent,
    zoo_spectral,
)

__all__ = ["FAMILIES", "MEMBERS", "Member"]
