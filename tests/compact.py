"""The dense network without what a choice drops: consumers ignore it, statistics leave it out."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from compressor.graph.axes import keep_mask
from compressor.graph.network import Network, Shape
from compressor.records import Trace
from compressor.slicing import as_module

Left = Callable[[int], Tensor]
"""Dimension of a tensor -> the positions in it that stay, int64."""


class CompactTwin(nn.Module):
    """The traced program at full size, returning the tensors that it returns without what is
    dropped.

    Every consumer's columns are zero. Where two activations are contracted or a statistic is
    taken, the producers' rows are zero too, and statistics are taken over what is left.
    """

    def __init__(self, traced: Trace, network: Network, keep: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.program = as_module(copy.deepcopy(traced.program))
        masks = network.masks(keep)
        self.runner = _Compact(self.program, network, masks)
        for group in network.groups:
            for member in group.members if group.name in keep else ():
                if member.contracted or group.role in ("head_width", "stream"):
                    expression = network.tensors[member.tensor][member.dim]
                    lost = torch.from_numpy((~keep_mask(expression, masks)).nonzero()[0])
                    owner, _, leaf = member.tensor.rpartition(".")
                    tensor = getattr(self.program.get_submodule(owner), leaf)
                    tensor.detach().index_fill_(member.dim, lost, 0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        flat = pytree.tree_leaves((args, kwargs))
        return self.runner.run(*flat, enable_io_processing=False)


class _Compact(Interpreter):
    def __init__(self, program: Any, network: Network, masks: Mapping[Any, Any]) -> None:
        super().__init__(program)
        self.network, self.masks = network, masks

    def run_node(self, node: Node) -> Any:
        compute = STATISTICS.get(str(node.target))
        if compute is None:
            return super().run_node(node)
        shape = self._shape(node.args[0])
        args, named = self.fetch_args_kwargs_from_env(node)
        left = lambda dim: torch.from_numpy(keep_mask(shape[dim], self.masks).nonzero()[0])  # noqa: E731
        return compute(left, *args, **named)

    def _shape(self, node: Any) -> Shape:
        if node.target is operator.getitem:
            return self.network.nodes[node.args[0].name].outputs[node.args[1]]
        if node.op == "get_attr":
            return self.network.tensors[node.target]
        return self.network.nodes[node.name].outputs[0]


def _last(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A norm over the last dimension."""

    def compute(left: Left, x: Tensor, shape: Any, *vectors: Any) -> Tensor:
        stays = left(-1)
        given = [v[stays] if isinstance(v, Tensor) else v for v in vectors]
        out = torch.zeros_like(x)
        out[..., stays] = norm(x[..., stays], [len(stays)], *given)
        return out

    return compute


def _group_norm(
    left: Left, x: Tensor, groups: int, weight: Tensor, bias: Tensor, *rest: Any
) -> Tensor:
    stays = left(1)
    count = len(torch.unique(stays // (x.shape[1] // groups)))
    out = torch.zeros_like(x)
    out[:, stays] = torch.group_norm(x[:, stays], count, weight[stays], bias[stays], *rest)
    return out


def _over(statistic: Callable[..., Tensor], at: int = 0) -> Callable[..., Tensor]:
    """A statistic over listed dimensions: its argument number `at` after the tensor."""

    def compute(left: Left, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        for dim in rest[at]:
            x = x.index_select(dim, left(dim))
        return statistic(x, *rest, **named)

    return compute


STATISTICS: Mapping[str, Callable[..., Tensor]] = {
    "aten.layer_norm.default": _last(torch.ops.aten.layer_norm),
    "aten.rms_norm.default": _last(torch.ops.aten.rms_norm),
    "aten.group_norm.default": _group_norm,
    "aten.mean.dim": _over(torch.mean),
    "aten.var.dim": _over(torch.ops.aten.var.dim),
    "aten.linalg_vector_norm.default": _over(torch.ops.aten.linalg_vector_norm, at=1),
}
"""How a statistic is taken over what is left, by overload."""
