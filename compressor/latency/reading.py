"""Read what a node asks of the runtime: the kernel's kind, its sizes as dimensions, its literals.

One table by the operator's name. A node that moves no data has no reading; an operator without a
row is read as one pass over its result.
"""

from __future__ import annotations

from compressor.graph.programs.nodes import base_name
from compressor.latency.operands import Operands, Reader, Reading
from compressor.latency.readers import (
    BINARY,
    ONNX_OPS,
    adaptive_pooling,
    addmm,
    attention,
    by_experts,
    convolution,
    elementwise,
    free,
    joining,
    linear,
    lookup,
    over_last,
    per_channel,
    pooling,
    product,
    recurrent,
    reduction,
    reordering,
)


def reading(operands: Operands) -> Reading | None:
    """Read what a node asks of the runtime; None where it moves no data."""
    if not operands.out:
        return None
    return READERS.get(base_name(operands.node), elementwise("Abs"))(operands)


def _rows(reader: Reader, names: str) -> dict[str, Reader]:
    return dict.fromkeys(names.split(), reader)


_VIEWS = """
view reshape flatten unflatten squeeze unsqueeze _unsafe_view view_as reshape_as alias detach
dropout feature_dropout alpha_dropout contiguous clone lift_fresh_copy _to_copy to expand expand_as
select slice split split_with_sizes chunk unbind narrow sym_size
"""

READERS: dict[str, Reader] = {
    **_rows(free, _VIEWS),
    **{f"conv{n}d": convolution(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": convolution(n, transposed=True) for n in (1, 2, 3)},
    "linear": linear,
    **_rows(addmm, "addmm baddbmm"),
    **_rows(product("self", "other"), "matmul linalg_matmul"),
    **_rows(product("self", "mat2"), "mm bmm"),
    **_rows(by_experts, "grouped_mm_fallback _grouped_mm"),
    "scaled_dot_product_attention": attention,
    "layer_norm": over_last("layer_norm", lambda o: len(o.get("normalized_shape"))),
    "rms_norm": over_last("layer_norm", lambda o: len(o.get("normalized_shape"))),
    **_rows(over_last("softmax", lambda o: 1), "softmax _softmax log_softmax"),
    "batch_norm": per_channel("batch_norm"),
    **_rows(per_channel("instance_norm"), "instance_norm"),
    "group_norm": per_channel("group_norm", "num_groups"),
    **{f"max_pool{n}d": pooling("MaxPool", n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": pooling("MaxPool", n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": pooling("AveragePool", n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": adaptive_pooling("AveragePool", n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": adaptive_pooling("MaxPool", n) for n in (1, 2, 3)},
    **_rows(reduction, "mean sum amax amin"),
    **_rows(reordering, "permute transpose swapaxes t"),
    **_rows(joining, "cat concat concatenate"),
    **_rows(lookup, "embedding"),
    "lstm": recurrent("LSTM", 4),
    "gru": recurrent("GRU", 3),
    **_rows(recurrent("RNN", 1), "rnn_tanh rnn_relu"),
    **{name: elementwise(op, 1 + (op in BINARY)) for name, op in ONNX_OPS.items()},
}
"""The reader of each operator, by its name without overload."""
