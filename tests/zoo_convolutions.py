"""Convolutions, and what moves, joins and cuts their channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d
from zoo_member import member, net, real


@member(real(3, 8, 8), channels=(6, 8, 5, 7))
def transposed_unet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        skip = F.relu(m.norm(m.down(x)))
        x = F.relu(m.deep(F.max_pool2d(skip, 2)))
        return m.out(F.relu(m.merge(torch.cat([skip, m.up(x)], 1))))

    return net(
        forward,
        down=nn.Conv2d(3, 6, 3, padding=1),
        norm=nn.BatchNorm2d(6),
        deep=nn.Conv2d(6, 8, 3, padding=1),
        up=nn.ConvTranspose2d(8, 5, 2, stride=2),
        merge=nn.Conv2d(11, 7, 3, padding=1),
        out=nn.Conv2d(7, 2, 1),
    )


@member(real(3, 6, 6), channels=(4, 2, 3))
def grouped_transposed() -> nn.Module:
    """Groups, channels into and channels out of each group: three axes."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 12, 3, groups=4), nn.Conv2d(12, 2, 3)
    )


@member(real(3, 8, 8), channels=(4, 2, 3))
def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.Tanh(), nn.Conv2d(12, 2, 3)
    )


@member(real(3, 8, 8), channels=(5, 2, 7))
def depthwise_multiplier() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.Conv2d(5, 10, 3, groups=5),
        nn.BatchNorm2d(10),
        nn.ReLU6(),
        nn.Conv2d(10, 7, 1),
        nn.Conv2d(7, 7, 3, groups=7),
        nn.Conv2d(7, 2, 1),
    )


@member(real(3, 8, 8), channels=6)
def shuffle_by_view() -> nn.Module:
    """The two halves are interleaved, and so lose the same channels."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.cat([m.a(x).relu(), m.b(x).relu()], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.out(x).mean((2, 3))

    return net(forward, a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(3, 6, 3), out=nn.Conv2d(12, 4, 3))


@member(real(3, 8, 8), channels=(3, 4, 2))
def shuffle_module() -> nn.Module:
    """Shuffled from 3 groups of 4 to 4 of 3: what were channels in a group are groups then."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.ReLU(),
        nn.ChannelShuffle(3),
        nn.Conv2d(12, 8, 3, groups=4),
        nn.Conv2d(8, 2, 1),
    )


@member(real(3, 6, 6), channels=(3, 5, 7))
def pixel_shuffles() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.PixelShuffle(2),
        nn.Conv2d(3, 5, 3, padding=1),
        nn.PixelUnshuffle(2),
        nn.Conv2d(20, 7, 3),
        nn.ReLU(),
        nn.Conv2d(7, 2, 1),
    )


@member(real(3, 9), channels=(5, 6))
def conv_1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 5, 3, stride=2),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Conv1d(5, 6, 2),
        nn.AdaptiveMaxPool1d(2),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


@member(real(2, 4, 6, 6), channels=(5, 6))
def conv_3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 5, (1, 3, 3), padding="same"),
        nn.BatchNorm3d(5),
        nn.ELU(),
        nn.MaxPool3d(2),
        nn.ConvTranspose3d(5, 6, 2),
        nn.AdaptiveAvgPool3d((1, 2, 1)),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


@member(real(3, 6, 6), channels=(8, 5))
def squeeze_excite() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.conv(x)
        gate = m.up(F.silu(m.down(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return m.out(x * gate).flatten(1)

    return net(
        forward,
        conv=nn.Conv2d(3, 8, 3),
        down=nn.Conv2d(8, 5, 1),
        up=nn.Conv2d(5, 8, 1),
        out=nn.Conv2d(8, 4, 1),
    )


@member(real(3, 8, 8), channels=(6, 3, 3))
def zero_padded_channels() -> nn.Module:
    """CIFAR ResNet's option A: the zeros before and after the channels shrink by themselves."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))
        return m.head((m.wide(x) + shortcut).relu().mean((2, 3)))

    return net(
        forward,
        stem=nn.Conv2d(3, 6, 3, padding=1),
        wide=nn.Conv2d(6, 12, 3, stride=2, padding=1),
        head=nn.Linear(12, 4),
    )


@member(real(3, 8, 8), channels=(6, 3, 5))
def zeros_concatenated() -> nn.Module:
    """The same by concatenation with a new tensor of zeros."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        zeros = x.new_zeros(x.shape[0], 3, *x.shape[2:])
        return m.out(F.gelu(m.wide(x) + torch.cat([x, zeros], 1)))

    return net(
        forward,
        stem=nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 3)),
        wide=nn.Conv2d(6, 9, 3, padding=1),
        out=nn.Conv2d(9, 4, 1),
    )


@member(real(3, 6, 6), channels=(5, 9))
def prelu_per_channel() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.PReLU(5), nn.Conv2d(5, 9, 3), nn.PReLU(), nn.Conv2d(9, 2, 1)
    )


@member(real(3, 8, 8), channels=(2, 3, 3, 5, 7))
def split_stages() -> nn.Module:
    """YOLO's CSP block: a part goes through further layers, and all parts are joined."""

    def forward(m: Any, x: Tensor) -> Tensor:
        parts = list(m.first(x).split([2, 3], 1))
        parts += [F.silu(layer(parts[-1])) for layer in (m.a, m.b)]
        return m.last(F.silu(m.joined(torch.cat(parts, 1))))

    return net(
        forward,
        first=nn.Conv2d(3, 5, 1),
        a=nn.Conv2d(3, 3, 3, padding=1),
        b=nn.Conv2d(3, 5, 3, padding=1),
        joined=nn.Conv2d(13, 7, 1),
        last=nn.Conv2d(7, 2, 1),
    )


@member(real(3, 8, 8), channels=(6, 5, 4))
def windows_unfolded() -> nn.Module:
    """im2col and back: a convolution written as unfold and matmul, and a fold."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        columns = F.unfold(x, 3, padding=1)
        x = (m.weight @ columns).view(x.shape[0], -1, 8, 8).relu()
        y = F.unfold(m.middle(x), 2, stride=2)
        return m.out(F.fold(y, (8, 8), 2, stride=2))

    return net(
        forward,
        stem=nn.Conv2d(3, 6, 1),
        weight=nn.Parameter(torch.randn(5, 54)),
        middle=nn.Conv2d(5, 4, 1),
        out=nn.Conv2d(4, 2, 1),
    )


@member(real(3, 8, 8), channels=(6, 5))
def shifted() -> nn.Module:
    """Rolled, flipped, padded by reflection, resampled: positions move, channels don't."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.roll(m.a(x), (1, -1), (2, 3)).flip(3).relu()
        x = F.interpolate(m.b(F.pad(x, (1, 1, 1, 1), mode="reflect")), scale_factor=2)
        x = F.grid_sample(x, m.grid.expand(x.shape[0], -1, -1, -1), align_corners=False)
        return m.out(F.pixel_unshuffle(x, 1).tril())

    return net(
        forward,
        a=nn.Conv2d(3, 6, 3, padding=1),
        b=nn.Conv2d(6, 5, 3),
        out=nn.Conv2d(5, 2, 1),
        grid=nn.Parameter(torch.rand(1, 4, 4, 2)),
    )


@member(real(3, 8, 8), channels=(6, 8))
def deformable() -> nn.Module:
    """Offsets and a mask are made of what they say where to read."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.first(x))
        rows, columns, mask = m.places(x).chunk(3, 1)
        x = m.deformed(x, torch.cat((rows, columns), 1), mask.sigmoid())
        return m.out(F.relu(m.norm(x)))

    return net(
        forward,
        first=nn.Conv2d(3, 6, 3, padding=1),
        places=nn.Conv2d(6, 27, 3, padding=1),
        deformed=DeformConv2d(6, 8, 3, padding=1),
        norm=nn.BatchNorm2d(8),
        out=nn.Conv2d(8, 2, 1),
    )


@member(real(3, 8, 8), channels=6)
def thrown_away() -> nn.Module:
    """Layers on which no output depends are counted, follow, and keep what is theirs alone."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.first(x))
        m.side(F.relu(m.aside(x)))
        return m.out(x)

    return net(
        forward,
        first=nn.Conv2d(3, 6, 3),
        aside=nn.Conv2d(6, 7, 3),
        side=nn.Conv2d(7, 3, 1),
        out=nn.Conv2d(6, 2, 1),
    )
