"""torchvision's networks, and the smallest network of every family of timm."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.records import ExampleInputs
from tools.zoo.members import LARGEST_TIMM, Settings, Subject


def _images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- torchvision ---------------------------------------------------------------------------------

TORCHVISION_SIZES: Mapping[str, tuple[int, ...]] = {
    "inception_v3": (1, 3, 299, 299),
    "mvit_v1_b": (1, 3, 16, 224, 224),
    "mvit_v2_s": (1, 3, 16, 224, 224),
    "s3d": (1, 3, 16, 224, 224),
}
"""Networks whose code asks for inputs of another size than the rest of their kind."""

TORCHVISION_KINDS: Mapping[str, tuple[int, ...]] = {
    "models": (1, 3, 224, 224),
    "models.segmentation": (1, 3, 224, 224),
    "models.video": (1, 3, 16, 112, 112),
    "models.optical_flow": (1, 3, 128, 128),
    "models.detection": (3, 224, 224),
}


def _torchvision_kind(name: str) -> str:
    import torchvision

    module = torchvision.models.get_model_builder(name).__module__.removeprefix("torchvision.")
    parent = module.rpartition(".")[0]
    return str(parent if parent in TORCHVISION_KINDS or "quantization" in parent else "models")


def torchvision_names(_: Settings) -> list[str]:
    """Every network of `list_models()` but the quantised ones."""
    import torchvision

    return [n for n in torchvision.models.list_models() if "quantiz" not in _torchvision_kind(n)]


def torchvision_smallest_first(names: list[str]) -> list[str]:
    """By the numbers of parameters that torchvision gives with its trained weights."""
    import torchvision

    weights = {name: torchvision.models.get_model_weights(name).DEFAULT for name in names}
    return sorted(names, key=lambda name: weights[name].meta["num_params"])


def torchvision_skipped(settings: Settings) -> dict[str, str]:
    import torchvision

    wanted = set(torchvision_names(settings))
    names = torchvision.models.list_models()
    return {n: "quantised: prune before quantising" for n in names if n not in wanted}


def build_torchvision(name: str, _: Settings) -> Subject:
    import torchvision

    kind = _torchvision_kind(name)
    options: dict[str, Any] = {"weights": None}
    if kind in ("models.segmentation", "models.detection"):
        options["weights_backbone"] = None
    if kind == "models.detection" and not name.startswith("ssd"):
        options |= {"min_size": 224, "max_size": 224}  # images are not enlarged
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    module = torchvision.models.get_model(name, **options).eval()
    shape = TORCHVISION_SIZES.get(name, TORCHVISION_KINDS[kind])
    image = _images(*shape)
    match kind:
        case "models.detection":
            inputs: tuple[Any, ...] = ([image],)
        case "models.optical_flow":
            inputs = (image, _images(*shape, seed=1))
        case _:
            inputs = (image,)
    return Subject(module, ExampleInputs(inputs))


# -- timm ----------------------------------------------------------------------------------------


def _families(settings: Settings) -> dict[str, tuple[str, int] | None]:
    """timm's smallest network of each family with its parameters; None where none can be built.

    Its miniatures for its own tests ("test_vit") are left out: nobody deploys them.
    Finding out takes minutes, so it is kept in a file.
    """
    import timm

    cache: Path = settings.cache / "timm_families.json"
    if cache.exists():
        known = json.loads(cache.read_text(encoding="utf-8"))
        if known["timm"] == timm.__version__:
            return {k: v and (v[0], v[1]) for k, v in known["families"].items()}
    families = {module: _smallest(module) for module in timm.list_modules()}
    text = json.dumps({"timm": timm.__version__, "families": families}, indent=1)
    cache.write_text(text + "\n", encoding="utf-8")
    return families


def _smallest(family: str) -> tuple[str, int] | None:
    import timm

    found: list[tuple[int, str]] = []
    for name in (n for n in timm.list_models(module=family) if not n.startswith("test_")):
        with contextlib.suppress(Exception), warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            module = timm.create_model(name)
            found.append((sum(p.numel() for p in module.parameters()), name))
    return (min(found)[1], min(found)[0]) if found else None


def timm_names(settings: Settings) -> list[str]:
    """The smallest network of every family, smallest first."""
    found = [f for f in _families(settings).values() if f and f[1] <= LARGEST_TIMM]
    return [name for name, _ in sorted(found, key=lambda f: f[1])]


def timm_skipped(settings: Settings) -> dict[str, str]:
    reasons = {}
    for family, smallest in _families(settings).items():
        if smallest is None:
            reasons[family] = "no network of the family could be built"
        elif smallest[1] > LARGEST_TIMM:
            reasons[smallest[0]] = f"the smallest of {family} has {smallest[1] / 1e6:.0f} M params"
    return reasons


def build_timm(name: str, _: Settings) -> Subject:
    import timm

    module = timm.create_model(name).eval()
    size = getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
    return Subject(module, ExampleInputs((_images(1, *size),)))
