"""Name tensors, and carry them from one form of a network to the other."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compressor.graph.programs.lifting import stored_tensors
from compressor.on_demand import OnDemand, address_of, exchange, read_all, read_each
from compressor.records import Plan
from compressor.slicing.program import slice_tensor

Form = nn.Module | ExportedProgram


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by all their names."""
    parameters = module.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(module.named_buffers(remove_duplicate=False))}


def learn(module: nn.Module, learning: Collection[str]) -> None:
    """Let the parameters of these names learn, and no others, in place."""
    tied = module.named_parameters(remove_duplicate=False)
    wanted = {id(parameter) for name, parameter in tied if name in learning}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def carry_weights(source: Form, target: Form) -> None:
    """Overwrite the tensors of `target`, in place, by those of `source` with the same names.

    Parameters of a module that are kept on demand cannot be written to: those of the source take
    their place, and both forms share them.
    """
    found = _tensors(source)
    others: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, tensor in _tensors(target).items():
            if name not in found or address_of(tensor) == address_of(found[name]):
                continue
            if isinstance(tensor, OnDemand):
                others[id(tensor)] = nn.Parameter(found[name].detach(), tensor.requires_grad)
            else:
                tensor.copy_(found[name])
    if isinstance(target, nn.Module):
        exchange(target, others)


def read_weights(module: nn.Module, program: ExportedProgram) -> None:
    """Read what two forms of a network keep on demand once and for all, in place."""
    read_all(module)
    read_program(program)


def read_program(program: ExportedProgram) -> None:
    """Read what a program keeps on demand once and for all, in place, so that it can be changed."""
    state = program.state_dict
    read = read_each(state.values())
    state.update({name: read[id(each)] for name, each in state.items() if id(each) in read})


def part_weights(module: nn.Module, other: Form) -> None:
    """Give parameters that share memory with another form memory of their own, in place."""
    places = {tensor.data_ptr() for tensor in _tensors(other).values()} - {0}
    for parameter in module.parameters():
        if parameter.data_ptr() in places:
            parameter.data = parameter.data.clone()


def carry_sliced(dense: nn.Module, plan: Plan, target: nn.Module) -> None:
    """Overwrite a smaller network's tensors, in place, by what the plan keeps of `dense`."""
    found = named_tensors(dense)
    with torch.no_grad():
        for name, tensor in named_tensors(target).items():
            if name in found:
                kept = plan.tensors.get(plan.aliases.get(name, name), {})
                tensor.copy_(slice_tensor(found[name], kept))


def _tensors(form: Form) -> dict[str, Tensor]:
    if isinstance(form, nn.Module):
        return named_tensors(form)
    return {n: stored for n, stored in stored_tensors(form).items() if isinstance(stored, Tensor)}
