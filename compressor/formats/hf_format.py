"""The format of transformers: a folder that `from_pretrained` loads, without this package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.files.format_table import FORMATS, HF
from compressor.formats.folder_source import FolderSource
from compressor.formats.hf_files import copy_beside, largest_shard, names_stored, write_card
from compressor.formats.job import Counted, Job, Methods, Outcome
from compressor.graph.trace import switch_caches_off
from compressor.loading.configurations import build_without_values
from compressor.loading.plain import (
    put_all_back,
    types_of,
    waiting_in_float32,
    work_in_float32,
)
from compressor.memory_pages import trim_heap
from compressor.modules import copy_of
from compressor.on_demand import OnDemand, address_of, exchange, read_each
from compressor.quiet import root_message, silence
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module
from compressor.slicing.compare import Reference, require_agreement
from compressor.slicing.leaving import rename

_LABEL = FORMATS[HF].label


def _attempt(traced: Trace, folder: Path) -> None:
    """Do nothing: whether widths can be said was found when the network was opened."""


def _write(job: Job) -> Outcome:
    if job.source is None:
        raise _refusal("the network was loaded from no transformers folder", job.folder)
    source, root = job.source(), job.folder / FORMATS[HF].file
    home = root / source.transformer
    home.mkdir(parents=True)
    with silence():
        dtype = _save(source, _tensors(source, job), home)
    trim_heap()
    copy_beside(source, root)
    write_card(source, root, job.metadata)
    return Outcome(_compare(job, source, home, dtype))


def _compare(job: Job, source: FolderSource, home: Path, dtype: torch.dtype) -> float:
    """Load the folder, and return the largest difference between its outputs and the program's.

    It is loaded in its own type, and its weights stay in its files until they are read; where a
    class then computes otherwise (by a constant in that type), it is loaded in float32.

    Raises:
        CompressorError: It cannot be loaded, or computes something else.
    """
    reference = job.reference
    if reference is None or job.real is not None:
        reference = Reference(as_module(job.program), job.traced, _real(job))
    for each in dict.fromkeys((dtype, torch.float32)):
        with silence():
            loaded = _load(source, home, each)
        types = types_of(loaded)
        exchange(loaded, waiting_in_float32(loaded))
        work_in_float32(loaded, types)
        worst = reference.worst_difference(loaded)
        if reference.agrees(worst):
            break
    require_agreement(reference, worst, f"the result and its {_LABEL}")
    return worst.size


def _real(job: Job) -> tuple[ExampleInputs, ...]:
    return () if job.real is None else (ExampleInputs(job.real.args, job.real.kwargs),)


def _tensors(source: FolderSource, job: Job) -> dict[str, Tensor]:
    """Return the result's tensors by the names and in the types of the original's folder.

    Tied ones are one tensor. What is on demand stays so.
    """
    module = job.module if job.module is not None else as_module(job.program)
    if source.computed:
        module = copy_of(module)
        put_all_back(module, source.computed, source.cuts)
    named = dict(module.state_dict())
    named |= {a: named[b] for a, b in source.aliases.items() if a not in named and b in named}
    made: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}
    found, moved = {}, rename(named, source.leaving)
    for name, tensor in named.items():
        dtype = source.types.get(name, tensor.dtype)
        key = (address_of(tensor), tensor.shape, dtype)
        if key not in made:
            made[key] = _in_type(tensor.detach(), dtype)
        found[moved[name]] = made[key]
    return found


def _in_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if isinstance(tensor, OnDemand):
        return tensor.in_type(dtype)
    return tensor.to(dtype).contiguous()


def _save(source: FolderSource, tensors: Mapping[str, Tensor], home: Path) -> torch.dtype:
    """Write the configuration and the weights, in files as large as the original's.

    Returns:
        The type of the numbers; float32 where there are several.

    Raises:
        CompressorError: The class, built from the configuration, has other tensors.
    """
    written = json.dumps(source.config, indent=2, sort_keys=True) + "\n"
    (home / "config.json").write_text(written, encoding="utf-8")
    try:
        config = source.kind.config_class.from_dict(dict(source.config))
        model = build_without_values(source.kind, config)
        wanted = model.state_dict()
        given = {name: tensors[name] for name in wanted if name in tensors}
        wrong = [n for n in wanted if n not in given or given[n].shape != wanted[n].shape]
        if wrong:
            raise _refusal(f"the configuration asks for another {wrong[0]}", home)
        if not _are_stored_so(given, source.home):
            read = read_each(given.values())
            given = {name: read.get(id(each), each) for name, each in given.items()}
        waiting = {name: each for name, each in given.items() if isinstance(each, OnDemand)}
        model.load_state_dict(given | _without_values(waiting), assign=True)
        model.tie_weights()
        if waiting:
            _read_when_written(model, waiting)
        model.save_pretrained(home, max_shard_size=largest_shard(source.home))
        model.to("meta")  # circles of references in it would keep the tensors
    except CompressorError:
        raise
    except Exception as error:  # whatever the class's code raises
        raise _refusal(f"transformers cannot write it: {root_message(error)}", home) from error
    (home / "config.json").write_text(written, encoding="utf-8")
    types = {tensor.dtype for tensor in given.values() if tensor.is_floating_point()}
    return types.pop() if len(types) == 1 else torch.float32


def _are_stored_so(tensors: Mapping[str, Tensor], home: Path) -> bool:
    """Return whether the original's files hold all tensors under their names in the class.

    Others are converted when they are written (experts are parted), for which transformers needs
    all of them.
    """
    stored = names_stored(home)
    found = {id(tensor) for name, tensor in tensors.items() if name in stored}
    return all(id(tensor) in found for tensor in tensors.values())


def _without_values(waiting: Mapping[str, OnDemand]) -> dict[str, Tensor]:
    return {n: torch.empty(t.shape, dtype=t.dtype, device="meta") for n, t in waiting.items()}


class _Reading(dict[str, OnDemand]):
    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name).read()


def _read_when_written(model: Any, waiting: Mapping[str, OnDemand]) -> None:
    """Let transformers read tensors, whose places in a model are without values, file by file.

    It takes them for tensors that accelerate keeps on the disk.
    """
    model.hf_device_map = {"": "disk"}
    model._hf_hook = SimpleNamespace(weights_map=_Reading(waiting))


def _load(source: FolderSource, home: Path, dtype: torch.dtype) -> nn.Module:
    """Load the folder as its users do, in a type.

    Raises:
        CompressorError: transformers cannot, or finds tensors missing or unknown.
    """
    how = {"local_files_only": True, "use_safetensors": True, "dtype": dtype}
    try:
        loaded, found = source.kind.from_pretrained(home, output_loading_info=True, **how)
    except Exception as error:  # whatever the class's code raises
        raise _refusal(f"transformers cannot load it: {root_message(error)}", home) from error
    wrong = sorted(str(name) for names in found.values() for name in names)
    if wrong:
        raise _refusal(f"transformers does not find what it expects: {', '.join(wrong[:3])}", home)
    switch_caches_off(loaded)
    module: nn.Module = loaded.eval()
    return module


def _refusal(what: str, place: Path) -> CompressorError:
    return CompressorError(
        what,
        where=str(place),
        consequence=f"there is no {_LABEL}",
        next_step="compressor.load builds the result from the original's folder",
    )


def _count(path: Path) -> Counted:
    raise _refusal("nothing counts a transformers folder here", path)


METHODS = Methods(_attempt, _write, _count)
