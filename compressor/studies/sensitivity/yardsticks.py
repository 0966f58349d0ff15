"""Say what a network that lacks something is measured by: its metric, or how far outputs move."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError
from compressor.loading.data import batches
from compressor.metrics import LOWER
from compressor.options import SensitivityOptions
from compressor.records import ExampleInputs
from compressor.run.opened import Opened
from compressor.run.subject import measure_of
from compressor.slicing.compare import outputs_of

RELATIVE_MSE = "relative_mse"


@dataclass(frozen=True)
class Yardstick:
    """What is measured of a network.

    Attributes:
        metric: Its name.
        better: "higher" or "lower".
        measure: Returns the metric of a module that is called as the network is.
        batches: Number of samples in each batch that it is measured on.
        words: What it is measured on, in words.
    """

    metric: str
    better: str
    measure: Callable[[nn.Module], float]
    batches: tuple[int, ...]
    words: str

    @property
    def samples(self) -> int:
        """Return the number of samples that it is measured on."""
        return sum(self.batches)


def yardstick_of(opened: Opened, options: SensitivityOptions) -> Yardstick:
    """Return the metric where there are labels or one is named, else the error of the outputs.

    Raises:
        CompressorError: The outputs are zero or not finite.
    """
    samples, module = opened.samples, opened.trace.module.to(options.device)
    data = samples.test
    if data is None:
        divergence = _Divergence(module, [opened.trace.examples], options.device)
        words = f"the example inputs ({opened.examples.origin})"
        return Yardstick(RELATIVE_MSE, LOWER, divergence, (opened.trace.batch,), words)
    held = list(batches(data, options.batch_size, seed=options.seed, limit=options.samples))
    sizes = tuple(inputs.samples for inputs, _ in held)
    words = f"{sum(sizes)} samples of {data.name}"
    measure = measure_of(opened.subject, options, data)
    if measure.is_beside_original and options.metric is None:
        calls = [ExampleInputs(inputs.args, inputs.kwargs) for inputs, _ in held]
        divergence = _Divergence(module, calls, options.device)
        return Yardstick(RELATIVE_MSE, LOWER, divergence, sizes, words)

    def judge(of: nn.Module) -> float:
        return measure.all_of(of, held, options.device, original=module)[measure.name]

    return Yardstick(measure.name, measure.scale.better, judge, sizes, words)


class _Divergence:
    """The error Σ |y - y0|² / Σ |y0|² over all floating outputs, y0 the uncut network's."""

    def __init__(self, module: nn.Module, calls: Sequence[ExampleInputs], device: str) -> None:
        self.calls, self.device = calls, device
        self.reference = list(self._outputs(module))
        self.square = sum(float(y.square().sum()) for y in self.reference)
        if not self.square > 0 or not math.isfinite(self.square):
            what = "zero" if self.square == 0 else "not finite"
            raise CompressorError(
                f"the network's outputs are {what} for these inputs: there is nothing to compare",
                consequence="no sensitivity was measured",
                next_step="give --data, other inputs, or a network with trained weights",
            )

    def __call__(self, module: nn.Module) -> float:
        pairs = zip(self._outputs(module.to(self.device)), self.reference, strict=True)
        return sum(float((y - before).square().sum()) for y, before in pairs) / self.square

    def _outputs(self, module: nn.Module) -> Iterator[Tensor]:
        for call in self.calls:
            args, kwargs = pytree.tree_map_only(
                Tensor, lambda leaf: leaf.to(self.device), (call.args, dict(call.kwargs))
            )
            for output in outputs_of(module, ExampleInputs(args, kwargs)):
                if output.is_floating_point():
                    yield output.cpu().double()
