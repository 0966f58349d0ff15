"""Sizes, slices, views and indices that the code spells out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_member import member, net, real, words


@member(real(3, 6, 6), channels=(8, 10, 3))
def literal_views() -> nn.Module:
    """The copies of an expanded tensor are an axis of their own."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x).relu().view(-1, 8, 16).transpose(1, 2).reshape(-1, 16 * 8)
        return m.head(m.wide(x).relu().view(-1, 10, 1).expand(-1, 10, 3).reshape(-1, 30))

    return net(forward, stem=nn.Conv2d(3, 8, 3), wide=nn.Linear(128, 10), head=nn.Linear(30, 4))


@member(real(3, 6, 6), channels=(3, 5, 4, 2))
def literal_splits() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = torch.split(m.stem(x), [3, 5], dim=1)
        c, d, e = torch.tensor_split(m.b(b.relu()), (4, 6), dim=1)
        return torch.cat([m.a(a), m.c(c.tanh()), m.d(d.sigmoid() * e.relu())], 1)

    return net(
        forward,
        stem=nn.Conv2d(3, 8, 3),
        a=nn.Conv2d(3, 2, 1),
        b=nn.Conv2d(5, 8, 1),
        c=nn.Conv2d(4, 2, 1),
        d=nn.Conv2d(2, 2, 1),
    )


@member(real(3, 6, 6), channels=(3, 4, 2))
def slices() -> nn.Module:
    """Overlapping slices cut the channels into three."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        return m.a(x[:, :7]) * m.b(x[:, 3:]).sigmoid() + m.c(x.narrow(1, -2, 2))

    return net(
        forward,
        stem=nn.Conv2d(3, 9, 3),
        a=nn.Conv2d(7, 2, 1),
        b=nn.Conv2d(6, 2, 1),
        c=nn.Conv2d(2, 2, 1),
    )


@member(real(3, 6, 6), channels=(4, 3, 2))
def strided_slices() -> nn.Module:
    """Even and odd channels: pairs go together; and every other one from the second on, which
    leaves two that nobody reads."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = m.a(x[:, ::2].relu()) + m.b(x[:, 1::2].tanh())
        return m.c(x[:, 1:7:2])

    return net(
        forward,
        stem=nn.Conv2d(3, 8, 3),
        a=nn.Conv2d(4, 9, 1),
        b=nn.Conv2d(4, 9, 1),
        c=nn.Conv2d(3, 2, 1),
    )


@member(real(3, 6, 6), channels=(6, 5, 7))
def gated_linear_units() -> nn.Module:
    """By module, by function, and by chunk."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.glu(m.b(m.glu(m.a(x))), dim=1)
        value, gate = m.c(x).chunk(2, dim=1)
        return m.out(value * F.silu(gate))

    return net(
        forward,
        glu=nn.GLU(dim=1),
        a=nn.Conv2d(3, 12, 3),
        b=nn.Conv2d(6, 10, 1),
        c=nn.Conv2d(5, 14, 1),
        out=nn.Conv2d(7, 2, 1),
    )


@member(real(3, 6, 6), channels=(2, 3, 3, 6))
def in_place_on_views() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        x[:, :5].relu_()
        x[:, 2:] += m.b(m.c(x).clamp_(-1, 2))
        x.view(x.shape[0], 8, -1)[:, :, 0] = 0.5
        x[:, :5].mul_(0.7).add_(x[:, :5].mean((2, 3), keepdim=True))
        return m.d(x)

    return net(
        forward,
        a=nn.Conv2d(3, 8, 3),
        b=nn.Conv2d(6, 6, 1),
        c=nn.Conv2d(8, 6, 1),
        d=nn.Conv2d(8, 2, 1),
    )


@member(real(6, 5), channels=(8, 7))
def masked() -> nn.Module:
    """Masks over positions, cumulative sums, triangles: the channels pass."""

    def forward(m: Any, x: Tensor) -> Tensor:
        keep = x.sum(-1) > 0
        x = m.a(x).masked_fill(~keep[..., None], 0.1).cumsum(1)
        x = torch.where(keep[..., None], m.b(x), -1.0)
        x = torch.tril(torch.ones(6, 6, dtype=x.dtype)) @ x
        return m.c(x.topk(3, dim=1).values.sort(dim=1)[0])

    return net(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 7), c=nn.Linear(7, 4))


@member(real(6, 5), words(6, 3), channels=(8, 7))
def picked_positions() -> nn.Module:
    """Positions picked by data: indexing, gather, index_select, take_along_dim, scatter."""

    def forward(m: Any, x: Tensor, at: Tensor) -> Tensor:
        x = m.a(x)
        rows = torch.arange(x.shape[0])[:, None]
        x = x[rows, at] + x.gather(1, at[..., None].expand(-1, -1, 8)) + x.index_select(1, m.order)
        x = m.b(x.relu())
        base = x.new_zeros(x.shape[0], 6, 7).scatter_add(1, at[..., None].expand(-1, -1, 7), x)
        return m.c(base + x[:, m.order].mean(1, keepdim=True))

    made = net(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 7), c=nn.Linear(7, 4))
    made.register_buffer("order", torch.tensor([2, 0, 1]))
    return made


@member(real(6, 5), channels=7)
def overwritten_by_mask() -> nn.Module:
    """Which dimensions a mask picks is not seen: what is written to is kept, the rest shrinks."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        y[x.sum(-1) > 0] = m.token
        y = y.masked_scatter(y > 1, m.token.expand_as(y))
        return m.c(m.b(y).relu())

    return net(
        forward,
        token=nn.Parameter(torch.ones(8)),
        a=nn.Linear(5, 8),
        b=nn.Linear(8, 7),
        c=nn.Linear(7, 4),
    )
