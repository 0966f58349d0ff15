"""Attention: who shares heads, how positions come in."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_member import member, net, real, second


@member(real(7, 5), channels=8, heads=4, head_width=(3, 2))
def einsum_attention() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x).tanh()
        q, k = (layer(x).unflatten(-1, (4, 3)) for layer in (m.q, m.k))
        weights = torch.einsum("bthd,bshd->bhts", q, k).softmax(-1)
        y = torch.einsum("bhts,bshd->bthd", weights, m.v(x).view(-1, 7, 4, 2))
        return torch.einsum("...hd,hdc", y, m.out)

    return net(
        forward,
        embed=nn.Linear(5, 8),
        q=nn.Linear(8, 12),
        k=nn.Linear(8, 12),
        v=nn.Linear(8, 8),
        out=nn.Parameter(torch.randn(4, 2, 6)),
    )


@member(real(7, 5), channels=12, heads=4, head_width=3)
def fused_qkv() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        n, t, c = x.shape
        q, k, v = m.qkv(x).reshape(n, t, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        return m.head(x + m.proj(y))

    return net(
        forward,
        heads=4,
        embed=nn.Linear(5, 12),
        qkv=nn.Linear(12, 36),
        proj=nn.Linear(12, 12),
        head=nn.Linear(12, 4),
    )


@member(real(7, 5), channels=12, heads=4, head_width=(3, 3))
def fused_qkv_chunked() -> nn.Module:
    """Fused, then cut into thirds: queries and keys share their width, values have their own."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        q, k, v = (y.view(-1, 7, 4, 3).transpose(1, 2) for y in m.qkv(x).chunk(3, dim=-1))
        weights = torch.matmul(q, k.mT).div(3**0.5).softmax(-1)
        return m.proj((weights @ v).transpose(1, 2).reshape(-1, 7, 12))

    return net(forward, embed=nn.Linear(5, 12), qkv=nn.Linear(12, 36), proj=nn.Linear(12, 4))


@member(real(7, 5), channels=8, heads=(3, 2), head_width=(4, 4))
def grouped_query_expand() -> nn.Module:
    """Six query heads share three key and value heads: heads, and queries per head."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        n, t, _ = x.shape
        q, k, v = (y.view(n, t, -1, 4).transpose(1, 2) for y in (m.q(x), m.k(x), m.v(x)))
        k, v = (y[:, :, None].expand(n, 3, 2, t, 4).reshape(n, 6, t, 4) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return m.out(y.transpose(1, 2).reshape(n, t, -1))

    return net(forward, **_projections(query_heads=6))


@member(real(7, 5), channels=8, heads=(3, 2), head_width=(4, 4))
def grouped_query_repeat_interleave() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        q, k, v = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (m.q(x), m.k(x), m.v(x)))
        k, v = (y.repeat_interleave(2, dim=1) for y in (k, v))
        return m.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    return net(forward, **_projections(query_heads=6))


@member(real(7, 5), channels=8, heads=(3, 2), head_width=(4, 4))
def grouped_query_fused() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        q, k, v = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (m.q(x), m.k(x), m.v(x)))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return m.out(y.transpose(1, 2).flatten(2))

    return net(forward, **_projections(query_heads=6))


def _projections(query_heads: int) -> dict[str, nn.Module]:
    return {
        "embed": nn.Linear(5, 8),
        "q": nn.Linear(8, 4 * query_heads),
        "k": nn.Linear(8, 12),
        "v": nn.Linear(8, 12),
        "out": nn.Linear(4 * query_heads, 4),
    }


@member(real(7, 5), real(6, 4), channels=(12, 9), heads=4, head_width=(3, 3))
def cross_attention() -> nn.Module:
    """nn.MultiheadAttention over another sequence, with that sequence's own width."""

    def forward(m: Any, x: Tensor, memory: Tensor) -> Tensor:
        x, memory = m.embed(x), m.remember(memory).relu()
        y, _ = m.attention(x, memory, memory, need_weights=False)
        return m.head(x + y)

    return net(
        forward,
        embed=nn.Linear(5, 12),
        remember=nn.Linear(4, 9),
        attention=nn.MultiheadAttention(12, 4, kdim=9, vdim=9, batch_first=True),
        head=nn.Linear(12, 4),
    )


@member(real(7, 5), channels=(12, 12), stream=4, head_width=3)
def self_attention_with_weights() -> nn.Module:
    """nn.MultiheadAttention, its weights, averaged over heads, being part of the output."""

    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.embed(x)
        y, weights = m.attention(x, x, x)
        return m.head(y), weights

    return net(
        forward,
        embed=nn.Linear(5, 12),
        attention=nn.MultiheadAttention(12, 4, batch_first=True),
        head=nn.Linear(12, 4),
    )


@member(real(7, 5), channels=(9, 9), heads=(4, 4), head_width=(3, 3), stream=12)
def transformer_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 4, 9, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(5, 12), encoder, nn.Linear(12, 4))


@member(second(5, 12), second(6, 8), channels=9, heads=(4, 4), head_width=(3, 3), stream=12)
def transformer_decoder() -> nn.Module:
    def forward(m: Any, x: Tensor, memory: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=x.dtype)
        return m.head(m.decoder(m.embed(x), m.remember(memory), tgt_mask=mask, tgt_is_causal=True))

    layer = nn.TransformerDecoderLayer(12, 4, 9, activation="gelu", norm_first=True)
    return net(
        forward,
        embed=nn.Linear(12, 12),
        remember=nn.Linear(8, 12),
        decoder=nn.TransformerDecoder(layer, 1),
        head=nn.Linear(12, 4),
    )


def _rotating(rotate: Any, table: Tensor) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        q, k, v = (y.unflatten(-1, (3, 4)).transpose(1, 2) for y in (m.q(x), m.k(x), m.v(x)))
        q, k = (rotate(y, m.angles) for y in (q, k))
        return m.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    made = net(forward, **_projections(query_heads=3))
    made.register_buffer("angles", table)
    return made


@member(real(7, 5), channels=8, heads=3, head_width=(2, 4))
def rotary_halves() -> nn.Module:
    """Llama's layout: index i of the first half turns with index i of the second."""

    def rotate(x: Tensor, angles: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        angles = torch.cat([angles, angles], -1)
        return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

    return _rotating(rotate, torch.rand(7, 2))


@member(real(7, 5), channels=8, heads=3, head_width=(2, 4))
def rotary_sliced_halves() -> nn.Module:
    """The same as transformers writes it, with the whole width in the table."""

    def rotate(x: Tensor, angles: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return x * angles.cos() + turned * angles.sin()

    return _rotating(rotate, torch.rand(7, 2).repeat(1, 2))


@member(real(7, 5), channels=8, heads=3, head_width=(2, 4))
def rotary_pairs() -> nn.Module:
    """GPT-J's layout: neighbours turn together."""

    def rotate(x: Tensor, angles: Tensor) -> Tensor:
        turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
        angles = angles.repeat_interleave(2, -1)
        return x * angles.cos() + turned * angles.sin()

    return _rotating(rotate, torch.rand(7, 2))


@member(real(7, 5), channels=8, heads=3, head_width=(2, 4))
def rotary_complex() -> nn.Module:
    """The same as a product of complex numbers."""

    def rotate(x: Tensor, angles: Tensor) -> Tensor:
        turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * angles
        return torch.view_as_real(turned).flatten(3)

    return _rotating(rotate, torch.polar(torch.ones(7, 2), torch.rand(7, 2)).to(torch.complex128))


@member(real(9, 5), channels=8, heads=4, head_width=(2, 2))
def relative_positions() -> nn.Module:
    """Swin's table: one row per distance, one column per head."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        q, k, v = m.qkv(x).chunk(3, -1)
        q, k, v = (y.view(-1, 9, 4, 2).transpose(1, 2) for y in (q, k, v))
        bias = m.distances[m.index.view(-1)].view(9, 9, -1).permute(2, 0, 1).unsqueeze(0)
        weights = (q @ k.transpose(-2, -1) + bias).softmax(-1)
        return m.out((weights @ v).transpose(1, 2).reshape(-1, 9, 8))

    return _positioned(forward, torch.randn(17, 4))


@member(real(9, 5), channels=8, heads=4, head_width=(2, 2))
def relative_positions_squared() -> nn.Module:
    """The same looked up with a square of indices, and with the heads first."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        q, k, v = (y.unflatten(2, (4, 2)).swapaxes(1, 2) for y in m.qkv(x).split(8, -1))
        bias = m.distances.t()[m.index].permute(2, 0, 1) + m.distances[:, m.index[0]][:, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return m.out(y.swapaxes(1, 2).flatten(2))

    return _positioned(forward, torch.randn(4, 17))


@member(real(9, 5), channels=8, heads=4, head_width=(2, 2))
def relative_shift() -> nn.Module:
    """Distances shifted into place by padding and reshaping, the heads merged with the batch."""

    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(m.embed(x)).chunk(3, -1)
        q, k, v = (y.view(-1, 9, 4, 2).transpose(1, 2).reshape(-1, 9, 2) for y in (q, k, v))
        far = F.pad(F.pad(q @ m.distances.t(), (0, 1)).flatten(1), (0, 8))
        near = far.reshape(-1, 10, 17)[:, :9, 8:]
        y = (torch.bmm(q, k.mT) + near).softmax(-1) @ v
        return m.out(y.view(-1, 4, 9, 2).transpose(1, 2).flatten(2))

    return _positioned(forward, torch.randn(17, 2))


def _positioned(forward: Any, table: Tensor) -> nn.Module:
    made = net(
        forward,
        embed=nn.Linear(5, 8),
        qkv=nn.Linear(8, 24),
        out=nn.Linear(8, 4),
        distances=nn.Parameter(table),
    )
    made.register_buffer("index", torch.arange(9)[:, None] - torch.arange(9)[None] + 8)
    return made
