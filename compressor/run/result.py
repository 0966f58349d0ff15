"""Hold what a run gives back, and rebuild a network from an export folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from compressor import slicing
from compressor.errors import CompressorError
from compressor.files.folder import PLAN, WEIGHTS, all_or_nothing, copy_into
from compressor.files.format_table import FORMATS, HF, PROGRAM
from compressor.files.integrity import check_files
from compressor.formats.original import TemporaryFolder
from compressor.graph.trace import copy_to_cpu, switch_caches_off
from compressor.loading import load_model, load_program_file
from compressor.loading.plain import Plain, give_back_types, make_plain, put_all_back, types_named
from compressor.modules import give_buffers_memory, unwrap
from compressor.records import Plan
from compressor.slicing.leaving import leave, without_cache
from compressor.slicing.plan_file import read_plan
from compressor.unexpected import Explaining


@dataclass(frozen=True)
class Result:
    """A compressed network: what `compress` returns.

    Attributes:
        module: The smaller network, in eval mode: the user's own class where it could follow, else
            the program as a module with the same parameter names.
        program: The rewritten `torch.export` program, with the same weights.
        plan: What was kept.
        report: The numbers, as in report.json.
    """

    module: nn.Module
    program: ExportedProgram
    plan: Plan
    report: dict[str, Any]
    _files: TemporaryFolder

    def save(self, folder: str | Path, *, force: bool = False, once: bool = False) -> None:
        """Write the weights, the plan, the report and a file of each format, or nothing.

        They hold the network as it was measured: training `module` further does not change them.

        Args:
            folder: Where the files go.
            force: Replace an earlier result.
            once: It is not saved again, so that large files need not be copied.

        Raises:
            UsageError: The folder exists and `force` is off, or holds other files.
            CompressorError: The place cannot be written.
        """
        with Explaining(), all_or_nothing(Path(folder), force=force) as staged:
            copy_into(self._files.path, staged, may_link=once)


def load(folder: str | Path, factory: Callable[[], nn.Module] | str, **arguments: Any) -> nn.Module:
    """Rebuild the user's own class from an export folder, in eval mode.

    Weights that the factory's network computes from others are plain parameters, as in the result.

    Args:
        folder: What `compress` wrote.
        factory: Builds the original network; a callable, or a spec such as "torchvision:resnet18".
        arguments: Passed on to the factory.

    Raises:
        CompressorError: The class could not follow (then `load_program(folder)` works), the folder
            is no result, or the factory builds another network than the one compressed.
    """
    with Explaining():
        return _load(Path(folder), factory, arguments)


def _load(
    folder: Path, factory: Callable[[], nn.Module] | str, arguments: dict[str, Any]
) -> nn.Module:
    check_files(folder, (WEIGHTS, FORMATS[PROGRAM].file))
    plan = read_plan(folder / PLAN)
    if plan.form != "class":
        raise CompressorError(
            f"the network's own class could not follow the plan: {plan.obstacle}",
            where=str(folder / PLAN),
            consequence="no network was built",
            next_step=_without_class(folder),
        )
    built = _build(factory, arguments)
    without = without_cache(built.module, plan)
    module = _apply(plan, built.module, folder)
    if plan.parametrised:
        put_all_back(module, built.computed, plan.tensors)
    module = _with_weights(module, plan, folder / WEIGHTS).eval()
    give_back_types(module, types_named(plan.types))
    if plan.removal is not None:
        leave(module, plan.removal.leaving)
    if without:
        switch_caches_off(module)
    return module


def _without_class(folder: Path) -> str:
    """Return what to do with a result whose class could not follow."""
    if (folder / FORMATS[HF].file).exists():
        return f"{folder / FORMATS[HF].file} is the same network, for from_pretrained"
    if (folder / FORMATS[PROGRAM].file).exists():
        return f"compressor.load_program({str(folder)!r}) has the same weights and outputs"
    return f"compress it again with --format {PROGRAM}, for compressor.load_program"


def load_program(folder: str | Path) -> nn.Module:
    """Load the compressed program of an export folder as a module in eval mode; no class is needed.

    Raises:
        CompressorError: The folder is no result, or its program would run code when loaded.
    """
    with Explaining():
        file = Path(folder) / FORMATS[PROGRAM].file
        if (file.parent / PLAN).exists() and not file.exists():
            raise CompressorError(
                f"there is no {file.name} in this result",
                where=str(folder),
                consequence="nothing was loaded",
                next_step=f"compress it again with --format {PROGRAM}, or load its class",
            )
        check_files(file.parent, (file.name,))
        return slicing.as_module(load_program_file(file)).eval()


def _apply(plan: Plan, module: nn.Module, folder: Path) -> nn.Module:
    try:
        file = folder / FORMATS[PROGRAM].file
        return slicing.apply_plan(plan, module, lambda: load_program_file(file))
    except CompressorError:
        raise
    except Exception as error:  # a plan that was changed by hand may hold anything
        raise CompressorError(
            f"the plan does not fit the network: {type(error).__name__}: {error}",
            where=str(folder / PLAN),
            consequence="no network was built",
            next_step="give the plan as compress wrote it",
        ) from error


def _build(factory: Callable[[], nn.Module] | str, arguments: dict[str, Any]) -> Plain:
    if isinstance(factory, str):
        literals = [f"{name}={value!r}" for name, value in arguments.items()]
        return make_plain(load_model(factory, factory_args=literals).module, copy_to_cpu)
    return make_plain(unwrap(factory(**arguments))[0], copy_to_cpu)


def _with_weights(module: nn.Module, plan: Plan, path: Path) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
        aliases = {alias: stored[name] for alias, name in plan.aliases.items()}
        give_buffers_memory(module)
        module.load_state_dict({**stored, **aliases})
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CompressorError(
            f"the weights do not fit the network: {error}",
            where=str(path),
            consequence="no network was built",
            next_step="give the factory of the network that was compressed",
        ) from None
    return module
