"""Norms, bare parameters, and the ways in which people write a forward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_member import member, net, real, words

# -- norms ---------------------------------------------------------------------------------------


@member(real(3, 6, 6), channels=(8, 5))
def batch_norms() -> nn.Module:
    """With and without statistics of its own, with and without a scale."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 5, 3),
        nn.BatchNorm2d(5, affine=False),
        nn.Conv2d(5, 2, 1),
    )


@member(real(7, 5), channels=9, stream=10)
def layer_norm() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        return m.head(x + m.down(F.gelu(m.up(m.norm(x)))))

    return _residual(forward, nn.LayerNorm(10))


@member(real(7, 5), channels=9, stream=10)
def rms_norm() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        return m.head(x + m.down(F.gelu(m.up(m.norm(x)))))

    return _residual(forward, nn.RMSNorm(10))


@member(real(7, 5), channels=9, stream=10)
def rms_norm_by_hand() -> nn.Module:
    """As Llama writes it."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return m.head(x + m.down(F.silu(m.up(m.norm * (x * scale)))))

    return _residual(forward, nn.Parameter(torch.ones(10)))


def _residual(forward: Any, norm: Any) -> nn.Module:
    return net(
        forward,
        embed=nn.Linear(5, 10),
        norm=norm,
        up=nn.Linear(10, 9),
        down=nn.Linear(9, 10),
        head=nn.Linear(10, 4),
    )


@member(real(3, 6, 6), channels=3, stream=4)
def group_norm() -> nn.Module:
    """Whole groups can go without touching a statistic; channels within a group cannot."""
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 2, 3))


@member(real(3, 6, 6), channels=(8, 5))
def instance_norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.Conv2d(8, 5, 3, padding=1),
        nn.InstanceNorm2d(5, affine=True),
        nn.LeakyReLU(),
        nn.Conv2d(5, 2, 1),
    )


@member(real(3, 6, 6), channels=5, stream=8)
def channel_norms_by_hand() -> nn.Module:
    """Vectors of length one over the channels, and a standardisation."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.normalize(m.a(x), dim=1) * m.scale
        x = (x - x.mean(1, keepdim=True)) / x.var(1, keepdim=True).add(1e-3).sqrt()
        return m.c(m.b(x / (x.norm(dim=1, keepdim=True) + 1)).relu())

    return net(
        forward,
        a=nn.Conv2d(3, 8, 3),
        scale=nn.Parameter(torch.ones(1, 8, 1, 1)),
        b=nn.Conv2d(8, 5, 3),
        c=nn.Conv2d(5, 2, 1),
    )


@member(real(3, 9), stream=(5, 6, 8), awaits="a copy of layers that compute their weight")
def weight_norm_old() -> nn.Module:
    """A norm over a weight's inputs is a statistic over the channels that feed it."""
    old = torch.nn.utils.weight_norm
    return nn.Sequential(
        nn.Conv1d(3, 8, 3), old(nn.Conv1d(8, 6, 3)), nn.ReLU(), old(nn.Conv1d(6, 5, 1), dim=None),
        nn.Conv1d(5, 2, 1),
    )  # fmt: skip


@member(real(3, 9), channels=6, stream=8)
def weight_norm() -> nn.Module:
    normed = torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(
        nn.Conv1d(3, 8, 3), normed(nn.Conv1d(8, 6, 3)), nn.ReLU(), nn.Conv1d(6, 2, 3)
    )


# -- parameters ----------------------------------------------------------------------------------


@member(real(3, 6, 6), channels=(8, 5))
def gates_and_layer_scale() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.scale * m.down(F.gelu(m.up(x)) * m.gate[None, :, None, None].sigmoid())
        return m.out(x + m.shift.view(1, -1, 1, 1))

    return net(
        forward,
        stem=nn.Conv2d(3, 8, 3),
        up=nn.Conv2d(8, 5, 1),
        gate=nn.Parameter(torch.ones(5)),
        down=nn.Conv2d(5, 8, 1),
        scale=nn.Parameter(torch.ones(8, 1, 1)),
        shift=nn.Parameter(torch.zeros(8)),
        out=nn.Conv2d(8, 2, 1),
    )


@member(words(11, 7), channels=(8, 10))
def tied_weights() -> nn.Module:
    """The output layer is the embedding; positions and a class token are parameters."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.words(x)
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1) + m.places
        return m.head(x + m.down(F.gelu(m.up(x))))

    made = net(
        forward,
        words=nn.Embedding(11, 8),
        token=nn.Parameter(torch.rand(1, 1, 8)),
        places=nn.Parameter(torch.rand(1, 8, 8)),
        up=nn.Linear(8, 10),
        down=nn.Linear(10, 8),
        head=nn.Linear(8, 11, bias=False),
    )
    made.head.weight = made.words.weight
    return made


@member(real(3, 8, 8), channels=(6, 7))
def used_twice() -> nn.Module:
    """One convolution used twice, and one weight under two names."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.twice(m.twice(m.stem(x)).relu()).relu().mean((2, 3))
        return m.out(m.left(x).relu() * m.right(x).tanh())

    made = net(
        forward,
        stem=nn.Conv2d(3, 6, 3),
        twice=nn.Conv2d(6, 6, 3, padding=1),
        left=nn.Linear(6, 7),
        right=nn.Linear(6, 7),
        out=nn.Linear(7, 4),
    )
    made.right.weight = made.left.weight
    return made


@member(real(5), real(6), channels=(8, 7, 9))
def bilinear() -> nn.Module:
    def forward(m: Any, x: Tensor, y: Tensor) -> Tensor:
        return m.head(m.both(m.left(x).relu(), m.right(y).relu()))

    return net(
        forward,
        left=nn.Linear(5, 8),
        right=nn.Linear(6, 7),
        both=nn.Bilinear(8, 7, 9),
        head=nn.Linear(9, 4),
    )


@member(real(7, 5), channels=(8, 6, 9, 3))
def bare_matrices() -> nn.Module:
    """matmul, addmm, bmm, einsum and tensordot with parameters."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = (x @ m.a).relu() @ m.b
        x = torch.addmm(m.bias, x.flatten(0, 1).tanh(), m.c).view(-1, 7, 9)
        x = torch.einsum("btc, cd -> bdt", x, m.d).relu()
        return torch.bmm(m.e.expand(x.shape[0], -1, -1), x)

    return net(
        forward,
        **{
            name: nn.Parameter(torch.randn(*shape))
            for name, shape in {
                "a": (5, 8), "b": (8, 6), "c": (6, 9), "bias": (9,), "d": (9, 3), "e": (1, 4, 3),
            }.items()
        },
    )  # fmt: skip


# -- literal sizes, slices, views ------------------------------------------------------------------


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


# -- ways to write a forward -----------------------------------------------------------------------


@member(real(3, 6, 6), channels=(8, 5))
def branch_on_data() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.c(m.b(y.relu() if x.sum() > -1000 else y.tanh()))

    return net(forward, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 5, 3), c=nn.Conv2d(5, 2, 1))


@member(real(7, 5), channels=(8, 6))
def no_grad_region() -> nn.Module:
    """Llama computes its rotary tables so."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        with torch.no_grad():
            scale = m.scale.sigmoid() * 2
        return m.c(m.b(x * scale).relu())

    return net(
        forward,
        a=nn.Linear(5, 8),
        scale=nn.Parameter(torch.ones(8)),
        b=nn.Linear(8, 6),
        c=nn.Linear(6, 4),
    )


@member(real(7, 5), channels=(8, 6))
def autocast_region() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        with torch.autocast("cpu", enabled=False):
            x = m.b(x.relu())
        return m.c(x.tanh())

    return net(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 6), c=nn.Linear(6, 4))


@member(real(3, 6, 6), channels=(8, 5, 7))
def auxiliary_head() -> nn.Module:
    """A head that only training sees: it must follow the trunk, or training breaks."""

    def forward(m: Any, x: Tensor) -> Any:
        x = m.a(x).relu()
        extra = m.aux(x) if m.training else None
        x = m.head(m.b(x).relu().mean((2, 3)))
        return x if extra is None else (x, extra)

    return net(
        forward,
        a=nn.Conv2d(3, 8, 3),
        aux=nn.Sequential(nn.Conv2d(8, 7, 1), nn.ReLU(), nn.Conv2d(7, 4, 1)),
        b=nn.Conv2d(8, 5, 3),
        head=nn.Linear(5, 4),
    )


@member(
    {"image": real(3, 6, 6), "more": (real(5), [real(4)])},
    keywords={"mask": real(1, 1, 1)},
    channels=(8, 6),
)
def nested_inputs_and_outputs() -> nn.Module:
    def forward(m: Any, given: Any, *, mask: Tensor, scale: float = 0.5) -> Any:
        x = m.a(given["image"]) * mask
        first, (other,) = given["more"]
        y = m.b(torch.cat([first, other], 1)) * scale
        return {"image": m.c(x.relu()), "rest": (m.d(y.tanh()), [first])}

    return net(
        forward,
        a=nn.Conv2d(3, 8, 3),
        b=nn.Linear(9, 6),
        c=nn.Conv2d(8, 2, 1),
        d=nn.Linear(6, 3),
    )


@member(real(3, 6, 6), channels=(8, 5))
def functional_only() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.conv2d(x, m.w["stem"], m.w["bias"], stride=1, padding=1)
        x = F.batch_norm(x, None, None, m.w["scale"], m.w["shift"], training=True)
        x = F.linear(F.max_pool2d(F.hardswish(x), 2).flatten(2).mT, m.w["wide"])
        return F.linear(F.layer_norm(x, x.shape[1:2]) if False else x.relu(), m.w["head"])

    shapes = {
        "stem": (8, 3, 3, 3), "bias": (8,), "scale": (8,), "shift": (8,),
        "wide": (5, 8), "head": (4, 5),
    }  # fmt: skip
    parts = {name: nn.Parameter(torch.randn(*shape)) for name, shape in shapes.items()}
    return net(forward, w=nn.ParameterDict(parts))


@member(real(3, 6, 6), channels=(8, 5))
def closure_over_a_layer() -> nn.Module:
    """A layer that is no submodule: its tensors are constants of the program, and shrink too."""
    hidden = nn.Conv2d(8, 5, 3).double().requires_grad_(False)

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.b(hidden(m.a(x).relu()).relu())

    return net(forward, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(5, 2, 1))
