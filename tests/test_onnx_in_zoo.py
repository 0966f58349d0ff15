"""Whole networks through ONNX files: each halved equals its masked twin, by both exporters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cases import Case
from onnx_files import export, run
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from twin import Analysed, masked_twin

from compressor.agreement import ONNX, difference, shake
from compressor.formats.onnx_file import routes_of
from compressor.formats.own_routes import finish_like_file, own_routes
from compressor.formats.verifying import write_and_verify
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.loading import load_model
from compressor.slicing import slice_network

pytestmark = pytest.mark.slow

TORCHVISION = [
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "squeezenet1_1",
    "densenet121",
    "googlenet",
    "inception_v3",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x1_0",
    "mnasnet1_0",
    "efficientnet_b0",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_32",
    "maxvit_t",
]
TIMM = [
    "resnet26d",
    "hrnet_w18_small",
    "ghostnet_100",
    "deit_tiny_patch16_224",
    "mixer_s32_224",
    "poolformer_s12",
    "coat_lite_tiny",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "rexnet_100",
]
SIDES = {"swin_t": 224, "vit_b_32": 224, "maxvit_t": 224}
OF_224 = ("deit", "mixer", "coat", "edgenext", "mobilevit")
OPSETS = (None, 11, 13, 17)

Build = Callable[[], tuple[nn.Module, Tensor]]


def _torchvision(name: str) -> tuple[nn.Module, Tensor]:
    models = pytest.importorskip("torchvision.models")
    own = {"aux_logits": False, "init_weights": False} if "ception" in name or "goo" in name else {}
    side = SIDES.get(name, 96)
    return models.get_model(name, weights=None, **own), torch.randn(2, 3, side, side)


def _timm(name: str) -> tuple[nn.Module, Tensor]:
    timm = pytest.importorskip("timm")
    side = 224 if name.startswith(OF_224) else 96
    return timm.create_model(name), torch.randn(2, 3, side, side)


class First(nn.Module):
    """A transformers network that returns one tensor."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


def _bert() -> tuple[nn.Module, Tensor]:
    of = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = of.BertConfig(
        vocab_size=100,
        intermediate_size=128,
        max_position_embeddings=32,
        return_dict=False,
        attn_implementation="eager",
        **sizes,
    )
    return First(of.BertModel(config, add_pooling_layer=False)), torch.randint(0, 100, (2, 16))


def _vit() -> tuple[nn.Module, Tensor]:
    of = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = of.ViTConfig(
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        return_dict=False,
        attn_implementation="eager",
        **sizes,
    )
    return First(of.ViTModel(config, add_pooling_layer=False)), torch.randn(2, 3, 32, 32)


def _whisper() -> tuple[nn.Module, Tensor]:
    of = pytest.importorskip("transformers")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = of.WhisperConfig(
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        num_mel_bins=16,
        max_source_positions=50,
        return_dict=False,
        attn_implementation="eager",
    )
    return First(WhisperEncoder(config)), torch.randn(2, 16, 100)


NETWORKS: dict[str, Build] = {
    **{name: lambda name=name: _torchvision(name) for name in TORCHVISION},  # type: ignore[misc]
    **{name: lambda name=name: _timm(name) for name in TIMM},  # type: ignore[misc]
    "bert": _bert,
    "vit": _vit,
    "whisper": _whisper,
}


def enliven(model: nn.Module, x: Tensor) -> nn.Module:
    """Give norms the statistics of random inputs, and no two tensors the same values."""
    generator = torch.Generator().manual_seed(1)
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for norm in norms:
            norm.momentum = None
        if norms:
            model.train()(x)
    return model.eval()


def half(network: Network) -> dict[str, tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    keep = {}
    for group in network.groups:
        if group.role in ("channels", "heads"):
            order = torch.randperm(group.size, generator=generator)[: max(1, group.size // 2)]
            keep[group.name] = tuple(sorted(order.tolist()))
    return keep


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_a_network_equals_its_masked_twin(
    name: str, opset: int | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    try:
        path = export(enliven(model, x), [x], tmp_path / "net.onnx", opset)
    except Exception as error:  # the exporters' errors share no base but this one
        pytest.skip(f"PyTorch's exporter does not write it: {type(error).__name__}")
    loaded = load_model(str(path))
    assert loaded.examples is not None
    traced = trace(loaded.module, loaded.examples)
    network = analyse(traced)
    keep = half(network)
    sliced = slice_network(traced, network, keep)
    routes = own_routes(sliced.module) or finish_like_file(
        routes_of(traced.batch_symbol), traced.module
    )
    out = tmp_path / "smaller.onnx"
    write_and_verify(sliced.program, out, traced, routes)
    assert out.stat().st_size < 0.8 * path.stat().st_size
    case = Case(lambda: model, tuple(x.shape[1:]))
    twin = masked_twin(Analysed(case, traced.module, traced, network), keep)

    def outputs(module: nn.Module) -> list[list[Tensor]]:
        with torch.no_grad():
            return [[module(x)]]

    found = [[torch.from_numpy(array) for array in run(out, x)]]
    off = difference(outputs(twin), found, ONNX, lambda: shake(twin, outputs, ONNX))
    assert off.size <= 1e-4, off.place
