"""Capture the model's computation as a `torch.export` program, on a copy, on the CPU."""

from __future__ import annotations

import inspect
import io
import keyword
import logging
import warnings
from collections.abc import Iterator, Sequence
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
from compressor.errors import CompressorError
from compressor.graph.programs.attention_path import unfused_attention
from compressor.graph.programs.beginning import calls_noted, ended_after
from compressor.graph.programs.containers import know_types, returned_types_known
from compressor.graph.programs.lstm_states import right_lstm_states
from compressor.graph.programs.nodes import live_nodes
from compressor.graph.trace.caches import caches_off
from compressor.graph.trace.fixed_inputs import fixed_inputs
from compressor.graph.trace.keepsakes import as_before
from compressor.graph.trace.observers import observers_off
from compressor.graph.trace.regions import inline_regions
from compressor.modules import copy_of, unwrap
from compressor.records import ExampleInputs, Trace


def trace(module: nn.Module, examples: ExampleInputs, *, free_batch: bool = True) -> Trace:
    """Export a detached copy of `module` in eval mode; the module itself is not changed.

    A free batch is tried first, with inputs that share dimension 0 repeated to a batch of at least
    two, since a batch of one silently becomes static; then the batch as given, which is noted.

    Where forward goes on with sizes that data decide (a detector's boxes), what it computes before
    is captured. Where it branches on values, the branch of the example inputs is captured, and the
    program refuses the other one at run time. Where evaluation leaves parameters unused, the
    training mode is captured as well.

    Args:
        module: The network.
        examples: Inputs that it accepts.
        free_batch: Whether a free batch is tried, else the batch stays that of the examples.

    Raises:
        CompressorError: `torch.export` cannot capture the model, or a layer is named by a word of
            Python's, which the program's code could not say.
    """
    _refuse_keywords(module)
    copied = detached_copy(module)
    know_types((examples.args, dict(examples.kwargs)))
    before = [*caches_off(copied), *fixed_inputs(copied, examples)]
    with as_before(copied), observers_off(copied, examples) as observed:
        program, way, notes = _captured(copied, examples, free_batch)
    inputs = (way.free_batch and _with_batch(examples)) or examples
    training = None
    is_whole = not way.ends_after and not isinstance(copied, torch.fx.GraphModule)
    if is_whole and unused_parameters(program):
        with as_before(copied):
            training = _training_program(copied, inputs, way, notes)
    return Trace(
        program=program,
        module=copied,
        examples=inputs,
        batch_symbol=_batch_symbol(program) if way.free_batch else None,
        batch=_leading_size(inputs) or 1,
        notes=(*before, *observed, *notes),
        training=training,
        branched=way.draft,
        ends_after=way.ends_after,
        learning=learning_in(module),
    )


def _refuse_keywords(module: nn.Module) -> None:
    """Raise CompressorError where a layer or tensor is named by a word of Python's: torch.fx writes
    names into code ("self.class.weight")."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    names = [name for name, _ in (*module.named_modules(), *tensors)]
    odd = next((n for n in names if any(keyword.iskeyword(part) for part in n.split("."))), None)
    if odd is not None:
        word = next(part for part in odd.split(".") if keyword.iskeyword(part))
        raise CompressorError(
            f"a layer or tensor is named {word!r}, which is a word of Python's",
            where=odd,
            consequence="torch.fx cannot write the network's program as code",
            next_step=f"name it otherwise where the network is built ({word}_), and in the keys of "
            "its weights",
        )


def learning_in(module: nn.Module) -> frozenset[str]:
    """Return all names of the parameters that learn."""
    named = module.named_parameters(remove_duplicate=False)
    return frozenset(name for name, parameter in named if parameter.requires_grad)


def trace_of(program: ExportedProgram, module: nn.Module) -> Trace:
    """Return the trace of an existing program; `module` is that program as a module.

    Raises:
        CompressorError: The program has no example inputs.
    """
    if program.example_inputs is None:
        raise CompressorError(
            "the program has no example inputs",
            consequence="nothing can be compared with it",
            next_step="export it again with torch.export",
        )
    args, kwargs = program.example_inputs
    examples = ExampleInputs(args, kwargs, "the program's own")
    symbol = _batch_symbol(program)
    batch = _leading_size(examples) or 1
    return Trace(program, module, examples, symbol, batch, learning=learning_in(module))


@dataclass(frozen=True)
class _Way:
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


def _captured(
    module: nn.Module, examples: ExampleInputs, free_batch: bool
) -> tuple[ExportedProgram, _Way, list[str]]:
    """Capture the program by the first way that works; return it, the way, and notes about it.

    Raises:
        CompressorError: No way works.
    """
    batched = _with_batch(examples) if free_batch else None
    failures: list[Exception] = []
    calls: list[str] = []
    beginning: tuple[ExportedProgram, _Way, list[str]] | None = None
    for way in _ways(batched is not None, failures, calls):
        inputs = (way.free_batch and batched) or examples
        try:
            with calls_noted(module, calls):
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


def _ways(has_batch: bool, failures: Sequence[Exception], calls: Sequence[str]) -> Iterator[_Way]:
    """Yield the ways to try next, from what failed and which modules had returned."""
    batches = (True, False) if has_batch else (False,)
    yield from (_Way(free) for free in batches)
    if _is_about_sizes(failures[-1]) and calls:
        before = tuple(calls)
        yield from (_Way(free, ends_after=before) for free in batches)
    yield from (_Way(free, draft=True) for free in batches)


def _is_about_sizes(error: Exception) -> bool:
    """Return whether forward branched on a size that data decide (a number of boxes)."""
    is_unknown = isinstance(error, GuardOnDataDependentSymNode)
    return is_unknown and "Size-like symbols: none" not in str(error)


def _notes(way: _Way, has_batch: bool, failures: list[Exception]) -> list[str]:
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


def _training_program(
    module: nn.Module, inputs: ExampleInputs, way: _Way, notes: list[str]
) -> ExportedProgram | None:
    """Capture the network in training mode; return None, with a note, where that is impossible."""
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
    return program


def unused_parameters(program: ExportedProgram) -> set[str]:
    """Return the parameters that no output of the program depends on, under any tied name."""
    users = {node.name for node in live_nodes(program.graph)}
    specs = [s for s in program.graph_signature.input_specs if s.kind == InputKind.PARAMETER]
    memory = {
        str(spec.target): program.state_dict[str(spec.target)].untyped_storage().data_ptr()
        for spec in specs
    }
    used = {str(spec.target) for spec in specs if spec.arg.name in users}
    shared = {memory[name] for name in used} - {0}
    return {name for name in memory if name not in used and memory[name] not in shared}


def detached_copy(module: nn.Module) -> nn.Module:
    """Return a copy on the CPU, in eval mode, without gradients; the original is not changed.

    Raises:
        CompressorError: The model cannot be copied.
    """
    copied = copied_to_cpu(module)
    if not isinstance(copied, torch.fx.GraphModule):
        copied.eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return copied


def copied_to_cpu(module: nn.Module) -> nn.Module:
    """Return a copy on the CPU without wrappers, otherwise as it is; the original is not changed.

    Raises:
        CompressorError: The model cannot be copied.
    """
    return copy_of(unwrap(module)[0]).to("cpu")


def _export(module: nn.Module, inputs: ExampleInputs, way: _Way) -> ExportedProgram:
    leading = {0: torch.export.Dim("batch")} if way.free_batch else None
    known = returned_types_known(module)

    def shape_of(leaf: Any) -> Any:
        return leading if isinstance(leaf, torch.Tensor) and leaf.dim() else None

    shapes = pytree.tree_map(shape_of, _by_name(module, inputs)) if leading else None
    following = branches_followed() if way.draft else nullcontext()
    ending = ended_after(module, way.ends_after)
    with quiet_capture(), following, ending, known, right_lstm_states():
        program = torch.export.export(
            module, inputs.args, dict(inputs.kwargs), dynamic_shapes=shapes, strict=False
        )
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


def branches_followed() -> AbstractContextManager[Any]:
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
def quiet_capture() -> Iterator[None]:
    """Switch off gradients, fused fast paths (they hide the layers) and the exporter's messages."""
    muted = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stderr(io.StringIO()),  # where a capture that fails prints its graph
            torch.no_grad(),
            unfused_attention(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(muted)


def _tensors(inputs: ExampleInputs) -> list[torch.Tensor]:
    return [
        leaf
        for leaf in pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
        if isinstance(leaf, torch.Tensor)
    ]


def _leading_size(inputs: ExampleInputs) -> int | None:
    """Return the size of dimension 0 if all tensor inputs share it, else None."""
    sizes = {tensor.shape[0] if tensor.dim() else None for tensor in _tensors(inputs)}
    return sizes.pop() if len(sizes) == 1 else None


def _with_batch(inputs: ExampleInputs) -> ExampleInputs | None:
    """Return the inputs with a batch of two or more, or None where they share no dimension 0."""
    size = _leading_size(inputs)
    if not size:
        return None
    if size >= 2:
        return inputs

    def repeat(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) else leaf

    args, kwargs = pytree.tree_map(repeat, (inputs.args, dict(inputs.kwargs)))
    return ExampleInputs(args, kwargs, inputs.origin)


def _batch_symbol(program: ExportedProgram) -> str | None:
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for size in value.shape[:1]:
                if isinstance(size, torch.SymInt):
                    return str(size)
    return None
