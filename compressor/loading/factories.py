"""Look up and call factories: callables named by a spec that return a model."""

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from compressor import extras
from compressor.errors import CompressorError, UsageError
from compressor.loading.callables import import_file
from compressor.loading.imports import importable_from_here
from compressor.loading.inputs import normalise_examples
from compressor.loading.wording import did_you_mean, one_line
from compressor.records import ExampleInputs

SPEC_FORMS = "torchvision:resnet50, timm:resnet18, package.module:callable or path/file.py:callable"
# arguments of a library's own factory: pretrained or not
Settings = Mapping[bool, Mapping[str, Any]]


@dataclass(frozen=True)
class Factory:
    """A callable that returns an nn.Module, and what stands beside it.

    Attributes:
        spec: The factory's spec, as the user wrote it.
        name: A short name for the model.
        make: The callable itself, called with the factory's arguments.
        importing: Returns a context in which the factory's own folder can be imported.
        beside: `example_inputs` of the same module, or None if there is none.
        source: File of the factory, to find its own lines in a traceback.
        library: For a library's factory, its arguments with and without pretrained weights.
    """

    spec: str
    name: str
    make: Callable[..., Any]
    importing: Callable[[], AbstractContextManager[None]] = importable_from_here
    beside: Callable[[], Any] | None = None
    source: str = ""
    library: Settings = field(default_factory=dict)


def find_factory(spec: str) -> Factory:
    """Look up a factory by its spec; the file or package that it names is imported.

    Raises:
        UsageError: It is no spec, or its module or callable does not exist.
        CompressorError: Importing it raised an error.
    """
    source, _, name = spec.rpartition(":")
    if not source or not name:
        raise UsageError(
            f"{spec} is not a factory", where="--factory", next_step=f"write {SPEC_FORMS}"
        )
    if source in LIBRARIES:
        return LIBRARIES[source](spec, name)
    if source.endswith(".py") or "/" in source:
        return _file_factory(spec, Path(source).expanduser(), name)
    return _package_factory(spec, source, name)


def call_factory(factory: Factory, arguments: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """Call a factory and return the model that it makes.

    Args:
        factory: What is called.
        arguments: The user's keyword arguments; they come before the library's own.
        pretrained: Whether the library's pretrained weights are wanted.

    Raises:
        UsageError: The arguments do not suit the factory; its signature is shown.
        CompressorError: It raised an error, or returned something other than an nn.Module.
    """
    if isinstance(factory.make, nn.Module):
        return factory.make
    arguments = {**_library_arguments(factory, pretrained), **arguments}
    signature = _signature(factory.make)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise UsageError(
            f"the factory {factory.spec} cannot be called so: {error}",
            where=f"{factory.name}{signature}",
            next_step="give its arguments as --factory-arg name=value",
        ) from error
    try:
        with factory.importing():
            made = factory.make(**arguments)
    except (Exception, SystemExit) as error:
        raise _factory_failed(factory, error, pretrained) from error
    if not isinstance(made, nn.Module):
        raise CompressorError(
            f"the factory {factory.spec} returned {type(made).__name__}, not an nn.Module",
            where=f"{factory.name}{signature}",
            next_step="name a class of networks, or a function that returns one",
        )
    return made


def examples_beside(factory: Factory) -> ExampleInputs | None:
    """Call `example_inputs()` of the factory's module; return None if it has none.

    Raises:
        CompressorError: The call raised an error.
    """
    if factory.beside is None:
        return None
    try:
        with factory.importing():
            given = factory.beside()
    except Exception as error:
        raise CompressorError(
            f"example_inputs() beside the factory {factory.spec} raised {one_line(error)}",
            where=_own_line(error, factory.source) or factory.source,
            next_step="repair it, or give --input",
        ) from error
    examples = normalise_examples(given)
    return ExampleInputs(examples.args, examples.kwargs, "the factory's example_inputs()")


def _library_arguments(factory: Factory, pretrained: bool) -> Mapping[str, Any]:
    if factory.library:
        return factory.library[pretrained]
    if not pretrained:
        return {}
    if "pretrained" not in _signature(factory.make).parameters:
        raise UsageError(
            f"the factory {factory.spec} has no argument 'pretrained'",
            where="--pretrained",
            next_step="leave --pretrained out, or give the weights with --weights FILE",
        )
    return {"pretrained": True}


def _torchvision_factory(spec: str, name: str) -> Factory:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise UsageError(
            f"torchvision has no model {name}.{did_you_mean(name, known)}",
            where=spec,
            next_step="torchvision.models.list_models() lists them",
        )
    make = models.get_model_builder(name)
    backbone = (
        {"weights_backbone": None} if "weights_backbone" in _signature(make).parameters else {}
    )
    library: Settings = {True: {"weights": "DEFAULT"}, False: {"weights": None, **backbone}}
    return Factory(spec, name, make, library=library)


def _timm_factory(spec: str, name: str) -> Factory:
    timm = extras.load("timm", spec)
    if not timm.is_model(name):
        known = timm.list_models()
        raise UsageError(
            f"timm has no model {name}.{did_you_mean(name, known)}",
            where=spec,
            next_step="timm.list_models() lists them",
        )

    def create(**arguments: Any) -> Any:
        return timm.create_model(name, **arguments)

    library: Settings = {True: {"pretrained": True}, False: {"pretrained": False}}
    return Factory(spec, name.replace(".", "_"), create, library=library)


LIBRARIES = {"torchvision": _torchvision_factory, "timm": _timm_factory}


def _file_factory(spec: str, path: Path, name: str) -> Factory:
    if not path.is_file():
        siblings = (
            [entry.name for entry in path.parent.glob("*.py")] if path.parent.is_dir() else []
        )
        raise UsageError(
            f"there is no file {path}.{did_you_mean(path.name, siblings)}",
            where=spec,
            next_step=f"a factory is {SPEC_FORMS}",
        )

    def importing() -> AbstractContextManager[None]:
        return importable_from_here(path.parent)

    def load() -> ModuleType:
        return import_file(path)

    return _from_module(spec, name, load, importing, source=str(path))


def _package_factory(spec: str, package: str, name: str) -> Factory:
    def load() -> ModuleType:
        return importlib.import_module(package)

    return _from_module(spec, name, load, importable_from_here, source=package)


def _from_module(
    spec: str,
    name: str,
    load: Callable[[], ModuleType],
    importing: Callable[[], AbstractContextManager[None]],
    source: str,
) -> Factory:
    try:
        with importing():
            module = load()
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{source} cannot be imported: {error}",
            where=spec,
            next_step=f"run the command where it can be imported; a factory is {SPEC_FORMS}",
        ) from error
    except Exception as error:
        raise CompressorError(
            f"importing {source} raised {one_line(error)}",
            where=_own_line(error, getattr(error, "filename", None) or source) or spec,
            next_step="repair it, or name another factory",
        ) from error
    named: Any = module
    for part in name.split("."):
        if not hasattr(named, part):
            known = [known for known in dir(named) if not known.startswith("_")]
            raise UsageError(
                f"{source} has no {name}.{did_you_mean(part, known)}",
                where=spec,
                next_step=f"a factory is {SPEC_FORMS}",
            )
        named = getattr(named, part)
    if not callable(named):
        raise UsageError(
            f"{name} in {source} is not callable",
            where=spec,
            next_step="name a class of networks, or a function that returns one",
        )
    beside = getattr(module, "example_inputs", None)
    return Factory(
        spec, name, named, importing, beside if callable(beside) else None,
        getattr(module, "__file__", None) or source,
    )  # fmt: skip


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return inspect.signature(lambda **arguments: None)


def _factory_failed(factory: Factory, error: BaseException, pretrained: bool) -> CompressorError:
    if pretrained and isinstance(error, OSError):
        return CompressorError(
            f"the pretrained weights of {factory.spec} could not be fetched: {one_line(error)}",
            where="--pretrained",
            next_step="check the network, or give the weights with --weights FILE",
        )
    return CompressorError(
        f"the factory {factory.spec} raised {one_line(error)}",
        where=_own_line(error, factory.source) or f"{factory.name}{_signature(factory.make)}",
        consequence="there is no model to compress",
        next_step=f"its signature is {factory.name}{_signature(factory.make)}; "
        "arguments are given as --factory-arg name=value",
    )


def _own_line(error: BaseException, source: str) -> str:
    """Return the last line of the user's own file in the traceback as file:line, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if source and frame.filename.endswith(source)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""
