"""The program as an ONNX file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError, UsageError
from compressor.export.attention import with_attention_written_out
from compressor.export.output import silence, write

_PROTO_LIMIT = 2**31 - 2**20  # bytes of weights that fit into one protobuf with its graph
_KEPT_METADATA = "pkg.torch.onnx.name_scopes"  # the layers' names


def export_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    batch_symbol: str | None,
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
) -> None:
    """Write the program as ONNX: the same bytes for the same program, nothing of its source code.

    The inputs have the program's names. Weights lie inside the file; beyond protobuf's 2 GiB
    beside it, as `<name>.data`.

    Args:
        batch_symbol: The program's symbol for the batch size, called `batch` in the file.
        metadata: What the file says of itself, by name.
        opset: Version of ONNX's operators; default the exporter's.

    Raises:
        CompressorError: the program has an operator that ONNX cannot express, the result is not
            valid, or the file cannot be written.
        UsageError: the program cannot be written with this opset.
    """
    model = _convert(with_attention_written_out(program), opset)
    _strip(model, batch_symbol)
    write_onnx(model, path, metadata or {})


def write_onnx(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Check and write a model that says this of itself; weights beyond 2 GiB lie beside it.

    Raises:
        CompressorError: the model is not valid, or the file cannot be written.
    """
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    try:
        if weights > _PROTO_LIMIT:
            data = f"{path.name}.data"
            path.with_name(data).unlink(missing_ok=True)  # onnx would append to it
            onnx.save_model(model, str(path), save_as_external_data=True, location=data)
            onnx.checker.check_model(str(path))
        else:
            onnx.checker.check_model(model)
            write(path, model.SerializeToString(deterministic=True))
    except onnx.checker.ValidationError as error:
        raise CompressorError(
            f"The exported ONNX model is not valid: {error}",
            where=str(path),
            consequence="Do not deploy it.",
        ) from error


def _convert(program: ExportedProgram, opset: int | None) -> onnx.ModelProto:
    with silence():
        try:
            converted = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=opset)
            assert converted is not None
            model = converted.model_proto
        except Exception as error:  # the exporter's errors share no base but this one
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            raise CompressorError(
                f"The network cannot be written as ONNX: {reason}",
                consequence="There is no ONNX file; the program itself is not affected.",
                next_step="Replace the operator that is named, or deploy the .pt2 program.",
            ) from error
    _check_opset(model, opset)
    return model


def _check_opset(model: onnx.ModelProto, asked: int | None) -> None:
    """The exporter keeps its own version, with a warning, where it cannot convert."""
    found = next(entry.version for entry in model.opset_import if not entry.domain)
    if asked is not None and found != asked:
        raise UsageError(
            f"the network cannot be written with version {asked} of ONNX's operators",
            where="--opset",
            consequence="nothing was written",
            next_step=f"version {found} works",
        )


def _strip(message: Any, batch_symbol: str | None) -> None:
    """Remove source text and notes everywhere; call the batch `batch`."""
    for field, value in message.ListFields():
        if field.name == "metadata_props":
            kept = [entry for entry in value if entry.key == _KEPT_METADATA]
            del value[:]
            value.extend(kept)
        elif field.name == "doc_string":
            message.ClearField("doc_string")
        elif field.name == "dim_param" and batch_symbol:
            message.dim_param = re.sub(rf"\b{re.escape(batch_symbol)}\b", "batch", value)
        elif field.message_type is not None:
            for part in value if isinstance(value, Sequence) else [value]:
                _strip(part, batch_symbol)


def user_inputs(
    program: ExportedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The tensors among a call's arguments, under the names that the ONNX file gives them."""
    order = program.example_inputs[1] if program.example_inputs else kwargs
    ordered = {name: kwargs[name] for name in order if name in kwargs}
    leaves = pytree.tree_leaves((args, ordered))
    names = program.graph_signature.user_inputs
    return {
        str(name): leaf
        for name, leaf in zip(names, leaves, strict=True)
        if isinstance(leaf, Tensor)
    }
