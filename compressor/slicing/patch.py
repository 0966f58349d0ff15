"""Make the user's own class smaller: tensors by index, attributes from tensors and literals."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compressor.errors import CompressorError
from compressor.files.format_table import FORMATS, PROGRAM
from compressor.graph.axes import Axis
from compressor.graph.network import Network
from compressor.modules import copy_of, lies_within
from compressor.records import Plan, Removal, Trace
from compressor.slicing.literals import Attributes, find_attributes
from compressor.slicing.part import part_of
from compressor.slicing.program import Indices, slice_tensor
from compressor.slicing.stand_in import Muted, Passing, install
from compressor.slicing.weights import learn
from compressor.slicing.wiring import Wiring

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
"""torch.nn's layers -> attribute -> its value from the layer's own tensors. A layer takes the
first row that it is an instance of."""


def _shape_of(norm: Any) -> tuple[int, ...]:
    return tuple(norm.normalized_shape) if norm.weight is None else tuple(norm.weight.shape)


def patch_class(
    trace: Trace,
    network: Network,
    program: ExportedProgram,
    indices: Indices,
    sizes: Mapping[Axis, int],
) -> tuple[nn.Module, Attributes, list[str]]:
    """Return a smaller copy of the traced module, with the attributes that were changed.

    Its parameters are new ones with the very numbers of the smaller program's.

    Args:
        trace: The traced network.
        network: Its analysis.
        program: The smaller program.
        indices: Tensor name -> dimension -> kept indices.
        sizes: Axis -> how many of its indices are kept.

    Returns:
        The copy; module path -> attribute -> new value; and the paths of modules whose code spells
        sizes that change: first those where no attribute holds them, then those where the attribute
        is a guess.
    """
    weights = {n: t for n, t in program.state_dict.items() if isinstance(t, nn.Parameter)}
    module = _copy_without(trace.module, {*indices, *weights})
    attributes, unspelled = find_attributes(module, trace, network, sizes)
    suspects = [*unspelled, *attributes]
    _take_over(module, weights)
    others = {name: kept for name, kept in indices.items() if name not in weights}
    apply_sizes(module, others, network.aliases, attributes)
    for path, layer in module.named_modules():
        for name, value in _follow(layer).items():
            if getattr(layer, name) != value:
                attributes.setdefault(path, {})[name] = value
                setattr(layer, name, value)
    return module, attributes, suspects


def _copy_without(module: nn.Module, names: Collection[str]) -> nn.Module:
    """Return a copy that shares the tensors of these names, which are about to be replaced."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shared = [tensor for name, tensor in named.items() if name in names]
    return copy_of(module, {id(tensor): tensor for tensor in shared})


def _take_over(module: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Give a module's parameters, in place, the numbers of the weights with the same names."""
    new = {id(w): nn.Parameter(w.detach(), requires_grad=False) for w in weights.values()}
    for name, _ in list(module.named_parameters(remove_duplicate=False)):
        if name in weights:
            owner, leaf = _owner(module, name)
            setattr(owner, leaf, new[id(weights[name])])


def _follow(layer: nn.Module) -> dict[str, Any]:
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
    """Slice the module's tensors, tie the aliases again and set the attributes, all in place.

    Args:
        module: The network.
        indices: Tensor name -> dimension -> kept indices.
        aliases: Name of a tied tensor -> name under which it is stored.
        attributes: Module path -> attribute -> new value.
    """
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
            setattr(target, name, kind(value) if issubclass(kind, tuple | list) else value)


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
    is_parameter = isinstance(old, nn.Parameter)
    setattr(owner, leaf, nn.Parameter(new, old.requires_grad) if is_parameter else new)


def remove(module: nn.Module, removal: Removal, stand_ins: Collection[str]) -> None:
    """Remove the tensors of blocks that are gone, and layers that have none left, in place.

    Modules all of whose operators are gone hand on what they are given, or give zeros.

    Args:
        module: The network.
        removal: What is gone.
        stand_ins: Paths of the modules that run traced operators, so that nobody calls the layers
            in them.
    """
    for kind, paths in ((Passing, removal.passing), (Muted, removal.muted)):
        for path, spelled in paths.items():
            owner, leaf = _owner(module, path)
            setattr(owner, leaf, kind(Wiring.read(spelled), getattr(owner, leaf)))
    for name in removal.tensors:
        path, _, leaf = name.rpartition(".")
        layer = _find(module, path)
        if layer is None:
            continue
        if getattr(layer, leaf, None) is not None:  # None already: a passing one's
            delattr(layer, leaf)
        while lies_within(path, stand_ins) and not _has_tensors(layer):
            owner, leaf = _owner(module, path)
            delattr(owner, leaf)
            path, layer = path.rpartition(".")[0], owner


def _has_tensors(layer: nn.Module) -> bool:
    return any(True for _ in itertools.chain(layer.parameters(), layer.buffers()))


def _find(module: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a path, or None where it is gone already."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


# -- replaying -----------------------------------------------------------------------------------


def source_of(module: nn.Module) -> str:
    """Return the hash of a network's tensor names and shapes, which says what a plan is for."""
    lines = sorted(f"{name} {tuple(t.shape)}" for name, t in module.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_source(plan: Plan, module: nn.Module) -> None:
    """Check that a plan was made for this network.

    Raises:
        CompressorError: It was not.
    """
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
    """Make a freshly constructed network as small as the plan says, in place; nothing is traced.

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
    if plan.removal is not None:
        remove(module, plan.removal, plan.stand_ins)
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
            f"{len(plan.stand_ins)} modules run traced operators, "
            f"which are in {FORMATS[PROGRAM].file}",
            where=", ".join(plan.stand_ins),
            consequence="the class cannot be rebuilt from the plan alone",
            next_step="use compressor.load(folder, factory)",
        )
    sliced = program()
    for path, spelled in plan.stand_ins.items():
        part = part_of(sliced, module, path)
        install(module, path, part, Wiring.read(spelled))
