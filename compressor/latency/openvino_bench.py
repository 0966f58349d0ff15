"""Time layers as OpenVINO runs them on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.clock import repeat
from compressor.latency.kernels import network_of
from compressor.latency.layer_bench import Case, naming
from compressor.latency.sketches import BESIDE
from compressor.latency.statistics import usual
from compressor.runtimes.openvino import compile_network, load_openvino

_LAYOUT = "Reorder"
"""The type of operators that a layer on its own has at its ends and one among others has not."""


@dataclass(frozen=True)
class OpenVinoBench:
    """A bench that times layers by OpenVINO's own record of what each operator took, in float32.

    Each layer is a network of its own. They take turns call by call, so that a machine that slows
    down slows all of them, and none finds its weights in the caches, where it left them.

    Attributes:
        threads: Threads within one operator.
        seconds: How long one layer may be repeated.
        least: How often a slow layer is called all the same.
        most: How often a quick layer is called at most.

    Raises:
        UsageError: OpenVINO is not installed.
    """

    threads: int = 1
    seconds: float = 0.01
    least: int = 3
    most: int = 20

    def __post_init__(self) -> None:
        load_openvino()

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        """Return the milliseconds of each case: the mean of the middle half of its calls.

        Raises:
            CompressorError: OpenVINO cannot run a layer.
        """
        requests = [self._start(case) for case in cases]
        times: list[list[float]] = [[] for _ in requests]
        for _ in repeat(self.seconds * len(requests), self.least, self.most):
            for request, measured in zip(requests, times, strict=True):
                request.infer()
                measured.append(_own_ms(request))
        return [usual(measured[1:]) for measured in times]

    def _start(self, case: Case) -> Any:
        """Compile the layer's network, call it once, and return the request that calls it."""
        tensor = load_openvino().Tensor
        with naming("OpenVINO", case):
            network = network_of(case.kind, case.sizes, case.literals)
            compiled = compile_network(network, self.threads, is_recorded=True)
            request = compiled.create_infer_request()
            for port in compiled.inputs:
                ones = np.ones(list(port.shape), port.element_type.to_dtype())
                request.set_tensor(port, tensor(ones))
            request.infer()
        return request


def _own_ms(request: Any) -> float:
    """Return what the operators of the last call took, without changes of layout and helpers."""
    return 1000 * sum(
        float(each.real_time.total_seconds())
        for each in request.profiling_info
        if each.node_type != _LAYOUT and not each.node_name.startswith(BESIDE)
    )
