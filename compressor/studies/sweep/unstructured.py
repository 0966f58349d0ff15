"""Prune single weights by global magnitude, as a reference: zeros, not a smaller network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compressor.choose.budget import share_of
from compressor.errors import CompressorError
from compressor.graph.costs import costs_of
from compressor.graph.counting import count_params
from compressor.graph.programs.nodes import argument, operator_of
from compressor.graph.rules.facts import WEIGHING
from compressor.loading.data import batches
from compressor.records import Trace
from compressor.recover import Schedule, has_running_statistics, recalibrate_batch_norm
from compressor.run.journal import Journal
from compressor.run.judging import Judge, Moment
from compressor.run.opened import Run
from compressor.run.training_legs import AT_THE_END, Leg, beginning_of, train
from compressor.slicing.weights import named_tensors


@dataclass(frozen=True)
class Sparse:
    """A network with zeroed weights.

    Attributes:
        params: Number of elements in its parameters without the zeros.
        macs: Multiply-adds of one sample without those by zeros.
        moments: Its steps, with the metrics after each.
    """

    params: int
    macs: int
    moments: list[Moment]


def zero_and_recover(module: nn.Module, run: Run, judge: Judge) -> Sparse:
    """Zero the smallest share of all parameters that the options say, and recover, in place.

    It recovers by the same means as a smaller network, except least squares; zeros stay zeros.
    """
    options = run.options
    dense = costs_of(run.trace, run.network)
    masks = zero_share(module, weights_of_layers(run.trace), share_of(options))
    moments = [Moment("zeroed", judge("evaluate zeroed", module))]
    if options.repair and run.samples.train is not None:
        moments += _recalibrate(module, run, judge)
    if options.epochs:
        moments += _train_sparse(module, masks, run, judge)
    zeros = {name: int((mask == 0).sum()) for name, mask in masks.items()}
    uses = uses_of_weights(run.trace)
    saved = round(sum(uses.get(name, 0) * count for name, count in zeros.items()))
    return Sparse(dense.params - sum(zeros.values()), dense.macs - saved, moments)


def zero_share(module: nn.Module, weights: Collection[str], share: float) -> dict[str, Tensor]:
    """Zero a share of all of a network's parameters, in place, and return the masks by name.

    Args:
        module: The network.
        weights: Names of its layers' weights; of these those go that are nearest to zero,
            wherever they are.
        share: The share of all parameters.

    Raises:
        CompressorError: The layers have no more weights than that.
    """
    places = [name.rpartition(".") for name, _ in module.named_parameters() if name in weights]
    pairs = [(module.get_submodule(owner), leaf) for owner, _, leaf in places]
    wanted = round(share * count_params(module))
    most = sum(layer.get_parameter(leaf).numel() for layer, leaf in pairs)
    if wanted >= most:
        raise CompressorError(
            f"{share:g} of all parameters are {wanted}, and layers have {most} weights",
            where="the unstructured reference",
            next_step="smaller --ratios, or --no-reference",
        )
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=wanted)
    masks = {}
    for place, (layer, leaf) in zip(places, pairs, strict=True):
        masks["".join(place)] = layer.get_buffer(f"{leaf}_mask").clone()
        prune.remove(layer, leaf)  # type: ignore[no-untyped-call]
    return masks


def weights_of_layers(trace: Trace) -> set[str]:
    """Return the names of the matrices and kernels that linear layers and convolutions take.

    Those that something else takes as well (an embedding's rows), or that are tied to others, are
    left out. What a layer's weight is called does not matter.
    """
    named = list(trace.module.named_parameters(remove_duplicate=False))
    uses = Counter(id(parameter) for _, parameter in named)
    others = {name for name, parameter in named if uses[id(parameter)] > 1}
    weights = set[str]()
    for program in filter(None, (trace.program, trace.training)):
        parameters = program.graph_signature.inputs_to_parameters
        for node in program.graph.nodes:
            weighing = WEIGHING.get(operator_of(node))
            weight = None if weighing is None else argument(node, weighing.weight)
            for given in node.all_input_nodes if node.op == "call_function" else ():
                name = parameters.get(given.name)
                if name is not None and given.meta["val"].dim() > 1:
                    (weights if given is weight else others).add(name)
    return weights - others


_OUTPUT, _INPUT = "output", "input"
_MEETS: Mapping[str, tuple[str, int]] = {
    "linear": (_OUTPUT, -1),
    "convolution": (_OUTPUT, 1),
    "transposed convolution": (_INPUT, 1),
}
"""What an operator with a weight computes -> whether each of the weight's numbers is used once at
each position of the output or of the input, and in which dimension of that the channels lie."""


def uses_of_weights(trace: Trace) -> dict[str, float]:
    """Return in how many multiply-adds of a sample each number of a weight takes part, by its name.

    Weights of other operators are not named: their zeros save nothing that is known.
    """
    named = trace.program.graph_signature.inputs_to_parameters
    uses: dict[str, float] = {}
    for node in trace.program.graph.nodes:
        weighing = WEIGHING.get(operator_of(node))
        of = _MEETS.get(weighing.form) if weighing is not None else None
        if of is None:
            continue
        data, weight = node.args[:2]
        shape = [_size(dim) for dim in (node if of[0] == _OUTPUT else data).meta["val"].shape]
        positions = math.prod(shape) / shape[of[1]] / trace.batch
        parameter = named.get(str(weight))
        if parameter is not None:
            uses[parameter] = uses.get(parameter, 0) + positions
    return uses


def _size(dim: Any) -> int:
    """Return a size as a number; a symbol's is what it stood for when the network was traced."""
    return dim if isinstance(dim, int) else int(dim.node.hint)


def _recalibrate(module: nn.Module, run: Run, judge: Judge) -> list[Moment]:
    options, train = run.options, run.samples.train
    assert train is not None
    if not has_running_statistics(run.trace.program.graph_module):
        return []
    some = batches(
        train, options.batch_size, seed=options.seed, limit=options.calibration, drop_last=True
    )
    with run.stopwatch.stage("re-estimate batch norm") as tick:
        used = recalibrate_batch_norm(module, some, options.device, tick)
    if not used:
        return []
    step = f"batch norm re-estimated on {used} samples"
    return [Moment(step, judge("evaluate repaired", module))]


def _train_sparse(
    module: nn.Module, masks: Mapping[str, Tensor], run: Run, judge: Judge
) -> list[Moment]:
    moments, beginning = list[Moment](), beginning_of(run)
    if beginning is not None:
        dense, words = beginning
        module.load_state_dict(dense.state_dict())
        _apply(module, masks)
        metrics = judge("evaluate what training begins with", module)
        moments.append(Moment(words, metrics))
    _keep_zeros(module, masks)
    epochs = run.options.epochs
    leg = Leg(epochs, Schedule(epochs), AT_THE_END)
    return moments + train(run, module, judge, leg, Journal())


def _apply(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    tensors = named_tensors(module)
    with torch.no_grad():
        for name, mask in masks.items():
            tensors[name].mul_(mask)


def _keep_zeros(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Keep zeros exactly zero during training, by hooks on the parameters.

    No gradient reaches a zero, and so neither momentum nor decay changes it.
    """
    for name, parameter in module.named_parameters():
        if name in masks:
            learns = parameter.requires_grad
            parameter.requires_grad_(True)  # else torch registers no hook
            parameter.register_hook(partial(_mask_gradient, masks[name]))  # type: ignore[no-untyped-call]
            parameter.requires_grad_(learns)


def _mask_gradient(mask: Tensor, gradient: Tensor) -> Tensor:
    return gradient * mask.to(gradient.device)
