"""Load files of `torch.save`, and pickles, without running any code that they bring along."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from compressor import extras
from compressor.errors import CompressorError
from compressor.loading.archives import require_whole
from compressor.loading.harmless import LAYER_PACKAGES, allow_list, refusals
from compressor.loading.imports import importable_from_here
from compressor.loading.pickle_scan import PickleScan, scan_pickle
from compressor.loading.sniff import FileKind
from compressor.loading.wording import cut_list, one_line

TRUST = (
    "if you trust who made it: --trust-pickle; else have it saved by "
    'compressor.save(model, example_inputs, "model.pt"), or as a state dict to be loaded '
    "with --factory"
)
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
PICKLES_IN_LEGACY_FILE = 5


def load_torch_save(path: Path, kind: FileKind, *, trust_pickle: bool) -> Any:
    """Load the object in a file of `torch.save` (or in a trusted plain pickle) on the CPU.

    Raises:
        CompressorError: It would run code and is not trusted, or it cannot be read.
        UsageError: Its layers are of a library that is not installed.
    """
    if kind is FileKind.TORCH_SAVE:
        require_whole(path)
    if trust_pickle:
        return _load_trusted(path, kind)
    if kind is FileKind.PICKLE:
        return _load_legacy(path)
    with _reading(path):
        scan = _scan_archive(path)
        unsafe = get_unsafe_globals_in_checkpoint(path)
    _refuse(path, refusals(scan, unsafe))
    with _reading(path), safe_globals(allow_list(unsafe)):
        return _torch_load(path, weights_only=True)


def _torch_load(path: Path, *, weights_only: bool) -> Any:
    with path.open("rb") as file:  # by its path, torch would judge it by its extension
        return torch.load(file, map_location="cpu", weights_only=weights_only)


def _scan_archive(path: Path) -> PickleScan:
    return scan_pickle(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))


def _refuse(path: Path, would_run: list[str]) -> None:
    """Raise an error if there is anything to refuse.

    Layers of a library that is not installed are among it, since nobody here can know them; then
    the error says how to install it.
    """
    for name in would_run:
        if name.startswith(LAYER_PACKAGES) and (package := name.split(".")[0]) in extras.EXTRAS:
            extras.load(package, str(path))
    if would_run:
        raise CompressorError(
            f"{path.name} would run code that is not from torch.nn, torchvision or timm "
            f"when it is loaded: {cut_list(would_run)}",
            where=str(path),
            consequence="it was not loaded, and nothing of it was run",
            next_step=TRUST,
        )


def _load_legacy(path: Path) -> Any:
    scans = _scan_stream(path)
    names = sorted(set().union(*(scan.names for scan in scans)))
    if not _is_legacy_torch_save(path):
        raise CompressorError(
            f"{path.name} is a plain pickle, not a file of torch.save"
            + (f"; it would run: {cut_list(names)}" if names else ""),
            where=str(path),
            consequence="it was not loaded, and nothing of it was run",
            next_step=TRUST,
        )
    with _reading(path):
        try:
            return _torch_load(path, weights_only=True)
        except pickle.UnpicklingError:
            foreign = [name for name in names if not name.startswith("torch.")]
            _refuse(path, foreign or names)
            raise


def _scan_stream(path: Path) -> list[PickleScan]:
    """Scan the pickles that a legacy file of `torch.save` starts with; tensors follow them."""
    scans: list[PickleScan] = []
    with path.open("rb") as file:
        for _ in range(PICKLES_IN_LEGACY_FILE):
            try:
                scans.append(scan_pickle(file))
            except ValueError as error:
                if not scans:
                    raise _unreadable(path, error) from error
                break
    return scans


def _is_legacy_torch_save(path: Path) -> bool:
    magic = pickle.dumps(LEGACY_MAGIC, protocol=2)
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _load_trusted(path: Path, kind: FileKind) -> Any:
    plain = kind is FileKind.PICKLE and not _is_legacy_torch_save(path)
    try:
        with importable_from_here():
            if plain:
                with path.open("rb") as file:
                    return pickle.load(file)
            return _torch_load(path, weights_only=False)
    except (AttributeError, ImportError) as error:
        raise CompressorError(
            f"{path.name} needs a class that cannot be found here: {one_line(error)}",
            where=str(path),
            consequence="a pickled module holds no code, only the names of its classes",
            next_step="run the command where that class can be imported, or save the model by "
            'compressor.save(model, example_inputs, "model.pt")',
        ) from error
    except Exception as error:
        raise _unreadable(path, error) from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except CompressorError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CompressorError:
    return CompressorError(
        f"{path.name} cannot be read: it is damaged, or not a model of PyTorch ({one_line(error)})",
        where=str(path),
        consequence="nothing was loaded",
        next_step="copy or save the file again",
    )
