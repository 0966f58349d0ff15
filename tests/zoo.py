"""The hand-made networks, at most 20 lines each: one idea that other tools trip over, and the axes
that can shrink in it."""

import zoo_convolutions
import zoo_forms
import zoo_sequences
from zoo_member import MEMBERS, Member

__all__ = ["MEMBERS", "Member", "zoo_convolutions", "zoo_forms", "zoo_sequences"]
