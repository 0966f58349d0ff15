"""Make a network by a factory, and load weights into it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import UsageError
from compressor.files.hashes import sha256_of
from compressor.loading.factories import (
    SPEC_FORMS,
    Factory,
    call_factory,
    examples_beside,
    find_factory,
)
from compressor.loading.factory_args import parse_factory_args
from compressor.loading.state_dicts import (
    Taken,
    load_strictly,
)
from compressor.loading.wanted import Wanted
from compressor.loading.weight_files import read_weights
from compressor.modules import unwrap
from compressor.records import AS_MADE, RANDOM, LoadedModel

ANY_MODEL = (
    "give a file of torch.save, compressor.save, torch.export.save or safetensors, "
    f"or a factory: {SPEC_FORMS}"
)


def load_factory(spec: str, wanted: Wanted) -> LoadedModel:
    """Make a network by the factory that a spec names, with the weights that are wanted.

    Raises:
        UsageError: Arguments exclude each other, or nothing is found under the spec.
        CompressorError: The factory fails, or the weights cannot be read or do not fit.
    """
    if wanted.weights and wanted.pretrained:
        raise UsageError(
            "--weights and --pretrained exclude each other",
            where="--weights",
            next_step="leave one of the two out",
        )
    arguments = parse_factory_args(wanted.factory_args)
    path = Path(wanted.weights).expanduser() if wanted.weights else None
    content = read_weights(path, trust_pickle=wanted.trust_pickle) if path else None
    factory = find_factory(spec)
    module, wrappers = unwrap(call_factory(factory, arguments, pretrained=wanted.pretrained))
    made = LoadedModel(
        module=_on_cpu(module),
        name=factory.name,
        recognised=f"the factory {spec}",
        weights=_origin(factory, arguments, pretrained=wanted.pretrained),
        examples=examples_beside(factory),
        notes=wrappers,
        is_held=not factory.library,
    )
    if path is None:
        return made
    taken = load_into(module, content, f"{path} into {spec}", wanted)
    words = f"{made.recognised}, weights{taken.words} of {path.name}" if taken.key else None
    return replace(
        made,
        stored=taken.stored,
        recognised=words or made.recognised,
        weights="loaded",
        sha256=sha256_of(path),
        notes=(*made.notes, *taken.notes),
    )


def _on_cpu(module: nn.Module) -> nn.Module:
    """Move the module to the CPU, unless it is on the meta device."""
    # there are no values to move; `refuse_non_finite` says so later
    is_meta = any(parameter.is_meta for parameter in module.parameters())
    return module if is_meta else module.cpu()


def _origin(factory: Factory, arguments: Mapping[str, Any], *, pretrained: bool) -> str:
    """Return in words where a factory's weights come from."""
    if pretrained:
        return "pretrained"
    # only a library's own factory is known to draw weights at random unless told otherwise
    settings = factory.library.get(False, {})
    untouched = all(arguments.get(name, value) == value for name, value in settings.items())
    return RANDOM if factory.library and untouched else AS_MADE


def load_into(module: nn.Module, content: Any, where: str, wanted: Wanted) -> Taken:
    """Load weights into a network, in place, and return what was taken of them."""
    key, ignore = wanted.weights_key, wanted.ignore_unexpected
    return load_strictly(module, content, where, key=key, ignore=ignore)
