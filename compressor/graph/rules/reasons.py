"""Name the reasons why positions stay, in the words of the reports."""

from collections.abc import Mapping


def no_rule(operator: str) -> str:
    """Return the reason to keep all that reaches an operator without a rule."""
    return f"the operator {operator} has no rule"


def no_longer_followed(operator: str) -> str:
    """Return the reason to keep what an operator is told positions of, by numbers."""
    return f"numbers say positions along it, and {operator} makes others of them"


INPUT = "a model input"
OUTPUT = "a model output"
UNUSED = "no operator uses it"
UNREAD = "what is computed along it is thrown away"
SHARES_MEMORY = "shares memory"
GROWS = "grows with the batch"
TWICE = "stands twice in one dimension"
LEVEL = "has as many positions as others that are taken apart otherwise"

FROM_THE_NETWORK = (INPUT, OUTPUT, UNUSED, UNREAD, SHARES_MEMORY, GROWS, TWICE, LEVEL)
"""Reasons that no single operator gives."""

INDEXED = "rows are looked up by data"
KERNEL = "kernel positions"
SLID = "a convolution slides over it"
POOLED = "positions are pooled or resampled"
SAMPLED = "positions are sampled"
OFFSETS = "places where a convolution reads"
UNPOOLED = "positions are unpooled"
WINDOWS = "windows slide over it"
PIXELS = "pixels are shuffled"
MOVED = "positions move along it"
PADDED = "padded by its own values or cropped"
TRIANGLE = "a triangle of it is zeroed"
COMPLEX = "real and imaginary part"
FREQUENCIES = "frequencies and the places that they are of"
ATTENDED = "attention positions"
COORDINATES = "coordinates of vectors"
DIAGONAL = "positions stand along a diagonal"
MIXED = "indices along it are mixed"
CHOSEN = "positions are chosen along it"
ORDERED = "positions along it matter"
COUNTED = "its values depend on the position"
STACKED = "counts stacked tensors"
STEP = "the step of a slice"
STRIDED = "sliced with a step"
TAKEN = "single indices are taken"
OVERWRITTEN = "a part is overwritten"
GATE_ROWS = "gates"
CELLS = "gates, layers and directions"
STEPS = "steps of a sequence"
PROJECTION = "hidden units stay more than a projection has"

REASONS: Mapping[str, str] = {
    name: text for name, text in list(globals().items()) if name.isupper() and type(text) is str
}
"""Name of the constant -> the text in reports."""
