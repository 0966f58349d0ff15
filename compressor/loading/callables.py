"""Find what a spec names: 'package.module:name' or 'path/file.py:name'."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.errors import CompressorError, UsageError


def resolve(spec: str) -> Callable[..., Any]:
    """Import the module or the file of a spec and return the callable that it names.

    Raises:
        UsageError: The spec has another form, or names a file, module or callable that is not
            there, or something that cannot be called.
        CompressorError: The module's own code fails while it is imported.
    """
    return _callable(import_named(spec), spec)


def function(spec: str) -> Callable[..., Any]:
    """The function of a spec; a class stands for an instance of it (torch.nn:CrossEntropyLoss).

    Raises: what `resolve` raises; UsageError for a class that cannot be made without arguments.
    """
    named = resolve(spec)
    if not isinstance(named, type):
        return named
    try:
        return _callable(named(), spec)
    except UsageError:
        raise
    except Exception as error:  # the class is the user's code
        raise UsageError(
            f"{spec} is a class, and making one failed: {type(error).__name__}: {error}",
            where=spec,
            next_step="name a function, or an object that is ready to be called",
        ) from error


def _callable(value: Any, spec: str) -> Callable[..., Any]:
    if callable(value):
        return value  # type: ignore[no-any-return]
    raise UsageError(
        f"{spec.rpartition(':')[2]} is a {type(value).__name__}, and cannot be called",
        where=spec,
        next_step="name a function, or an object that can be called",
    )


def import_named(spec: str) -> Any:
    """Import the module or the file of a spec and return the object that it names.

    Raises:
        UsageError: the spec has another form, or names a file, module or object that is not there.
        CompressorError: the module's own code fails while it is imported.
    """
    home, colon, name = spec.rpartition(":")
    if not (colon and home and name.isidentifier()):
        raise UsageError(
            f"{spec!r} names nothing in a module",
            next_step="write package.module:name or path/file.py:name",
        )
    try:
        module = import_file(Path(home)) if home.endswith(".py") else _from_package(home)
    except UsageError:
        raise
    except Exception as error:  # the imported code is the user's
        raise CompressorError(
            f"importing {home} failed: {type(error).__name__}: {error}",
            where=spec,
            next_step="repair it, or run from the folder that holds what it imports",
        ) from error
    if not hasattr(module, name):
        public = [
            n
            for n, v in vars(module).items()
            if not n.startswith("_") and not isinstance(v, ModuleType)
        ]
        raise UsageError(
            f"{home} has nothing named {name!r}",
            where=spec,
            next_step=f"it has: {', '.join(sorted(public)[:12]) or 'none'}",
        )
    return getattr(module, name)


def import_file(path: Path) -> ModuleType:
    """Execute a Python file as a module and return it, once per process while it is unchanged.

    An operator that the file registers must not be registered again under a living one.

    Raises:
        UsageError: There is no such file, or it is no Python file.
    """
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}",
            next_step="check the path, which is read from the current folder",
        )
    state = path.stat()
    name = f"{path.stem}_{abs(hash((path.resolve(), state.st_mtime_ns, state.st_size))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file", next_step="name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_package(name: str) -> ModuleType:
    """Import a module by name; as with `python -m`, packages in the working directory count."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module {name!r}",
                next_step="install it, or run from the folder that holds it",
            ) from error
        raise
