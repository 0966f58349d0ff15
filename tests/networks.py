"""Small networks, one idea each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.bn = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.b, self.head = nn.Conv2d(6, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.b(F.relu(self.bn(self.a(x)))))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3, padding=1)
        self.norm, self.b = nn.BatchNorm2d(11), nn.Conv2d(11, 4, 3, padding=1)
        self.last = nn.Conv2d(15, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([x, F.relu(self.a(x))], 1)
        return self.last(torch.cat([x, self.b(F.relu(self.norm(x)))], 1)).amax((2, 3))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.down, self.up = nn.Conv2d(8, 5, 1), nn.Conv2d(5, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.out(x * gate).flatten(1)


class Shuffle(nn.Module):
    """Channel shuffle written out, as ShuffleNet has it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
        self.out = nn.Conv2d(12, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.a(x).relu(), self.b(x).relu()], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.out(x).mean((2, 3))


class PadChannels(nn.Module):
    """CIFAR ResNet's option A: stride and zeros instead of a convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class PaddedShortcut(nn.Module):
    def __init__(self, small: int = 6, large: int = 12) -> None:
        super().__init__()
        pad = (large - small) // 2
        self.stem, self.bn = nn.Conv2d(3, small, 3, padding=1), nn.BatchNorm2d(small)
        self.a = nn.Conv2d(small, large, 3, stride=2, padding=1)
        self.b, self.shortcut = nn.Conv2d(large, large, 3, padding=1), PadChannels(pad, pad)
        self.head = nn.Linear(large, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).relu()
        x = (self.b(self.a(x).relu()) + self.shortcut(x)).relu()
        return self.head(x.mean((2, 3)))


class Gated(nn.Module):
    """Half of the channels gate the other half, by `glu` and by `chunk`."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 12, 3), nn.Conv1d(6, 14, 3)
        self.out = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.a(x).chunk(2, dim=1)
        value, gate = self.b(value * torch.sigmoid(gate)).split(7, dim=1)
        return self.out((value * gate.tanh()).mean(2))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 5, 2, stride=2)
        self.merge, self.out = nn.Conv2d(11, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down1(x))
        x = F.relu(self.down2(F.max_pool2d(skip, 2)))
        return self.out(F.relu(self.merge(torch.cat([skip, self.up(x)], 1))))


class FusedAttention(nn.Module):
    """One linear layer for queries, keys and values; `scaled_dot_product_attention`."""

    def __init__(self, width: int = 12, heads: int = 4, head_width: int = 3) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.embed, self.qkv = nn.Linear(5, width), nn.Linear(width, 3 * heads * head_width)
        self.proj, self.head = nn.Linear(heads * head_width, width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, _ = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.head(x + self.proj(y.reshape(n, t, self.heads * self.head_width)))


class SeparateAttention(nn.Module):
    """Three layers, and the attention written out."""

    def __init__(self, width: int = 8, heads: int = 4, head_width: int = 3) -> None:
        super().__init__()
        self.heads, self.head_width, inner = heads, head_width, heads * head_width
        self.embed, self.out = nn.Linear(5, width), nn.Linear(inner, 4)
        self.q, self.k, self.v = (nn.Linear(width, inner) for _ in range(3))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).tanh()
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        weights = torch.softmax(q @ k.transpose(-2, -1) * 0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class GroupedQuery(nn.Module):
    """Six query heads share three key and value heads, by `expand` and `reshape`; rotary."""

    def __init__(self, heads: int = 3, repeats: int = 2, width: int = 4) -> None:
        super().__init__()
        self.repeats, self.width, inner = repeats, width, heads * width
        self.embed, self.out = nn.Linear(5, 8), nn.Linear(inner * repeats, 4)
        self.q, self.k, self.v = nn.Linear(8, inner * 2), nn.Linear(8, inner), nn.Linear(8, inner)
        self.register_buffer("angles", torch.rand(7, self.width // 2))

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.cat([self.angles, self.angles], -1)
        a, b = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

    def repeated(self, x: Tensor) -> Tensor:
        n, h, t, d = x.shape
        return x[:, :, None].expand(n, h, self.repeats, t, d).reshape(n, h * self.repeats, t, d)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        made = (layer(x) for layer in (self.q, self.k, self.v))
        q, k, v = (y.unflatten(-1, (-1, self.width)).transpose(1, 2) for y in made)
        k, v = self.repeated(self.rotate(k)), self.repeated(v)
        y = F.scaled_dot_product_attention(self.rotate(q), k, v)
        return self.out(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class MultiHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(5, 12), nn.Linear(12, 4)
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.out(x + self.attention(x, x, x, need_weights=False)[0])


class TiedLayers(nn.Module):
    """One convolution used twice, and one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.left, self.right = nn.Linear(6, 7), nn.Linear(6, 7)
        self.right.weight = self.left.weight
        self.out = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.stem(x)).relu()).relu().mean((2, 3))
        return self.out(self.left(x).relu() * self.right(x).tanh())


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 7, 3), nn.Conv2d(3, 7, 3), nn.Conv2d(7, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y += self.b(x)
        y.mul_(0.5).clamp_(-1, 2)
        return self.c(F.relu(y, inplace=True)).mean((2, 3))


class LanguageModel(nn.Module):
    """Embedding and output share their weight; positions are a parameter."""

    def __init__(self, words: int = 11, width: int = 8) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Parameter(torch.rand(1, 7, width))
        self.up, self.down = nn.Linear(width, 10), nn.Linear(10, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x) + self.places
        return self.head(x + self.down(F.gelu(self.up(x))))


class NormedMLP(nn.Module):
    """A residual stream behind LayerNorm."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(5, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 9), nn.Linear(9, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.down(F.gelu(self.up(self.norm(x)))))


class Block(nn.Module):
    def __init__(self, small: int, large: int, stride: int) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(small, large, 3, stride, 1), nn.BatchNorm2d(large)
        self.b, self.norm_b = nn.Conv2d(large, large, 3, 1, 1), nn.BatchNorm2d(large)
        pad = (large - small) // 2
        self.shortcut = PadChannels(pad, pad) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_b(self.b(F.relu(self.norm_a(self.a(x)))))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-20, 32, 44, 56 with zero-padded shortcuts: `depth` is 6 blocks + 2."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        blocks, widths = depth // 6, (16, 16, 32, 64)
        layers = [
            Block(widths[s] if i == 0 else widths[s + 1], widths[s + 1], 1 + (s > 0 and i == 0))
            for s in range(3)
            for i in range(blocks)
        ]
        self.blocks, self.head = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))
