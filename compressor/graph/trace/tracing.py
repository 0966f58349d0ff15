"""Trace a network: capture what a detached copy of it computes, on the CPU."""

from __future__ import annotations

import keyword

import torch
from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError
from compressor.graph.programs.containers import know_types
from compressor.graph.trace.batch import batch_symbol_of, leading_size, with_batch
from compressor.graph.trace.caches import switch_caches_off
from compressor.graph.trace.experts import grouped_experts
from compressor.graph.trace.exports import capture, capture_training, unused_parameters
from compressor.graph.trace.fixed_inputs import note_fixed_inputs
from compressor.graph.trace.keepsakes import restore_stored
from compressor.graph.trace.observers import switch_observers_off
from compressor.modules import copy_of, shared_copy_of, unwrap
from compressor.records import ExampleInputs, Trace


def trace(
    module: nn.Module, examples: ExampleInputs, *, free_batch: bool = True, shares: bool = False
) -> Trace:
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
        shares: Whether the copy shares the module's parameters, which nobody else may hold then.

    Raises:
        CompressorError: `torch.export` cannot capture the model, or a layer is named by a word of
            Python's, which the program's code could not say.
    """
    _refuse_keywords(module)
    copied = copy_detached(module, shares=shares)
    know_types((examples.args, dict(examples.kwargs)))
    before = [*switch_caches_off(copied), *note_fixed_inputs(copied, examples)]
    observers = switch_observers_off(copied, examples)
    with restore_stored(copied), grouped_experts(copied), observers as observed:
        program, way, notes = capture(copied, examples, free_batch)
    inputs = (way.free_batch and with_batch(examples)) or examples
    training = None
    is_whole = not way.ends_after and not isinstance(copied, torch.fx.GraphModule)
    unused = unused_parameters(program) if is_whole else set()
    if unused:
        with restore_stored(copied), grouped_experts(copied):
            training = capture_training(copied, inputs, way, unused, notes)
    return Trace(
        program=program,
        module=copied,
        examples=inputs,
        batch_symbol=batch_symbol_of(program) if way.free_batch else None,
        batch=leading_size(inputs) or 1,
        notes=(*before, *observed, *notes),
        training=training,
        branched=way.draft,
        ends_after=way.ends_after,
        learning=learning_in(module),
    )


def _refuse_keywords(module: nn.Module) -> None:
    """Refuse a network in which a layer or tensor is named by a word of Python's.

    torch.fx writes names into code ("self.class.weight").

    Raises:
        CompressorError: There is such a name.
    """
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
    symbol = batch_symbol_of(program)
    batch = leading_size(examples) or 1
    return Trace(program, module, examples, symbol, batch, learning=learning_in(module))


def copy_detached(module: nn.Module, *, shares: bool = False) -> nn.Module:
    """Return a copy on the CPU, in eval mode, without gradients; the original is not changed.

    Args:
        module: The original.
        shares: Whether the copy's parameters have the numbers of the original's, not copies.

    Raises:
        CompressorError: The model cannot be copied.
    """
    copied = shared_copy_of(unwrap(module)[0]) if shares else copy_to_cpu(module)
    if not isinstance(copied, torch.fx.GraphModule):
        copied.eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return copied


def copy_to_cpu(module: nn.Module) -> nn.Module:
    """Return a copy on the CPU without wrappers, otherwise as it is; the original is not changed.

    Raises:
        CompressorError: The model cannot be copied.
    """
    return copy_of(unwrap(module)[0]).to("cpu")
