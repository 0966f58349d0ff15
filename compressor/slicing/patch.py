"""The user's own class, made smaller: tensors by index, attributes from tensors and literals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compressor.axes import Axis, Dim, size_after
from compressor.errors import CompressorError
from compressor.modules import copy_of
from compressor.network import BATCH, Network
from compressor.programs.nodes import argument, owner_of, schema_names
from compressor.records import Plan, Trace
from compressor.slicing.program import Indices, slice_tensor
from compressor.slicing.stand_in import Wiring, install, part_of
from compressor.slicing.weights import learn

Attributes = dict[str, dict[str, Any]]
"""Module path -> attribute -> value."""

Sizes = Mapping[str, Callable[[Any], Any]]

FOLLOWING: Mapping[type[nn.Module], Sizes] = {
    nn.Linear: {
        "in_features": lambda m: m.weight.shape[1],
        "out_features": lambda m: m.weight.shape[0],
    },
    _ConvTransposeNd: {
        "in_channels": lambda m: m.weight.shape[0],
        "out_channels": lambda m: m.weight.shape[1] * m.groups,
    },
    _ConvNd: {
        "in_channels": lambda m: m.weight.shape[1] * m.groups,
        "out_channels": lambda m: m.weight.shape[0],
    },
    _NormBase: {
        "num_features": lambda m: next(
            (t.shape[0] for t in (m.weight, m.running_mean) if t is not None), m.num_features
        ),
    },
    nn.LayerNorm: {"normalized_shape": lambda m: _shape_of(m)},
    nn.RMSNorm: {"normalized_shape": lambda m: _shape_of(m)},
    nn.GroupNorm: {"num_channels": lambda m: m.num_channels if m.weight is None else len(m.weight)},
    nn.Embedding: {"embedding_dim": lambda m: m.weight.shape[1]},
    nn.Bilinear: {
        "in1_features": lambda m: m.weight.shape[1],
        "in2_features": lambda m: m.weight.shape[2],
        "out_features": lambda m: m.weight.shape[0],
    },
    nn.RNNBase: {
        "input_size": lambda m: m.weight_ih_l0.shape[1],
        "hidden_size": lambda m: len(m.weight_ih_l0) // {"LSTM": 4, "GRU": 3}.get(m.mode, 1),
        "proj_size": lambda m: m.weight_hh_l0.shape[1] if m.proj_size else 0,
    },
    nn.RNNCellBase: {
        "input_size": lambda m: m.weight_ih.shape[1],
        "hidden_size": lambda m: m.weight_hh.shape[1],
    },
    nn.PReLU: {"num_parameters": lambda m: m.weight.shape[0]},
}
"""torch.nn's layers: attribute <- the layer's own tensors. A layer takes the first row it is of."""


def _shape_of(norm: Any) -> tuple[int, ...]:
    return tuple(norm.normalized_shape) if norm.weight is None else tuple(norm.weight.shape)


def patched_class(
    trace: Trace, network: Network, indices: Indices, sizes: Mapping[Axis, int]
) -> tuple[nn.Module, Attributes, list[str]]:
    """A smaller copy of the traced module, the attributes that were changed, and the modules whose
    code spells sizes that change: first those where no attribute holds them, then those where the
    attribute is a guess."""
    module = _copied_without(trace.module, indices)
    attributes, unspelled = _literal_attributes(module, trace, network, sizes)
    suspects = [*unspelled, *attributes]
    apply_sizes(module, indices, network.aliases, attributes)
    for path, layer in module.named_modules():
        for name, value in _followed(layer).items():
            if getattr(layer, name) != value:
                attributes.setdefault(path, {})[name] = value
                setattr(layer, name, value)
    return module, attributes, suspects


def _copied_without(module: nn.Module, indices: Indices) -> nn.Module:
    """A copy that shares the tensors that are about to be replaced by slices."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shared = [tensor for name, tensor in named.items() if name in indices]
    return copy_of(module, {id(tensor): tensor for tensor in shared})


def _followed(layer: nn.Module) -> dict[str, Any]:
    for kind, sizes in FOLLOWING.items():
        if isinstance(layer, kind):
            return {name: size(layer) for name, size in sizes.items()}
    return {}


def apply_sizes(
    module: nn.Module,
    indices: Mapping[str, Any],
    aliases: Mapping[str, str],
    attributes: Attributes,
) -> None:
    """Slice the module's tensors in place, tie the aliases again, set the attributes."""
    for name, kept in indices.items():
        if name not in aliases:
            _slice_in_place(module, name, kept)
    for name, stored in aliases.items():
        owner, leaf = _owner(module, name)
        setattr(owner, leaf, _tensor(module, stored))
    for path, values in attributes.items():
        target = module.get_submodule(path)
        for name, value in values.items():
            kind = type(getattr(target, name))
            setattr(target, name, kind(value) if kind in (tuple, list) else value)


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _tensor(module: nn.Module, name: str) -> Any:
    owner, leaf = _owner(module, name)
    return getattr(owner, leaf)


def _slice_in_place(module: nn.Module, name: str, kept: Mapping[int, tuple[int, ...]]) -> None:
    try:
        owner, leaf = _owner(module, name)
        old = getattr(owner, leaf)
    except AttributeError:
        return  # a constant that lives in the code: the comparison with the program tells
    new = slice_tensor(old, kept)
    setattr(
        owner,
        leaf,
        new if not isinstance(old, nn.Parameter) else nn.Parameter(new, old.requires_grad),
    )


# -- literals that the code takes from attributes ------------------------------------------------


def _literal_attributes(
    module: nn.Module, trace: Trace, network: Network, sizes: Mapping[Axis, int]
) -> tuple[Attributes, list[str]]:
    """New values of integer attributes whose value the code uses as a size that changes; and the
    modules with such a size that no attribute holds."""
    spelled: dict[str, list[tuple[int, int]]] = {}
    for path, old, new in _literals_by_owner(trace, network, sizes):
        spelled.setdefault(path, []).append((old, new))
    attributes: Attributes = {}
    elsewhere: Attributes = {}
    unspelled: list[str] = []
    for path, pairs in spelled.items():
        if all(old == new for old, new in pairs):
            continue
        found, whole = _spelled_by(module.get_submodule(path), pairs)
        if found:
            attributes[path] = found
        if not whole:
            unspelled.append(path)
            elsewhere |= _spelled_by_parts(module.get_submodule(path), path, pairs)
    for path, values in elsewhere.items():
        attributes[path] = values | attributes.get(path, {})
    return attributes, unspelled


def _spelled_by_parts(owner: nn.Module, path: str, pairs: list[tuple[int, int]]) -> Attributes:
    """New values for integers that the owner's code reads from the modules that it is made of; what
    their own code says about them goes before."""
    found: Attributes = {}
    for name, part in owner.named_children():
        if values := _spelled_by(part, pairs)[0]:
            found[f"{path}.{name}".removeprefix(".")] = values
    return found


def _literals_by_owner(
    trace: Trace, network: Network, sizes: Mapping[Axis, int]
) -> Iterator[tuple[str, int, int]]:
    """(owning module, old size, new size) of every size that the code spells out."""
    for node in trace.program.graph.nodes:
        spelling = network.nodes.get(node.name)
        if spelling is None:
            continue
        for name, spelled in spelling.literals.items():
            for value, dim in _given_sizes(node, name, spelled):
                old, new = _per_sample(dim.size), _per_sample(size_after(dim, sizes))
                if value != -1 and value is not None:
                    yield owner_of(node), old, new


def _given_sizes(node: torch.fx.Node, name: str, spelled: Any) -> Iterator[tuple[Any, Dim]]:
    """The values of an argument beside their dimensions. An operator that gives one size for all
    pieces has no argument of that name; the pieces are given then."""
    dims = spelled if isinstance(spelled, tuple) else (spelled,)
    if name in schema_names(node):
        given = argument(node, name)
        values = given if isinstance(given, list | tuple) else (given,)
    else:
        values = [dim.size for dim in dims]
    yield from ((v, d) for v, d in zip(values, dims, strict=False) if not isinstance(d, int))


def _per_sample(size: int) -> int:
    return size // BATCH if size % BATCH == 0 else size


def _spelled_by(owner: nn.Module, pairs: list[tuple[int, int]]) -> tuple[dict[str, Any], bool]:
    """New values for the owner's integers: in order of use, or the one new size that there is (the
    old one may also stand for something else, such as the 3 of a fused query, key and value)."""
    found: dict[str, Any] = {}
    whole = True
    for old in dict.fromkeys(old for old, new in pairs if old != new):
        news = [new for before, new in pairs if before == old]
        names = [name for name, value in vars(owner).items() if type(value) is int and value == old]
        changed = {new for new in news if new != old}
        if len(names) == len(news):
            found |= dict(zip(names, news, strict=True))
        elif len(changed) == 1:
            found |= dict.fromkeys(names, changed.pop())
        else:
            names = []
        whole = whole and bool(names)
    return {name: value for name, value in found.items() if value != getattr(owner, name)}, whole


# -- replaying -----------------------------------------------------------------------------------


def source_of(module: nn.Module) -> str:
    """Hash of a network's tensor names and shapes: what a plan is for."""
    lines = sorted(f"{name} {tuple(t.shape)}" for name, t in module.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_source(plan: Plan, module: nn.Module) -> None:
    """Refuse a network that the plan was not made for."""
    if plan.source != source_of(module):
        raise CompressorError(
            "the plan was made for another network",
            where="names or shapes of its tensors differ from those of this one",
            consequence="nothing is changed",
            next_step="give the network as it was before it was compressed",
        )


def apply_plan(
    plan: Plan, module: nn.Module, program: Callable[[], ExportedProgram] | None = None
) -> nn.Module:
    """Make a freshly constructed network as small as the plan says, in place; no tracing.

    Args:
        plan: What is kept.
        module: The network as it was before it was compressed.
        program: Gives the sliced program, for modules that run their traced operators.

    Raises:
        CompressorError: The plan is for another network, its class could not follow, or it needs
            the program.
    """
    if plan.form != "class":
        raise CompressorError(
            "this result is a program: the class could not follow",
            where=plan.obstacle,
            consequence="the class cannot be rebuilt",
            next_step="use compressor.load_program(folder)",
        )
    check_source(plan, module)
    attributes = {path: dict(values) for path, values in plan.attributes.items()}
    apply_sizes(module, plan.tensors, plan.aliases, attributes)
    if plan.stand_ins:
        _install_stand_ins(plan, module, program)
    if plan.frozen is not None:
        named = dict(module.named_parameters(remove_duplicate=False))
        learn(module, named.keys() - set(plan.frozen))
    return module


def _install_stand_ins(
    plan: Plan, module: nn.Module, program: Callable[[], ExportedProgram] | None
) -> None:
    if program is None:
        raise CompressorError(
            f"{len(plan.stand_ins)} modules run traced operators, which are in model.pt2",
            where=", ".join(plan.stand_ins),
            consequence="the class cannot be rebuilt from the plan alone",
            next_step="use compressor.load(folder, factory)",
        )
    sliced = program()
    for path, spelled in plan.stand_ins.items():
        returned = spelled["returned"]
        wiring = Wiring(tuple(spelled["arguments"]), tuple(returned) if returned else None)
        install(module.get_submodule(path), part_of(sliced, module, path), wiring)
