"""A real call of an operator for every rule, on small tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

GENERATOR = torch.Generator().manual_seed(0)


def t(*shape: int) -> Tensor:
    """Numbers between 0.1 and 1, in float64."""
    return torch.rand(shape, generator=GENERATOR, dtype=torch.float64) * 0.9 + 0.1


def i(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=GENERATOR)


def row(name: str, free: int, *arguments: Any, zero: tuple[Any, ...] = (), **named: Any) -> Any:
    """An operator's call, and how many axes its rule leaves free to lose indices."""
    name = name if "." in name else f"{name}.default"
    return pytest.param(name, free, arguments, named, zero, id=f"{name}-{free}")


def cells(
    gates: int, width: int, hidden: int, layers: int = 1, directions: int = 1
) -> list[Tensor]:
    """The weights of recurrent layers, two matrices and two biases per layer and direction."""
    found: list[Tensor] = []
    for layer in range(layers):
        inner = width if layer == 0 else hidden * directions
        for _ in range(directions):
            rows = gates * hidden
            found += [t(rows, inner) - 0.5, t(rows, hidden) - 0.5, t(rows), t(rows)]
    return found


def deformable(groups: int, parts: int) -> tuple[Any, ...]:
    """The arguments of a deformable convolution from 8 to 6 channels, with a mask."""
    places = [t(2, n * parts * 9, 5, 5) for n in (2, 1)]
    numbers = (1, 1, 1, 1, 1, 1, groups, parts)
    return t(2, 8, 5, 5), t(6, 8 // groups, 3, 3), *places, t(6), *numbers, True


BOXES = torch.tensor([[0, 0, 0, 4, 4], [1, 1, 1, 6, 6], [0, 2, 1, 7, 5]], dtype=torch.float64)
"""Regions of interest: which image, and two corners."""

ENDS = torch.tensor([2, 2, 6], dtype=torch.int32)
"""Where the rows of three experts end."""

ONE_WAY, BOTH_WAYS = (False, False, True), (False, True, False)
"""In evaluation: not bidirectional but batch first, and the other way round."""

CALLS = [
    # convolutions: groups, in and out of a group are three axes
    row("conv1d", 3, t(2, 4, 9), t(6, 4, 3), t(6), [2], [1]),
    row("conv2d", 4, t(2, 8, 5, 5), t(12, 2, 3, 3), None, [1, 1], [0, 0], [1, 1], 4),
    row("conv2d", 2, t(2, 6, 5, 5), t(6, 1, 3, 3), t(6), [1, 1], [1, 1], [1, 1], 6),
    row("conv2d.padding", 3, t(2, 4, 5, 5), t(6, 4, 3, 3), t(6), [1, 1], "same"),
    row("conv3d", 4, t(2, 4, 3, 3, 3), t(6, 2, 2, 2, 2), t(6), [1] * 3, [0] * 3, [1] * 3, 2),
    row("conv_transpose1d", 3, t(2, 4, 5), t(4, 6, 3), t(6)),
    row("conv_transpose2d.input", 4, t(2, 6, 4, 4), t(6, 3, 2, 2), t(6), [2, 2], groups=2),
    row("conv_transpose3d.input", 3, t(2, 4, 2, 2, 2), t(4, 3, 2, 2, 2)),
    # products
    row("linear", 4, t(2, 3, 4), t(5, 4), t(5)),
    row("linear", 2, t(2, 4), t(4)),
    row("matmul", 4, t(2, 4, 3), t(3, 5)),
    row("matmul", 5, t(2, 1, 4, 3), t(6, 3, 5)),
    row("matmul", 3, t(3), t(2, 3, 5)),
    row("matmul", 3, t(2, 4, 3), t(3)),
    row("mm", 3, t(4, 3), t(3, 5)),
    row("bmm", 4, t(2, 4, 3), t(2, 3, 5)),
    row("mv", 2, t(4, 3), t(3)),
    row("dot", 1, t(4), t(4)),
    row("addmm", 3, t(5), t(4, 3), t(3, 5)),
    row("baddbmm", 4, t(2, 4, 5), t(2, 4, 3), t(2, 3, 5)),
    row("einsum", 5, "bhid,bhjd->bhij", [t(2, 3, 4, 5), t(2, 3, 6, 5)]),
    row("einsum", 4, "bij,jk->bik", [t(2, 3, 4), t(4, 5)]),
    row("einsum", 4, "bij,jk", [t(2, 3, 4), t(4, 5)]),
    row(
        *("scaled_dot_product_attention", 4, t(2, 4, 3, 6), t(2, 4, 5, 6), t(2, 4, 5, 7)),
        zero=(("query", 3),),
    ),
    row(
        *("scaled_dot_product_attention", 5, t(2, 6, 3, 4), t(2, 3, 5, 4), t(2, 3, 5, 4)),
        zero=(("query", 3),),
        enable_gqa=True,
    ),
    row(
        *("scaled_dot_product_attention", 4, t(2, 4, 3, 6), t(2, 4, 5, 6), t(2, 4, 5, 7)),
        zero=(("query", 3),),
        attn_mask=t(4, 3, 5),
        scale=0.5,
    ),
    # norms: a statistic's own dimensions are not for dropping
    row("batch_norm", 3, t(2, 6, 3), t(6), t(6), t(6), t(6), False, 0.1, 1e-5, False),
    row("batch_norm", 1, t(2, 6, 3), t(6), t(6), t(6), t(6), True, 0.1, 1e-5, False),
    row("instance_norm", 1, t(2, 6, 3), t(6), t(6), None, None, True, 0.1, 1e-5, False),
    row("layer_norm", 2, t(2, 3, 6), [6], t(6), t(6)),
    row("rms_norm", 2, t(2, 3, 6), [6], t(6)),
    row("group_norm", 2, t(2, 6, 4), 3, t(6), t(6)),
    # pooling and resampling
    row("avg_pool2d", 2, t(2, 4, 6, 6), [2, 2]),
    row("max_pool1d", 2, t(2, 4, 6), [2]),
    row("max_pool2d_with_indices", 2, t(2, 4, 6, 6), [2, 2]),
    row("adaptive_avg_pool2d", 2, t(2, 4, 6, 6), [1, 1]),
    row("adaptive_max_pool3d", 2, t(2, 4, 3, 3, 3), [2, 2, 2]),
    row("avg_pool3d", 2, t(2, 4, 4, 4, 4), [2, 2, 2]),
    row("reflection_pad2d", 2, t(2, 4, 6, 6), [1, 1, 1, 1]),
    row("upsample_linear1d", 2, t(2, 4, 6), [8], False),
    row("upsample_nearest2d.vec", 2, t(2, 4, 6, 6), None, [2.0, 2.0]),
    row("upsample_bilinear2d.vec", 2, t(2, 4, 6, 6), [9, 9], True, None),
    row("upsample_trilinear3d", 2, t(2, 4, 3, 3, 3), [4, 4, 4], False),
    # reductions
    row("mean.dim", 2, t(2, 4, 6), [-1]),
    row("nansum", 2, t(2, 4, 6), [1]),
    row("nanmean", 1, t(2, 4, 6), [0, 2], True),
    row("aminmax", 2, t(2, 4, 6), dim=1),
    row("aminmax", 0, t(2, 4)),
    row("count_nonzero", 2, t(2, 4, 6), 1),
    row("count_nonzero.dim_IntList", 1, t(2, 4, 6), [0, 1]),
    row("linalg_norm", 2, t(2, 4, 6), None, [1]),
    row("linalg_norm.ord_str", 1, t(2, 4, 6), "fro", [0, 1], True),
    row("linalg_matrix_norm", 1, t(2, 4, 6), 2),
    row("linalg_matrix_norm.str_ord", 1, t(2, 4, 6), "nuc", [0, 1], True),
    row("cosine_similarity", 2, t(2, 4, 6), t(2, 4, 6)),
    row("cosine_similarity", 2, t(2, 1, 6), t(4, 6), -1),
    row("pairwise_distance", 1, t(5, 6), t(6), keepdim=True),
    row("dist", 0, t(5, 6), t(6)),
    row("median", 0, t(5, 6)),
    row("nanmedian", 0, t(5, 6)),
    row("nanmedian.dim", 1, t(5, 6), 1),
    row("quantile.scalar", 1, t(5, 6), 0.5, 1, True),
    row("nanquantile.scalar", 1, t(5, 6), 0.5, 1),
    row("diff", 2, t(2, 4, 6)),
    row("diff", 2, t(2, 4, 6), 2, 1, t(2, 1, 6), t(2, 2, 6)),
    row("mean", 0, t(2, 4, 6)),
    row("sum.dim_IntList", 1, t(2, 4, 6), [1, 2], True),
    row("amax", 2, t(2, 4, 6), [1]),
    row("var.correction", 2, t(2, 4, 6), [0]),
    row("var_mean.correction", 2, t(2, 4, 6), [2], keepdim=True),
    row("norm.ScalarOpt_dim", 2, t(2, 4, 6), 2, [1], True),
    row("linalg_vector_norm", 2, t(2, 4, 6), 2, [1]),
    row("max.dim", 2, t(2, 4, 6), 1),
    row("argmax", 2, t(2, 4, 6), 2),
    row("softmax.int", 2, t(2, 4, 6), -1),
    row("cumsum", 2, t(2, 4, 6), 1),
    row("cummax", 2, t(2, 4, 6), 1),
    row("topk", 2, t(2, 4, 6), 3, 1),
    row("histc", 0, t(6), 5, 0, 1),
    row("transformers.grouped_mm_fallback.default", 2, t(6, 4), t(3, 4, 5), ENDS),
    row("sort", 2, t(2, 4, 6), 1),
    # joins and cuts
    row("hstack", 4, [t(2, 3, 4), t(2, 5, 4)]),
    row("hstack", 2, [t(3), t(5)]),
    row("vstack", 4, [t(2, 3, 4), t(5, 3, 4)]),
    row("vstack", 1, [t(3), t(3)]),
    row("row_stack", 3, [t(2, 3), t(3), t(5, 3)]),
    row("column_stack", 2, [t(3, 2), t(3)]),
    row("hsplit.int", 3, t(3, 4), 2),
    row("hsplit.array", 2, t(3, 4), [1]),
    row("vsplit.array", 3, t(5, 4), [2]),
    row("vsplit.int", 3, t(4, 4), 2),
    row("cross", 2, t(3, 4, 3), t(1, 4, 3), 2),
    row("cross", 1, t(3, 4), t(3, 4)),
    row("linalg_cross", 1, t(4, 3), t(1, 3)),
    row("diag_embed", 2, t(2, 4, 6), 1),
    row("diag_embed", 1, t(4, 6), 0, 0, 1),
    row("cat", 5, [t(2, 3, 4), t(2, 5, 4), t(2, 2, 4)], 1),
    row("stack", 2, [t(3, 4), t(3, 4)], -1),
    row("split.Tensor", 3, t(2, 7), 3, 1),
    row("split_with_sizes", 4, t(2, 9), [2, 3, 4], 1),
    row("chunk", 3, t(2, 8), 2, -1),
    row("tensor_split.sections", 4, t(2, 7), 3, 1),
    row("slice.Tensor", 4, t(2, 9), 1, 2, 6),
    row("slice.Tensor", 3, t(2, 9), 1, -4, None),
    row("slice.Tensor", 2, t(2, 8), 1, 0, 2**63 - 1, 2),
    row("slice.Tensor", 1, t(2, 7), 1, 0, 2**63 - 1, 2),
    row("slice.Tensor", 2, t(2, 9), 1, 1, 8, 2),
    row("slice.Tensor", 2, t(2, 9), 1, 0, 2**63 - 1),
    row("narrow", 4, t(2, 9), 1, 3, 4),
    row("select.int", 2, t(2, 4, 6), 1, 2),
    row("unbind.int", 2, t(2, 3, 6), 1),
    row("slice_scatter", 2, t(2, 6, 4), t(2, 2, 4), 1, 1, 3),
    row("select_scatter", 2, t(2, 6, 4), t(2, 4), 1, 1),
    # look-ups
    row("embedding", 3, t(7, 4), i(7, 2, 3)),
    row("index_select", 2, t(2, 5, 4), 1, i(5, 3)),
    row("index.Tensor", 2, t(2, 5, 4), [None, i(5, 3)]),
    row("index.Tensor", 1, t(2, 5, 4), [i(2, 3), None, i(4, 3)]),
    row("index.Tensor", 1, t(2, 5, 4), [None, i(5, 3, 2), i(4, 3, 2)]),
    row("take_along_dim", 2, t(2, 5, 4), i(5, 2, 3, 4), 1),
    row("take_along_dim", 2, t(2, 5, 4), i(5, 1, 3, 1), 1),
    row("take_along_dim", 0, t(2, 5), i(10, 4)),
    row("bucketize.Tensor", 2, t(3, 4), torch.tensor([0.2, 0.5], dtype=torch.float64)),
    row("searchsorted.Tensor", 2, t(3, 5).sort().values, t(3, 4)),
    row("searchsorted.Tensor", 2, t(5).sort().values, t(3, 4)),
    row("searchsorted.Tensor", 2, t(3, 5), t(3, 4), sorter=t(3, 5).argsort()),
    row("isin.Tensor_Tensor", 2, i(5, 3, 4), i(5, 2, 2)),
    row("gather", 2, t(2, 5, 4), 1, i(5, 2, 3, 4)),
    # other layouts
    row("view", 3, t(2, 12), [2, 3, -1]),
    row("view", 3, t(2, 3, 4), [6, 4]),
    row("reshape", 3, t(4, 6), [8, 3]),
    row("reshape", 0, t(4, 6), [3, 8]),
    row("flatten.using_ints", 3, t(2, 3, 4), 1),
    row("unflatten.int", 3, t(2, 12), 1, [3, 4]),
    row("permute", 3, t(2, 3, 4), [2, 0, 1]),
    row("transpose.int", 3, t(3, 3, 4), 0, -1),
    row("swapaxes", 3, t(2, 3, 4), 0, 1),
    row("t", 2, t(2, 3)),
    row("numpy_T", 2, t(2, 3)),
    row("mT", 3, t(2, 3, 4)),
    row("movedim.int", 3, t(2, 3, 4), 0, 2),
    row("movedim.intlist", 4, t(2, 3, 4, 5), [0, 1], [-1, 0]),
    row("squeeze", 2, t(2, 1, 4)),
    row("squeeze.dim", 2, t(2, 1, 4), 1),
    row("squeeze.dims", 2, t(2, 1, 4), [0, 1]),
    row("unsqueeze", 2, t(2, 4), -1),
    row("expand", 4, t(2, 1, 4), [3, -1, 5, 4]),
    row("expand_as", 3, t(2, 1), t(3, 2, 4)),
    row("repeat", 4, t(2, 4), [3, 1, 2]),
    row("repeat_interleave.self_int", 3, t(2, 4), 3, 1),
    row("channel_shuffle", 4, t(2, 12, 3), 3),
    row("pixel_shuffle", 2, t(2, 12, 3, 3), 2),
    row("pixel_unshuffle", 2, t(2, 3, 4, 4), 2),
    row("flip", 2, t(2, 3, 4), [1]),
    row("roll", 2, t(2, 3, 4), [1], [2]),
    row("im2col", 2, t(2, 3, 5, 5), [2, 2], [1, 1], [0, 0], [1, 1]),
    row("pad", 5, t(2, 3, 4), [1, 2, 3, 0]),
    row("pad", 2, t(2, 3, 4), [1, 2], "reflect"),
    row("constant_pad_nd", 1, t(2, 6, 4), [0, 0, -1, 2]),
    # out of nothing
    row("zeros", 2, [3, 4]),
    row("full", 2, [3, 4], 2.0),
    row("new_ones", 4, t(2, 3), [3, 4]),
    row("arange", 0, 5),
    row("eye", 0, 4),
    row("tril", 0, t(4, 4)),
    # element by element
    row("add.Tensor", 3, t(2, 3, 4), t(3, 1)),
    row("where.self", 2, t(2, 3) > 0.5, t(2, 3), t(3)),
    row("where.ScalarOther", 2, t(2, 3) > 0.5, t(2, 3), 0.0),
    row("masked_fill.Scalar", 3, t(2, 3, 4), t(3, 4) > 0.5, 0.0),
    row("add_.Tensor", 2, t(2, 3), t(3)),
    row("prelu", 3, t(2, 3, 4), t(3)),
    row("prelu", 3, t(2, 3, 4), t(1)),
    row("to.dtype", 2, t(2, 3), torch.float32),
    row("dropout", 2, t(2, 3), 0.5, False),
    # recurrent layers: one hidden axis for all layers, directions, gates and states
    row("lstm.input", 3, t(2, 5, 3), [t(1, 2, 4)] * 2, cells(4, 3, 4), True, 1, 0.0, *ONE_WAY),
    row("gru.input", 3, t(5, 2, 3), t(4, 2, 4), cells(3, 3, 4, 2, 2), True, 2, 0.0, *BOTH_WAYS),
    row("rnn_tanh.input", 3, t(2, 5, 3), t(2, 2, 4), cells(1, 3, 4, 2), True, 2, 0.0, *ONE_WAY),
    row("rnn_relu.input", 3, t(2, 5, 3), t(1, 2, 4), cells(1, 3, 4), True, 1, 0.0, *ONE_WAY),
    row(
        *("lstm.input", 4, t(2, 5, 3), [t(1, 2, 4), t(1, 2, 6)]),
        *([t(24, 3), t(24, 4), t(24), t(24), t(4, 6)], True, 1, 0.0, *ONE_WAY),
    ),
    row("lstm_cell", 3, t(2, 3), [t(2, 4), t(2, 4)], *cells(4, 3, 4)),
    row("gru_cell", 3, t(2, 3), t(2, 4), *cells(3, 3, 4)),
    row("rnn_tanh_cell", 3, t(2, 3), t(2, 4), *cells(1, 3, 4)),
    row("rnn_relu_cell", 3, t(2, 3), t(2, 4), *cells(1, 3, 4)[:2]),
    # more products
    row("einsum", 4, "...ij,jk->...ik", [t(2, 3, 4), t(4, 5)]),
    row("einsum", 4, "bi,ij,jk->bk", [t(2, 3), t(3, 4), t(4, 5)]),
    row("bilinear", 4, t(2, 3), t(2, 4), t(5, 3, 4), t(5)),
    row("tensordot", 4, t(2, 3, 4), t(4, 3, 5), [1, 2], [1, 0]),
    # more look-ups
    row("scatter.src", 2, t(2, 5, 4), 1, i(5, 2, 3, 4), t(2, 3, 4)),
    row("scatter_add", 1, t(2, 5, 4), 1, i(5, 2, 3, 2), t(2, 3, 2)),
    row("index_add", 2, t(2, 5, 4), 1, i(5, 3), t(2, 3, 4)),
    row("index_fill.int_Scalar", 2, t(2, 5, 4), 1, i(5, 3), 0.5),
    row("index_put", 2, t(2, 5, 4), [i(2, 3)], t(3, 5, 4)),
    row("index_put", 1, t(2, 5, 4), [i(2, 3), i(5, 3)], t(3, 1), True),
    row("index_put", 1, t(2, 5, 4), [t(2, 5) > 0], t(10, 4)),
    row("index_put", 1, t(2, 5, 4), [None, i(5, 3)], t(4)),
    row("index_put", 0, t(2, 5, 4), [i(2, 3), None, i(4, 3)], t(3, 5)),
    row("index.Tensor", 1, t(2, 5, 4), [t(2, 5) > 0]),
    row("index.Tensor", 1, t(4, 2, 5), [None, t(2, 5) > 0]),
    row("index.Tensor", 0, t(2, 5), [t(2, 5) > 0]),
    row("index.Tensor", 1, t(2, 5), [None, t(5) > 0]),
    # more layouts
    row("glu", 3, t(2, 8, 3), 1),
    row("_weight_norm", 1, t(6, 4, 3), t(6, 1, 1), 0),
    row("_weight_norm", 0, t(6, 4), t(1, 1), -1),
    row("grid_sampler", 2, t(2, 3, 5, 5), t(2, 4, 4, 2), 0, 0, True),
    # distinct places: where two values meet, threads decide which stays
    row("max_unpool2d", 2, t(2, 3, 2, 2), torch.arange(24).view(2, 3, 2, 2) % 4 * 3, [4, 4]),
    row(
        "max_unpool3d",
        2,
        t(2, 3, 2, 2, 2),
        torch.arange(48).view(2, 3, 2, 2, 2) % 8 * 7,
        [4] * 3,
        [2] * 3,
        [0] * 3,
    ),
    row("col2im", 2, t(2, 12, 9), [4, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
    row("unfold", 2, t(2, 8, 4), 1, 3, 2),
    row("tile", 4, t(2, 3, 4), [2, 1]),
    row("view_as_complex", 2, t(3, 4, 2)),
    row("view_as_real", 2, t(3, 4).to(torch.complex128)),
    # more products
    row("addmv", 2, t(3), t(3, 4), t(4)),
    row("addbmm", 4, t(3, 5), t(2, 3, 4), t(2, 4, 5)),
    row("inner", 4, t(2, 3, 4), t(5, 4)),
    row("outer", 2, t(3), t(4)),
    row("addr", 2, t(3, 4), t(3), t(4)),
    row("cdist", 3, t(2, 3, 4), t(2, 5, 4)),
    row("embedding_bag", 1, t(7, 4), i(7, 6), torch.tensor([0, 2])),
    # Fourier transforms
    row("fft_fft", 2, t(2, 5, 6)),
    row("fft_irfft", 2, t(2, 6, 5).to(torch.complex128), None, 1),
    row("fft_rfft2", 2, t(2, 3, 5, 6)),
    row("fft_irfftn", 2, t(2, 3, 5, 6).to(torch.complex128), [8, 8]),
    row("fft_fftn", 1, t(2, 5, 6), None, [0, -1]),
    row("fft_fftshift", 2, t(2, 3, 4), [1]),
    row("fft_ifftshift", 0, t(2, 3, 4)),
    row("stft", 1, t(2, 64), 16, 8, 16, t(16), return_complex=False),
    row("stft", 0, t(64), 16, return_complex=True),
    row("istft", 1, t(2, 9, 8).to(torch.complex128), 16, 4),
    row("hann_window", 0, 8),
    # sampling where data say: groups, in and out of a group; parts that share offsets
    row("torchvision.deform_conv2d.default", 3, *deformable(1, 1)),
    row("torchvision.deform_conv2d.default", 4, *deformable(2, 1)),
    row("torchvision.deform_conv2d.default", 3, *deformable(1, 2)),
    row("torchvision.roi_align.default", 1, t(2, 3, 8, 8), BOXES, 1.0, 2, 2, 2, True),
    row("torchvision.roi_pool.default", 1, t(2, 3, 8, 8), BOXES, 1.0, 2, 2),
    row("torchvision.ps_roi_align.default", 0, t(2, 12, 8, 8), BOXES, 1.0, 2, 2, 2),
    row("torchvision.nms.default", 0, 5 * t(6, 4), t(6), 0.5),
]
