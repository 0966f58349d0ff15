"""Convert an ONNX file of one sample to ncnn's files, by the program pnnx."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from compressor import extras
from compressor.errors import CompressorError
from compressor.formats.other_runtimes import does_not_take
from compressor.formats.output import NoRoomError, write
from compressor.python_path import environment
from compressor.runtimes.ncnn import LABEL, RUNTIME
from compressor.runtimes.ncnn_params import Layer, Sizes, read_layers, with_sizes

MOST_SECONDS = 900.0
"""A program that takes longer is taken for one that never ends."""

_KINDS: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "f32",
    onnx.TensorProto.INT64: "i64",
    onnx.TensorProto.INT32: "i32",
}
"""Types of inputs that ncnn has, as pnnx spells them."""

_INPUT = re.compile(r'ex\.input\("(in\d+)", ncnn\.Mat\((.*)\)\.clone\(\)\)')
"""How the script that pnnx writes beside its files gives ncnn an input."""

_HAS_BATCH = re.compile(r"squeeze\(0\)|batch_index=0\b")
"""What stands there for an input whose first size is the batch, which ncnn has not."""


@dataclass(frozen=True)
class _Declared:
    """A tensor that an ONNX file takes or gives."""

    name: str
    kind: int
    sizes: Sizes


def convert(source: Path, path: Path) -> list[Sizes]:
    """Write an ONNX file's network as an ncnn model with weights in float32.

    Args:
        source: The ONNX file, whose sizes are all fixed; pnnx leaves files beside it.
        path: The .param file; the weights go into a .bin file beside it.

    Returns:
        The sizes of the network's outputs, which ncnn gives without those that are one.

    Raises:
        UsageError: pnnx is not installed.
        CompressorError: It fails, or ncnn has no equivalent of an operator.
    """
    inputs, outputs = _declared_in(source)
    made = source.with_suffix(".ncnn.param")
    _run_pnnx(source, inputs, path)
    sizes = _sizes_for_ncnn(source, inputs, path)
    try:
        layers = read_layers(made)
    except (OSError, ValueError) as error:
        raise refused(f"pnnx wrote no file that can be read ({error})", path) from error
    _check_whole(layers, len(inputs), len(outputs), path)
    write(path, with_sizes(made.read_text(encoding="utf-8"), sizes).encode())
    try:
        shutil.copyfile(made.with_suffix(".bin"), path.with_suffix(".bin"))
    except OSError as error:
        raise NoRoomError(
            f"the file cannot be written: {error.strerror or error}",
            where=str(path.with_suffix(".bin")),
            next_step="check the folder's permissions and the free space",
        ) from error
    return [each.sizes for each in outputs]


def prepare_embeddings(model: onnx.ModelProto) -> None:
    """Leave the axis of stored tables unsaid where it is the usual one, in place.

    Only then pnnx takes a look-up for an embedding.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in (each for each in model.graph.node if each.op_type == "Gather"):
        table, index = node.input
        if table in stored and index not in stored:
            kept = [each for each in node.attribute if each.name != "axis" or each.i != 0]
            del node.attribute[:]
            node.attribute.extend(kept)


def refused(why: str, where: Path | str) -> CompressorError:
    """Return the error of a network that cannot be an ncnn model."""
    return does_not_take(RUNTIME, LABEL, why, where)


def _declared_in(source: Path) -> tuple[list[_Declared], list[_Declared]]:
    """Return what an ONNX file takes and gives.

    Raises:
        CompressorError: ncnn has no such types, or the sizes are not fixed.
    """
    graph = onnx.load(str(source), load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [_read(each) for each in graph.input if each.name not in stored]
    outputs = [_read(each) for each in graph.output]
    for each in inputs:
        if each.kind not in _KINDS:
            kind = onnx.TensorProto.DataType.Name(each.kind).lower()
            raise refused(f"its input {each.name} is of type {kind}", source.name)
        if not each.sizes:
            raise refused(f"its input {each.name} is a single number", source.name)
    for each in (*inputs, *outputs):
        if 0 in each.sizes:
            raise refused(f"the sizes of {each.name} are not fixed", source.name)
    return inputs, outputs


def _read(value: Any) -> _Declared:
    kind = value.type.tensor_type
    return _Declared(value.name, kind.elem_type, tuple(d.dim_value for d in kind.shape.dim))


def _run_pnnx(source: Path, inputs: Sequence[_Declared], path: Path) -> None:
    program = Path(extras.load("pnnx", "ncnn models (--format)").EXEC_PATH)
    shapes = (f"[{','.join(map(str, i.sizes))}]{_KINDS[i.kind]}" for i in inputs)
    command = [str(program), source.name, f"inputshape={','.join(shapes)}", "fp16=0"]
    found = run_apart(command, path, source.parent)
    if found.returncode:
        raise refused(f"pnnx {ending_of(found)}", path)


def run_apart(
    command: Sequence[str], path: Path, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that may break down, and return what came of it.

    Raises:
        CompressorError: It cannot be started, or does not end.
    """
    how: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
    how |= {"timeout": MOST_SECONDS, "env": environment(), "cwd": folder}
    try:
        return subprocess.run(command, check=False, **how)
    except subprocess.TimeoutExpired as error:
        raise refused(f"{Path(command[0]).name} took over {MOST_SECONDS:g} s", path) from error
    except OSError as error:
        why = f"{Path(command[0]).name} cannot be run: {error.strerror or error}"
        raise refused(why, path) from error


def ending_of(found: subprocess.CompletedProcess[str]) -> str:
    """Say how a program failed: by which signal, or with which last words."""
    if found.returncode < 0:
        return f"broke down (signal {-found.returncode})"
    last = (found.stderr.strip().splitlines() or [f"status {found.returncode}"])[-1]
    return f"failed: {last[:300]}"


def _sizes_for_ncnn(source: Path, inputs: Sequence[_Declared], path: Path) -> dict[str, Sizes]:
    """Return the sizes of inputs as ncnn gets them: without the batch, by ncnn's names."""
    script = source.with_name(f"{source.stem}_ncnn.py")
    given = dict(_INPUT.findall(script.read_text(encoding="utf-8"))) if script.exists() else {}
    found = {}
    for number, each in enumerate(inputs):
        name = f"in{number}"
        has_batch = bool(_HAS_BATCH.search(given.get(name, ""))) and len(each.sizes) > 1
        if has_batch and each.sizes[0] != 1:
            raise refused(f"it runs one sample a call, and {each.name} has {each.sizes[0]}", path)
        found[name] = each.sizes[1:] if has_batch else each.sizes
        if len(found[name]) > 4:
            raise refused(f"its input {each.name} has {len(each.sizes)} dimensions", path)
    return found


def _check_whole(layers: Sequence[Layer], inputs: int, outputs: int, path: Path) -> None:
    """Check that all operators became ncnn's own, and that no input or output is gone.

    Raises:
        CompressorError: They did not.
    """
    foreign = dict.fromkeys(each.kind for each in layers if "." in each.kind or ":" in each.kind)
    if foreign:
        raise refused(f"it has no operators for {', '.join(foreign)}", path)
    given = {name for each in layers for name in each.outputs}
    lost = [f"in{i}" for i in range(inputs)] + [f"out{i}" for i in range(outputs)]
    if gone := [name for name in lost if name not in given]:
        raise refused(f"pnnx left out {', '.join(gone)}", path)
