"""The dense network without what a choice drops: consumers ignore it, and statistics leave it out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from compressor.axes import Dim, keep_mask
from compressor.network import Network
from compressor.records import Trace
from compressor.slicing import as_module

Masks = Sequence[Tensor]
"""Per dimension the positions that stay, bool."""


class CompactTwin(nn.Module):
    """The traced program at full size, computing what the network without the dropped positions
    does: [program's inputs] -> its output.

    Every consumer's columns are zero. Where two activations are contracted or a statistic is
    taken, the producers' rows are zero too, and means and variances are over what is left.
    """

    def __init__(self, traced: Trace, network: Network, keep: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.module = copy.deepcopy(as_module(traced.program))
        self.network, self.masks = network, network.masks(keep)
        for group in network.groups:
            for member in group.members if group.name in keep else ():
                if member.contracted or group.role in ("head_width", "stream"):
                    expression = network.tensors[member.tensor][member.dim]
                    lost = ~torch.from_numpy(keep_mask(expression, self.masks))
                    owner, _, leaf = member.tensor.rpartition(".")
                    tensor = getattr(self.module.get_submodule(owner), leaf)
                    tensor.detach().index_fill_(member.dim, lost.nonzero()[:, 0], 0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        run = _Compact(self.module, self)
        spec = self.module._in_spec if hasattr(self.module, "_in_spec") else None
        del spec
        flat = pytree.tree_leaves((args, kwargs))
        return run.run(*flat, enable_io_processing=False)

    def left(self, node: Node) -> list[Tensor]:
        """What stays of a node's result, per dimension."""
        name = str(node.target) if node.op == "get_attr" else node.name
        shape: Sequence[Dim] = (
            self.network.tensors[name]
            if node.op == "get_attr"
            else self.network.nodes[name].outputs[0]
        )
        return [torch.from_numpy(keep_mask(dim, self.masks)) for dim in shape]


class _Compact(Interpreter):
    def __init__(self, module: Any, twin: CompactTwin) -> None:
        super().__init__(module)
        self.twin = twin

    def run_node(self, node: Node) -> Any:
        compute = STATISTICS.get(str(node.target))
        if compute is None:
            return super().run_node(node)
        args, _ = self.fetch_args_kwargs_from_env(node)
        return compute(self.twin.left(node.args[0]), *args)


def _last(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A norm over the last dimension."""

    def compute(left: Masks, x: Tensor, shape: Any, *vectors: Any) -> Tensor:
        stays = left[-1]
        given = [v[stays] if isinstance(v, Tensor) else v for v in vectors]
        out = torch.zeros_like(x)
        out[..., stays] = norm(x[..., stays], [int(stays.sum())], *given)
        return out

    return compute


def _group_norm(
    left: Masks, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    stays = left[1]
    count = int(stays.view(groups, -1).any(1).sum())
    out = torch.zeros_like(x)
    out[:, stays] = F.group_norm(x[:, stays], count, weight[stays], bias[stays], eps)
    return out


def _over(statistic: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A statistic over listed dimensions."""

    def compute(left: Masks, x: Tensor, dims: list[int], *rest: Any, **named: Any) -> Tensor:
        for dim in dims:
            x = x.index_select(dim, left[dim].nonzero()[:, 0])
        return statistic(x, dims, *rest, **named)

    return compute


STATISTICS: Mapping[str, Callable[..., Tensor]] = {
    "aten.layer_norm.default": _last(F.layer_norm),
    "aten.rms_norm.default": _last(F.rms_norm),
    "aten.group_norm.default": _group_norm,
    "aten.mean.dim": _over(torch.mean),
    "aten.var.dim": _over(torch.var),
    "aten.var.correction": _over(torch.var),
}
"""How a statistic is taken over what is left, by overload."""
