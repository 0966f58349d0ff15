"""Write a model and its example inputs into one file that needs no code: `compressor.save`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import CompressorError
from compressor.files.whole_file import write_whole
from compressor.formats import save_program
from compressor.graph.trace import copy_to_cpu, trace
from compressor.loading import inspect_program, normalise_examples
from compressor.loading.plain import make_plain
from compressor.records import ExampleInputs
from compressor.unexpected import Explaining


def save(model: nn.Module, example_inputs: Any, path: str | os.PathLike[str]) -> None:
    """Write the model with its example inputs as a self-contained `torch.export` program.

    The batch is kept free where the model allows it; weights that are computed from others are
    saved as they act. The model is not changed; the file appears whole or not at all, and an
    earlier file of that name stays if anything fails.

    Args:
        model: Saved as it is in eval mode.
        example_inputs: A tensor, a tuple of positionals, a dict of keywords, or a pair
            (tuple, dict).
        path: The file, whatever its extension.

    Raises:
        UsageError: The example inputs are of no such form.
        CompressorError: The model cannot be exported, or the file cannot be written.
    """
    with Explaining():
        _save(model, normalise_examples(example_inputs), Path(path))


def _save(model: nn.Module, examples: ExampleInputs, path: Path) -> None:
    traced = trace(make_plain(model, copy_to_cpu).module, examples)
    if traced.branched or traced.ends_after:
        raise CompressorError(
            "the model cannot be exported whole: its forward branches on values",
            consequence="nothing was written, since the file would hold a part of it only",
            next_step="save a state dict, and use it with --factory",
        )
    program = traced.program
    for name, parameter in program.state_dict.items():
        parameter.requires_grad_(name in traced.learning)
    program.example_inputs = (examples.args, dict(examples.kwargs))
    with write_whole(path) as temporary:
        save_program(program, temporary)
        inspect_program(temporary)
