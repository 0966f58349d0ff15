"""Norms: which of them are statistics over channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_member import member, net, real


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


@member(real(3, 9), channels=6, stream=8)
def weight_norm_old() -> nn.Module:
    """A norm over a weight's inputs is a statistic over the channels that feed it."""
    normed = torch.nn.utils.weight_norm
    return nn.Sequential(
        nn.Conv1d(3, 8, 3), normed(nn.Conv1d(8, 6, 3)), nn.ReLU(), nn.Conv1d(6, 2, 3)
    )


@member(real(3, 9), channels=6, stream=8)
def weight_norm() -> nn.Module:
    normed = torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(
        nn.Conv1d(3, 8, 3), normed(nn.Conv1d(8, 6, 3)), nn.ReLU(), nn.Conv1d(6, 2, 3)
    )
