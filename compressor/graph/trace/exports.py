"""Export a network as a program, by the first of several ways that works."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._functorch import config as functorch_config
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from compressor.causes import first_line, not_captured
from compressor.graph.programs.attention_path import unfuse_attention
from compressor.graph.programs.beginning import end_after, note_calls
from compressor.graph.programs.containers import register_returned_types
from compressor.graph.programs.lstm_states import correct_lstm_states
from compressor.graph.programs.nodes import live_nodes
from compressor.graph.trace.batch import with_batch
from compressor.graph.trace.hollow import hollow
from compressor.graph.trace.regions import inline_regions
from compressor.modules import copy_of
from compressor.on_demand import memory_of
from compressor.records import ExampleInputs


@dataclass(frozen=True)
class CaptureWay:
    """One way to capture a network.

    Attributes:
        free_batch: Whether the batch is free.
        draft: Whether the example's branches are followed.
        ends_after: Paths of the modules after whose calls the capture ends; empty for the whole
            forward.
    """

    free_batch: bool
    draft: bool = False
    ends_after: tuple[str, ...] = ()


def capture(
    module: nn.Module, examples: ExampleInputs, free_batch: bool
) -> tuple[ExportedProgram, CaptureWay, list[str]]:
    """Capture the program by the first way that works; return it, the way, and notes about it.

    Raises:
        CompressorError: No way works.
    """
    batched = with_batch(examples) if free_batch else None
    failures: list[Exception] = []
    calls: list[str] = []
    beginning: tuple[ExportedProgram, CaptureWay, list[str]] | None = None
    for way in _ways(batched is not None, failures, calls):
        inputs = (way.free_batch and batched) or examples
        try:
            with note_calls(module, calls):
                program = _export(module, inputs, way)
        except Exception as error:
            failures.append(error)
            continue
        found = program, way, _notes(way, batched is not None, failures)
        if not way.ends_after or _unseen_share(program) <= _MOST_UNSEEN:
            return found
        beginning = beginning or found
    if beginning is not None:
        return beginning
    raise not_captured(failures[0], module) from failures[0]


_MOST_UNSEEN = 0.5
"""Share of the weights that may lie behind the end of a program which ends early. Where it is more
(experts that are skipped where no token is sent to them), the branch of the example is better."""


def _unseen_share(program: ExportedProgram) -> float:
    sizes = {name: program.state_dict[name].numel() for name in program.graph_signature.parameters}
    unseen = sum(sizes[name] for name in unused_parameters(program))
    return float(unseen / max(1, sum(sizes.values())))


def _ways(
    has_batch: bool, failures: Sequence[Exception], calls: Sequence[str]
) -> Iterator[CaptureWay]:
    """Yield the ways to try next, from what failed and which modules had returned."""
    batches = (True, False) if has_batch else (False,)
    yield from (CaptureWay(free) for free in batches)
    if _is_about_sizes(failures[-1]) and calls:
        before = tuple(calls)
        yield from (CaptureWay(free, ends_after=before) for free in batches)
    yield from (CaptureWay(free, draft=True) for free in batches)


def _is_about_sizes(error: Exception) -> bool:
    """Return whether forward branched on a size that data decide (a number of boxes)."""
    is_unknown = isinstance(error, GuardOnDataDependentSymNode)
    return is_unknown and "Size-like symbols: none" not in str(error)


def _notes(way: CaptureWay, has_batch: bool, failures: list[Exception]) -> list[str]:
    notes = []
    if has_batch and not way.free_batch:
        notes.append(f"the batch is static: {first_line(failures[-1])}")
    if way.draft:
        notes.append("forward branches on values: only the example inputs' branch is captured")
    if way.ends_after:
        ends = ", ".join(dict.fromkeys(way.ends_after))
        notes.append(
            "forward goes on with sizes that data decide: program and ONNX file end with what "
            f"{ends} return, and layers used only later are left as they are"
        )
    return notes


def capture_training(
    module: nn.Module,
    inputs: ExampleInputs,
    way: CaptureWay,
    unused: Collection[str],
    notes: list[str],
) -> ExportedProgram | None:
    """Capture the network in training mode, to see what uses parameters that evaluation leaves out.

    Args:
        module: The network.
        inputs: Inputs that it accepts.
        way: How evaluation was captured.
        unused: The parameters that evaluation leaves out.
        notes: Takes in what cannot be captured, or is used by neither.

    Returns:
        The program; None where training uses no more of them, or cannot be captured.
    """
    unseen = "parameters that evaluation never uses"
    try:
        program = _export(copy_of(module).train(), inputs, way)
    except Exception as error:
        why = f"training mode cannot be captured: {first_line(error)}"
        notes.append(f"{unseen} were left alone and may no longer fit: {why}")
        return None
    still = unused_parameters(program)
    if still:
        notes.append(f"{len(still)} {unseen}, nor does training: they were left alone")
    return None if still == set(unused) else program


def unused_parameters(program: ExportedProgram) -> set[str]:
    """Return the parameters that no output of the program depends on, under any tied name."""
    users = {node.name for node in live_nodes(program.graph)}
    specs = [s for s in program.graph_signature.input_specs if s.kind == InputKind.PARAMETER]
    memory = {str(spec.target): memory_of(program.state_dict[str(spec.target)]) for spec in specs}
    used = {str(spec.target) for spec in specs if spec.arg.name in users}
    shared = {memory[name] for name in used} - {0}
    return {name for name in memory if name not in used and memory[name] not in shared}


def _export(module: nn.Module, inputs: ExampleInputs, way: CaptureWay) -> ExportedProgram:
    leading = {0: torch.export.Dim("batch")} if way.free_batch else None
    known = register_returned_types(module)

    def shape_of(leaf: Any) -> Any:
        return leading if isinstance(leaf, torch.Tensor) and leaf.dim() else None

    shapes = pytree.tree_map(shape_of, _by_name(module, inputs)) if leading else None
    following = follow_branches() if way.draft else nullcontext()
    ending = end_after(module, way.ends_after)
    weights = hollow(module, with_values=way.draft)
    with silence_capture(), following, ending, known, correct_lstm_states(), weights as fill:
        program = torch.export.export(
            module, inputs.args, dict(inputs.kwargs), dynamic_shapes=shapes, strict=False
        )
        fill(program)
    if way.draft:
        _without_real_values(program)
    inline_regions(program)
    return program


def _without_real_values(program: ExportedProgram) -> None:
    """Let later passes over the program, in place, work on shapes alone.

    With the example's values, a further pass (decompositions for ONNX) would make a number that
    data decide and not find it in its result.
    """
    values = [node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")]
    mode = detect_fake_mode(values)
    if mode is not None:
        mode.propagate_real_tensors = False


def follow_branches() -> AbstractContextManager[Any]:
    """Let a capture inside the block follow the example inputs' branches, where forward has some.

    The captured program asserts at run time that the same branch is taken. This is what
    `torch.export.draft_export` does, without its log of every symbolic expression (with a
    detector's 91 classes that took three quarters of the time), and without making a free batch
    static on its own.
    """
    patched: AbstractContextManager[Any] = functorch_config.patch(
        fake_tensor_propagate_real_tensors=True
    )
    return patched


def _by_name(module: nn.Module, inputs: ExampleInputs) -> dict[str, Any]:
    """Return inputs as `dynamic_shapes` takes them: by the names in forward's signature."""
    bound = inspect.signature(module.forward).bind(*inputs.args, **inputs.kwargs)
    return dict(bound.arguments)


@contextmanager
def silence_capture() -> Iterator[None]:
    """Switch off gradients, fused fast paths (they hide the layers) and the exporter's messages."""
    muted = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stderr(io.StringIO()),  # where a capture that fails prints its graph
            torch.no_grad(),
            unfuse_attention(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(muted)
