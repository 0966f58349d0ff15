"""Fourier transforms and complex numbers: what is transformed stays, channels pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_member import member, net, real


@member(real(3, 8, 8), channels=(5, 6))
def spectral_convolution() -> nn.Module:
    """A Fourier layer: some frequencies are multiplied by complex weights, the others are zero."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.lift(x))
        found = torch.fft.rfft2(x)
        kept = torch.view_as_complex(m.weight)
        out = found.new_zeros(x.shape[0], m.weight.shape[1], 8, 5)
        out[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", found[:, :, :3, :3], kept)
        out[:, :, -3:, :3] = torch.einsum("bixy,ioxy->boxy", found[:, :, -3:, :3], kept)
        return m.out(F.gelu(torch.fft.irfft2(out, s=(8, 8))))

    return net(
        forward,
        lift=nn.Conv2d(3, 5, 1),
        weight=nn.Parameter(torch.randn(5, 6, 3, 3, 2)),
        out=nn.Conv2d(6, 2, 1),
    )


@member(real(3, 8, 8), channels=(4, 5, 12))
def frequencies_as_channels() -> nn.Module:
    """Real and imaginary parts stand beside each other, channel by channel."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.relu(m.lift(x))
        found = torch.fft.rfftn(x, dim=(-2, -1), norm="ortho")
        parts = torch.stack((found.real, found.imag), -1).permute(0, 1, 4, 2, 3).contiguous()
        parts = torch.relu(m.down(torch.relu(m.mix(parts.flatten(1, 2)))))
        pairs = parts.view(x.shape[0], -1, 2, 8, 5).permute(0, 1, 3, 4, 2).contiguous()
        made = torch.fft.irfftn(torch.complex(pairs[..., 0], pairs[..., 1]), s=(8, 8), dim=(-2, -1))
        return m.out(made)

    return net(
        forward,
        lift=nn.Conv2d(3, 5, 1),
        mix=nn.Conv2d(10, 12, 1),
        down=nn.Conv2d(12, 8, 1),
        out=nn.Conv2d(4, 2, 1),
    )
