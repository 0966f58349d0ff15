"""Call an ONNX file as a module is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.machine import cores
from compressor.quiet import root_message
from compressor.runtimes.inputs import feeds_for
from compressor.runtimes.onnx import open_session


def call_once(path: Path, feeds: Mapping[str, Tensor], samples: int | None = None) -> None:
    """Call the file once on ONNX Runtime's CPU, to see whether it runs.

    Args:
        path: The file.
        feeds: Inputs by name.
        samples: Use only so many of the samples, for a file that is made for so many.

    Raises:
        CompressorError: ONNX Runtime does not load or run it.
    """
    try:
        session = open_session(path, cores())
        given = {n: feed[:samples] if feed.dim() else feed for n, feed in feeds.items()}
        session.run(None, feeds_for(session, {name: feed.numpy() for name, feed in given.items()}))
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
        raise CompressorError(
            f"ONNX Runtime could not run the file: {root_message(error)}",
            where=str(path),
            next_step="report it with the network, and deploy the .pt2 program",
        ) from error


class FileModule(nn.Module):
    """A module that runs a file on the CPU: the network's inputs in, a tuple of tensors out.

    A file whose batch is fixed gets the samples in parts of that size, the last one filled up.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, Any]], Sequence[Any]],
        batch: int | None,
        names: tuple[str, ...],
    ) -> None:
        """Take what runs the file.

        Args:
            run: Computes the outputs, as arrays, from arrays by name.
            batch: The samples of a call; None where any number will do.
            names: The network's inputs in order; the file may lack some that it has no use for.
        """
        super().__init__()
        self._run_file, self._batch, self._names = run, batch, names

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        call = Call(args, kwargs)
        inputs, samples = call.leaves, call.samples
        size = self._batch or samples
        parts = [self._run(inputs, start, size) for start in range(0, samples, size)]
        return tuple(torch.cat(part)[:samples] for part in zip(*parts, strict=True))

    def _run(self, inputs: list[Tensor], start: int, size: int) -> list[Tensor]:
        feeds: dict[str, Any] = {}
        for name, whole in zip(self._names, inputs, strict=False):
            part = whole[start : start + size]
            filling = part[-1:].expand(size - len(part), *part.shape[1:])
            feeds[name] = torch.cat([part, filling]).numpy()
        return [torch.from_numpy(output) for output in self._run_file(feeds)]


class OnnxModule(FileModule):
    """A module that runs an ONNX file on the CPU."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        """Open the file; the names are those of the network's inputs, in order."""
        session = open_session(path, cores())
        sizes = [spec.shape[0] for spec in session.get_inputs() if spec.shape]
        batch = next((size for size in sizes if isinstance(size, int)), None)
        super().__init__(lambda feeds: session.run(None, feeds_for(session, feeds)), batch, names)
