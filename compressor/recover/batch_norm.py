"""Re-estimate batch-norm statistics on data."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from compressor.errors import CompressorError
from compressor.recover.evaluation import Batches, Progress, call, to_eval, watch_batches

_NATIVE = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
_BATCH_NORMS: dict[Any, tuple[str, ...]] = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", *_NATIVE[5:]),
    torch.batch_norm: (*_NATIVE, "cudnn_enabled"),
    torch.ops.aten.batch_norm.default: (*_NATIVE, "cudnn_enabled"),
}
"""Every function that computes batch norm (torch.nn's layers, a program's node) -> the names of
its arguments."""


class _Recalibration(TorchFunctionMode):
    """A mode in which batch norms that run on running statistics re-estimate them instead.

    The estimate is cumulative: after each call, running statistics are the average over all
    calls so far, weighted by their values. The mode sees the call itself, so it serves the user's
    class and the program, and leaves all else (dropout) as it is.
    """

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.seen: dict[int, int] = {}
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _BATCH_NORMS:
            return func(*args, **kwargs)
        call = dict(zip(_BATCH_NORMS[func], args, strict=False)) | kwargs
        if call.get("running_mean") is not None:
            call |= self._estimate(call["input"], call["running_mean"], call["running_var"])
        return func(**call)

    def _estimate(self, x: Tensor, mean: Tensor, var: Tensor) -> dict[str, Any]:
        """Return the arguments with which a batch norm's call updates its statistics."""
        values, seen = x.numel() // x.shape[1], self.seen.get(id(mean), 0)
        if values < 2 and seen:  # a last batch of one sample has no variance to add
            return {}
        if values < 2:
            raise CompressorError(
                "batch norm cannot be re-estimated: a batch holds one value per channel, "
                "which has no variance",
                where=self.names.get(id(mean), ""),
                next_step="use batches of two samples or more",
            )
        if not seen:
            for statistic, start in ((mean, 0.0), (var, 1.0)):
                self.before.append((statistic, statistic.clone()))
                statistic.fill_(start)  # 0 times an old NaN would stay NaN
        self.seen[id(mean)] = seen + values
        return {"training": True, "momentum": values / (seen + values)}

    def check(self) -> None:
        for statistic, _ in self.before:
            if not statistic.isfinite().all():
                raise CompressorError(
                    "a batch norm sees activations that are not finite",
                    where=self.names.get(id(statistic), ""),
                    consequence="its statistics were left as they were",
                    next_step="check the data and the weights for NaN",
                )

    def restore(self) -> None:
        for statistic, old in self.before:
            statistic.copy_(old)


def has_running_statistics(program: fx.GraphModule) -> bool:
    """Return whether a captured program has a batch norm with running statistics, in any graph."""
    at = _NATIVE.index("running_mean")
    return any(
        node.target is torch.ops.aten.batch_norm.default and node.args[at] is not None
        for module in program.modules()
        if isinstance(module, fx.GraphModule)
        for node in module.graph.nodes
    )


def recalibrate_batch_norm(
    module: nn.Module,
    batches: Batches,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> int:
    """Re-estimate the running mean and variance of every batch norm on the batches, in place.

    All else stays in eval mode (dropout is off); labels are not used; parameters stay. The module
    is moved to `device` and left there, in eval mode. Where it fails, or is interrupted, the old
    statistics are back.

    Returns:
        How many samples were used; 0 if no batch norm with running statistics was met.

    Raises:
        CompressorError: A batch has one value per channel, activations are not finite, or the
            network fails on a batch.
    """
    to_eval(module.to(device))
    names = {id(buffer): name.rpartition(".")[0] for name, buffer in module.named_buffers()}
    mode, samples = _Recalibration(names), 0
    try:
        with torch.no_grad():
            for inputs, _ in watch_batches(batches, device, progress, "batch norm"):
                with mode:
                    call(module, inputs)
                if not mode.seen:
                    return 0
                samples += inputs.samples
        mode.check()
    except BaseException:
        mode.restore()
        raise
    return samples
