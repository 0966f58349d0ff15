"""Write a program as a `torch.export` archive."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from compressor.errors import CompressorError
from compressor.formats.output import first_line, silence, write
from compressor.graph.programs.containers import make_plain_for_a_while

_SOURCE_META = ("stack_trace", "source_fn_stack", "torch_fn", "from_node")


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write the program as a `torch.export` archive, the same bytes for the same program.

    The archive has no stack traces and source paths, and tuples in place of named tuples and of
    objects that the program takes or returns. The program itself keeps them.

    Raises:
        CompressorError: The program cannot be serialised, or the file cannot be written.
    """
    buffer = io.BytesIO()  # a file's own name would stand in the archive
    with silence(), _without_source(program):
        try:
            with make_plain_for_a_while(program):
                torch.export.save(program, buffer)
        except Exception as error:  # the serialiser's errors share no base but this one
            raise CompressorError(
                f"the program cannot be serialised: {first_line(error)}",
                where=str(path),
                consequence="there is no .pt2 file",
                next_step="deploy another format (--format onnx), or report it with the network",
            ) from error
    write(path, buffer.getvalue())


@contextlib.contextmanager
def _without_source(program: ExportedProgram) -> Iterator[None]:
    """Take what tells of source files out of every node's metadata; put it back at the end."""
    removed: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, GraphModule) else ():
                taken = {key: node.meta.pop(key) for key in _SOURCE_META if key in node.meta}
                removed.append((node.meta, taken))
        yield
    finally:
        for meta, taken in removed:
            meta.update(taken)
