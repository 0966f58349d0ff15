"""Bare parameters, shared ones, and the ways in which people write a forward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_member import member, net, real, words

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
