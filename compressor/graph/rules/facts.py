"""List what is known of single operators beside their equations, once for all who ask.

A key is an overload as in the table of rules. What a table lacks is not known of an operator, and
whoever asks does without: nothing becomes wrong, but less is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from compressor.errors import UsageError

Fact = TypeVar("Fact")


def known(*rows: tuple[Fact, str]) -> dict[str, Fact]:
    """Build a table from rows of a fact and the overloads that it is true of, parted by blanks.

    A bare name stands for its `default` overload.

    Raises:
        UsageError: An overload stands in the table twice.
    """
    facts: dict[str, Fact] = {}
    for fact, names in rows:
        for name in names.split():
            overload = name if "." in name else f"{name}.default"
            if overload in facts:
                raise UsageError(
                    f"a table of facts names the operator {overload} twice",
                    where=__name__,
                    next_step="keep one of the two",
                )
            facts[overload] = fact
    return facts


class Weighing(NamedTuple):
    """How an operator with a weight is a regression of its output on its input.

    Attributes:
        form: What it computes, a row of `least_squares.layouts.FORMS`.
        input, weight, bias: Names of its arguments; "" where it has no bias.
    """

    form: str
    input: str = "input"
    weight: str = "weight"
    bias: str = "bias"


WEIGHING: Mapping[str, Weighing] = known(
    (Weighing("linear"), "linear"),
    (Weighing("product", "mat1", "mat2", "self"), "addmm"),
    (Weighing("product", "self", "mat2", ""), "mm"),
    (Weighing("product", "self", "other", ""), "matmul"),
    (
        Weighing("convolution"),
        "conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding",
    ),
    (
        Weighing("transposed convolution"),
        "conv_transpose1d conv_transpose2d.input conv_transpose3d.input",
    ),
)
"""Operators whose weight least squares can fit anew; the weights of others stay as they are."""

PASSES_ON: Mapping[str, str] = known(
    ("input", "batch_norm dropout feature_dropout"),
    (
        "self",
        """dropout_ view reshape _unsafe_view flatten.using_ints unflatten.int permute transpose.int
        contiguous clone squeeze.dim unsqueeze mul.Tensor mul_.Tensor""",
    ),
)
"""Operators that pass on every value of one argument by itself, scaled and shifted -> that
argument. All their other arguments must come from weights."""

MOVES = frozenset(
    known(
        (
            None,
            """view reshape _unsafe_view flatten.using_ints unflatten.int permute transpose.int t
            numpy_T mT movedim.int swapaxes swapdims squeeze squeeze.dim unsqueeze select.int
            slice.Tensor narrow split.Tensor split_with_sizes split.sizes chunk unbind.int expand
            repeat repeat_interleave.self_int alias detach contiguous clone""",
        )
    )
)
"""Operators that put the values of their first argument elsewhere, by sizes and positions alone."""

KEEPS_PLACES = frozenset({"dropout.default", "_to_copy.default", "mul.Tensor", "div.Tensor"})
"""Operators that leave every value of their first argument where it is, by itself, if all others
are numbers."""

FILLS = frozenset(
    known(
        (
            None,
            """zeros new_zeros zeros_like ones new_ones ones_like full new_full full_like""",
        )
    )
)
"""Operators whose result holds one number everywhere, whatever they are given."""

CONVERTS = frozenset(
    known(
        (
            None,
            """to.dtype to.device to.dtype_layout _to_copy clone detach contiguous alias expand""",
        )
    )
)
"""Operators whose result holds the numbers of their first argument, converted or repeated."""

SUMS = frozenset({"add.Tensor", "add_.Tensor"})
"""Operators that add two activations, unless a factor (`alpha`) is given."""

IDEMPOTENT = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"})
"""Operators, without overload and in-place mark, that change nothing when they are repeated."""

KEEPS_ZEROS = frozenset({"clone.default", "_to_copy.default", "mul.Tensor"})
"""Operators, beside views, of which zeros in any operand are zeros in the result."""

CHANNEL_COUNTS: Mapping[str, str] = known(
    ("num_features", "batch_norm instance_norm"), ("num_channels", "group_norm")
)
"""Operators that a layer without tensors may call -> its attribute that counts the channels."""

TRAINING = ("training", "train", "use_input_stats")
"""Names that operators give the argument which tells training from evaluation."""
