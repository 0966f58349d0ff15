"""Decide which globals a pickle may name: those that cannot run code of the file.

Layers are made without their constructors (`cls.__new__`, then the attributes), so only their own
library code ever runs. Functions are listed one by one: a package's other functions may download
or read files.
"""

import enum
import importlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from compressor.loading.pickle_scan import PARTIAL, PickleScan
from compressor.loading.wording import words

LAYER_PACKAGES = (
    "torch.nn.modules.",
    "torchvision.models.",
    "torchvision.ops.",
    "timm.models.",
    "timm.layers.",
)
# layers whose constructors may be bound by functools.partial: they only make tensors
PURE_CONSTRUCTORS = "torch.nn.modules."

ACTIVATIONS = (
    "celu elu gelu glu hardsigmoid hardswish hardtanh leaky_relu log_softmax logsigmoid mish "
    "relu relu6 selu sigmoid silu softmax softmin softplus softsign tanh tanhshrink"
)
FUNCTIONS = (
    words(ACTIVATIONS, under="torch.nn.functional.")
    | words(ACTIVATIONS, under="torch._C._nn.")
    | words(
        "gelu gelu_tanh hard_mish hard_sigmoid hard_swish mish sigmoid swish tanh",
        under="timm.layers.activations.",
    )
    | words("box_iou", under="torchvision.ops.boxes.")
)
CONTAINERS = words(
    "bool bytes dict float frozenset int list slice str tuple", under="builtins."
) | words("Namespace", under="argparse.")
# helpers of library layers that are not layers themselves
HELPERS = (
    words(
        "BalancedPositiveNegativeSampler BoxCoder BoxLinearCoder Matcher SSDMatcher",
        under="torchvision.models.detection._utils.",
    )
    | words("_WrappedHook", under="torch.nn.modules.module.")
    | words("WeightNorm", under="torch.nn.utils.weight_norm.")
    | words(
        "SpectralNorm SpectralNormStateDictHook SpectralNormLoadStateDictPreHook",
        under="torch.nn.utils.spectral_norm.",
    )
)
WRAPPERS = frozenset(("torch.nn.parallel.data_parallel.DataParallel",))
BESIDE_WEIGHTS = ("numpy.", "pathlib.", "datetime.", "omegaconf.", "typing.")
"""Packages of objects that training scripts keep beside weights: scores, paths, dates,
configurations."""


class Inert:
    """A stand-in for an object beside the weights; nothing of its package is called."""

    def __init__(self, *_: object) -> None:
        """Accept the object's arguments and forget them."""

    def __setstate__(self, _: object) -> None:
        """Accept the object's state and forget it."""


# no pickle can name this one: it lets the state of a checked partial be restored
BUILT_PARTIAL = "functools.partial (built)"


def refusals(scan: PickleScan, unsafe: Iterable[str]) -> list[str]:
    """List in words what the pickle would run that is not known to be harmless; empty if nothing.

    Args:
        scan: The scan of the pickle.
        unsafe: Those of its globals that torch itself does not know to be safe.
    """
    names = set(unsafe)
    names -= _beside_weights(names)
    refused = [name for name in sorted(names) if not _is_harmless(name)]
    for name in sorted(scan.called & names - set(refused)):
        if name != PARTIAL and name not in CONTAINERS and not _is_enum(name):
            refused.append(f"the constructor of {name}")
    for name in sorted(scan.bound):
        pure = name.startswith(PURE_CONSTRUCTORS) and _is_layer(name)
        if not (pure or name in FUNCTIONS) and name not in refused:
            refused.append(f"functools.partial({name})")
    return refused + sorted(set(scan.odd))


def allow_list(unsafe: Iterable[str]) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the objects behind names without refusals, for `torch.serialization.safe_globals`."""
    names = set(unsafe)
    inert = _beside_weights(names)
    built = [(partial, BUILT_PARTIAL)] if PARTIAL in names else []
    return [*((Inert if name in inert else resolve(name), name) for name in sorted(names)), *built]


def _beside_weights(names: set[str]) -> set[str]:
    """Return the names that `Inert` replaces; none if there are layers, which may need them."""
    if any(name in WRAPPERS or _is_layer(name) for name in names):
        return set()
    return {name for name in names if name.startswith(BESIDE_WEIGHTS)}


def resolve(name: str) -> Any:
    """Import and return what `module.qualname` names, or None if it does not exist here."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None


def _is_harmless(name: str) -> bool:
    if name == PARTIAL:
        return True
    if name in FUNCTIONS | CONTAINERS | HELPERS or name in WRAPPERS:
        return resolve(name) is not None
    return _is_layer(name) or _is_enum(name)


def _library_class(name: str) -> type | None:
    if not name.startswith(LAYER_PACKAGES):
        return None
    named = resolve(name)
    own = isinstance(named, type) and f"{named.__module__}.{named.__qualname__}" == name
    return named if own else None


def _is_layer(name: str) -> bool:
    import torch
    from torch import fx, nn

    kind = _library_class(name)
    return (
        kind is not None
        and issubclass(kind, nn.Module)
        # these two compile source text that they carry
        and not issubclass(kind, fx.GraphModule | torch.jit.ScriptModule)
        and kind.__new__ is object.__new__
        and not hasattr(kind, "__del__")
    )


def _is_enum(name: str) -> bool:
    kind = _library_class(name)
    return kind is not None and issubclass(kind, enum.Enum)
