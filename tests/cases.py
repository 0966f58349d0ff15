"""The table of small networks that the tests of the core share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from networks import (
    Dense,
    FusedAttention,
    Gated,
    GroupedQuery,
    InPlace,
    LanguageModel,
    MultiHead,
    NormedMLP,
    PaddedShortcut,
    Residual,
    SeparateAttention,
    Shuffle,
    SqueezeExcite,
    TiedLayers,
    UNet,
)
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A network and what its tests must know.

    `sample` is the shape of one input (whole numbers below `words`, where given), `queries` the
    rows of parameters that make an attention's queries, `follows` whether the class itself can
    have channels and heads of any number.
    """

    build: Callable[[], nn.Module]
    sample: tuple[int, ...] = (3, 8, 8)
    words: int = 0
    queries: Mapping[str, slice] | None = None
    follows: bool = True

    def inputs(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        shape = (batch, *self.sample)
        if self.words:
            return (torch.randint(self.words, shape, generator=generator),)
        return (torch.randn(shape, generator=generator, dtype=torch.float64),)


TOKENS = (7, 5)
SEPARATE = {"q.weight": slice(None), "q.bias": slice(None)}


def _fused(name: str) -> Mapping[str, slice]:
    return {f"{name}weight": slice(12), f"{name}bias": slice(12)}


CASES: Mapping[str, Case] = {
    "residual": Case(Residual),
    "dense": Case(Dense),
    "flatten_linear": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(54, 8), nn.PReLU(8), nn.Linear(8, 4)),
        )
    ),
    "depthwise": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Hardswish()),
            *(nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 4), nn.Flatten()),
        )
    ),
    "grouped": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.BatchNorm2d(12)),
            *(nn.ReLU(), nn.Conv2d(12, 8, 3, groups=2), nn.ELU(), nn.Conv2d(8, 4, 2)),
        )
    ),
    "squeeze_excite": Case(SqueezeExcite),
    "shuffle": Case(Shuffle),
    "shuffle_layer": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ChannelShuffle(2)),
            *(nn.Conv2d(8, 6, 3, groups=2), nn.Conv2d(6, 4, 4), nn.Flatten()),
        )
    ),
    "padded_shortcut": Case(PaddedShortcut),
    "gated": Case(Gated, (3, 9), follows=False),
    "unet": Case(UNet),
    "fused_attention": Case(FusedAttention, TOKENS, queries=_fused("qkv.")),
    "separate_attention": Case(SeparateAttention, TOKENS, queries=SEPARATE),
    "grouped_query": Case(GroupedQuery, TOKENS, queries=SEPARATE),
    "multi_head": Case(MultiHead, TOKENS, queries=_fused("attention.in_proj_"), follows=False),
    "encoder_layer": Case(
        lambda: nn.Sequential(
            nn.Linear(5, 12),
            nn.TransformerEncoderLayer(12, 4, 10, dropout=0.1, batch_first=True),
            nn.Linear(12, 4),
        ),
        TOKENS,
        queries=_fused("1.self_attn.in_proj_"),
        follows=False,
    ),
    "group_norm": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 12, 3)),
            *(nn.GroupNorm(6, 12), nn.SiLU(), nn.Conv2d(12, 4, 4), nn.Flatten()),
        )
    ),
    "mlp": Case(
        lambda: nn.Sequential(
            *(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Linear(9, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 4)),
        ),
        (5,),
    ),
    "tied_layers": Case(TiedLayers),
    "pixel_shuffle": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 16, 3), nn.PixelShuffle(2)),
            *(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.PixelUnshuffle(2)),
        )
    ),
    "in_place": Case(InPlace),
    "volumes": Case(
        lambda: nn.Sequential(
            *(nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.AvgPool3d(2)),
            *(nn.Conv3d(6, 5, 1), nn.Flatten(), nn.Linear(5, 4)),
        ),
        (2, 4, 4, 4),
    ),
    "transposed": Case(
        lambda: nn.Sequential(
            *(nn.ConvTranspose1d(3, 8, 3), nn.LeakyReLU(), nn.InstanceNorm1d(8, affine=True)),
            *(nn.ConvTranspose1d(8, 6, 3, groups=2), nn.ReLU(), nn.Conv1d(6, 4, 3)),
        ),
        (3, 6),
    ),
    "language_model": Case(LanguageModel, (7,), words=11),
    "normed_mlp": Case(NormedMLP, TOKENS),
}
