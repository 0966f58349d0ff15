"""Write a program as an ONNX file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compressor.agreement import ONNX, Tolerance
from compressor.errors import CompressorError, UsageError
from compressor.formats.branches import drop_assertions
from compressor.formats.expert_products import words_for_experts
from compressor.formats.older_exporter import convert_traced
from compressor.formats.onnx_operators import read_operators_once
from compressor.formats.output import NoRoomError, write
from compressor.formats.plain_attention import write_attention_out
from compressor.graph.programs.lstm_states import correct_lstm_states
from compressor.quiet import root_message, silence

_PROTO_LIMIT = 2**31 - 2**20  # bytes of weights that fit into one protobuf with its graph
_KEPT_METADATA = "pkg.torch.onnx.name_scopes"  # the layers' names


@dataclass(frozen=True)
class Route:
    """One route to write a program as ONNX.

    Attributes:
        exporter: Its name, for messages.
        convert: Converts a program with an opset (None: the exporter's own).
        free_batch: Whether a free batch stays free; else it is fixed at one sample.
        is_own: Whether it is the graph of the file that the network came from; what that says of
            itself stays.
        tolerance: How far what ONNX Runtime computes may be off.
        finish: Changes the model last, in place.
    """

    exporter: str
    convert: Callable[[ExportedProgram, int | None], onnx.ModelProto]
    free_batch: bool
    is_own: bool = False
    tolerance: Tolerance = ONNX
    finish: Callable[[onnx.ModelProto], None] = lambda model: None

    @property
    def words(self) -> str:
        """The route in words, for a message."""
        return f"{self.exporter}, {'free' if self.free_batch else 'fixed'} batch"


def export_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    batch_symbol: str | None,
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
    routes: Sequence[Route] | None = None,
    check: Callable[[Route], None] = lambda route: None,
) -> Route:
    """Write the program as ONNX on the first route that works.

    The same program gives the same bytes, with nothing of its source code. The inputs have the
    program's names. Weights lie inside the file; beyond protobuf's 2 GiB beside it, as
    `<name>.data`.

    Args:
        program: The program; not changed.
        path: The file.
        batch_symbol: The program's symbol for the batch size, called `batch` in the file.
        metadata: What the file says of itself, by name.
        opset: Version of ONNX's operators; default the exporter's.
        routes: What is tried, in this order; default all that suit the batch and the opset.
        check: Raises CompressorError where the file that was written on a route will not do.

    Returns:
        The route on which it was written.

    Raises:
        CompressorError: No route works, for the reasons given, or the file cannot be written.
        UsageError: The program cannot be written with this opset.
    """
    failures: list[tuple[Route, CompressorError]] = []
    for route in routes_of(batch_symbol, opset) if routes is None else routes:
        try:
            write_onnx(_model_on(route, program, batch_symbol, opset), path, metadata or {})
            check(route)
        except NoRoomError:
            raise
        except CompressorError as error:
            failures.append((route, error))
        else:
            return route
    raise _no_route(failures, opset)


def _model_on(
    route: Route, program: ExportedProgram, batch_symbol: str | None, opset: int | None
) -> onnx.ModelProto:
    fixed = batch_symbol is not None and not route.free_batch and not route.is_own
    model = _convert(capture_for(program, 1) if fixed else program, route, opset)
    if not route.is_own:
        _strip(model, batch_symbol)
    route.finish(model)
    return model


def routes_of(batch_symbol: str | None, opset: int | None = None) -> tuple[Route, ...]:
    """Return the routes to write a program, in the order in which they are tried.

    A free batch comes first, then a fixed one, then the older exporter. An opset that is asked for
    is mostly one that the older exporter alone writes, and it does so with a free batch; so all
    routes with a free batch come first then.
    """
    routes = ROUTES if batch_symbol is not None else tuple(r for r in ROUTES if not r.free_batch)
    return (
        routes if opset is None else tuple(sorted(routes, key=lambda route: not route.free_batch))
    )


def capture_for(program: ExportedProgram, most: int) -> ExportedProgram:
    """Capture a program whose batch is free again, for so many samples at most.

    It is captured with that many: where a bound is lost on the way to a file, memory is planned for
    what the example had.

    Args:
        program: The program; not changed.
        most: The largest batch; with 1 the batch is fixed.

    Raises:
        CompressorError: It cannot be captured.
    """
    leaves, spec = pytree.tree_flatten(program.example_inputs)
    pairs = list(zip(leaves, _has_free_batch(program), strict=True))
    some = [_of_samples(leaf, most) if is_free else leaf for leaf, is_free in pairs]
    args, kwargs = pytree.tree_unflatten(some, spec)
    module, sizes = program.module(check_guards=False), None
    if most > 1:
        batch = torch.export.Dim("batch", max=most)
        marks = pytree.tree_unflatten([{0: batch} if free else None for _, free in pairs], spec)
        sizes = dict(inspect.signature(module.forward).bind(*marks[0], **marks[1]).arguments)
    try:
        with silence(), torch.no_grad():
            return torch.export.export(
                module, args, dict(kwargs), dynamic_shapes=sizes, strict=False
            )
    except Exception as error:  # torch raises many kinds for what it cannot capture
        raise CompressorError(
            f"the program cannot be captured for a batch of {most} at most: {root_message(error)}",
            next_step="deploy the .pt2 program",
        ) from error


def _of_samples(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """Return so many samples of a tensor's, from the first on again where they are fewer."""
    return tensor[torch.arange(count, device=tensor.device) % len(tensor)]


def _has_free_batch(program: ExportedProgram) -> list[bool]:
    """Return for each input of a program whether its first size is free."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = map(str, program.graph_signature.user_inputs)
    shapes: list[Any] = [getattr(values.get(name), "shape", ()) for name in names]
    return [bool(shape) and not isinstance(shape[0], int) for shape in shapes]


def write_onnx(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Check a model and write it; weights beyond 2 GiB lie beside the file.

    Args:
        model: Gets the metadata as its properties, beside those that it has.
        path: The file.
        metadata: What the file says of itself, by name.

    Raises:
        CompressorError: The model is not valid, or the file cannot be written.
    """
    own = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, dict(sorted({**own, **metadata}.items())))
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    try:
        if weights > _PROTO_LIMIT:
            data = f"{path.name}.data"
            path.with_name(data).unlink(missing_ok=True)  # onnx would append to it
            onnx.save_model(model, str(path), save_as_external_data=True, location=data)
            onnx.checker.check_model(str(path))
        else:
            content = model.SerializeToString(deterministic=True)
            del model  # it takes as much memory as its content, and what checks it once more
            onnx.checker.check_model(content)
            write(path, content)
    except onnx.checker.ValidationError as error:
        raise CompressorError(
            f"the exported ONNX model is not valid: {error}",
            where=str(path),
            consequence="do not deploy it",
            next_step="report it with the network, and deploy the .pt2 program",
        ) from error


def _convert(program: ExportedProgram, route: Route, opset: int | None) -> onnx.ModelProto:
    """Convert the program on one route, with the opset that was asked for.

    Raises:
        CompressorError: The exporter cannot write the program, or not with this opset.
    """
    try:
        with silence():
            model = route.convert(program, opset)
    except Exception as error:  # the exporters' errors share no base but this one
        raise CompressorError(
            f"{route.exporter}: {root_message(error)}",
            next_step="replace the operator that is named, or deploy the .pt2 program",
        ) from error
    found = next(entry.version for entry in model.opset_import if not entry.domain)
    if opset is not None and found != opset:  # this exporter keeps its own, with a warning
        raise CompressorError(
            f"{route.exporter}: writes version {found}", next_step="leave the opset to the exporter"
        )
    return model


def _convert_program(program: ExportedProgram, opset: int | None) -> onnx.ModelProto:
    with read_operators_once(), correct_lstm_states():
        written_out = write_attention_out(drop_assertions(program))
        converted = torch.onnx.export(
            written_out,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            custom_translation_table=words_for_experts(program),
        )
    assert converted is not None
    return converted.model_proto


EXPORTER, OLDER = "torch.onnx's exporter", "torch.onnx's older exporter"

ROUTES = (
    Route(EXPORTER, _convert_program, True),
    Route(EXPORTER, _convert_program, False),
    Route(OLDER, convert_traced, True),
    Route(OLDER, convert_traced, False),
)


def _no_route(
    failures: Sequence[tuple[Route, CompressorError]], opset: int | None
) -> CompressorError:
    """Make the error that says what went wrong on every route, once where it is the same."""
    reasons = list(dict.fromkeys(error.what for _, error in failures))
    if opset is not None:
        return UsageError(
            f"the network cannot be written with version {opset} of ONNX's operators: "
            + "; ".join(reasons),
            where="--opset",
            consequence="nothing was written",
            next_step="another version may do; the default is the exporter's own",
        )
    return CompressorError(
        f"the network cannot be written as ONNX: {'; '.join(reasons)}",
        consequence="there is no ONNX file; the program itself is not affected",
        next_step="replace the operator that is named, or deploy the .pt2 program",
    )


def _strip(message: Any, batch_symbol: str | None) -> None:
    """Remove source text and notes everywhere in a message, in place; call the batch `batch`."""
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
    """Return the tensors among a call's arguments, under their names in the ONNX file."""
    order = program.example_inputs[1] if program.example_inputs else kwargs
    ordered = {name: kwargs[name] for name in order if name in kwargs}
    leaves = pytree.tree_leaves((args, ordered))
    names = program.graph_signature.user_inputs
    return {
        str(name): leaf
        for name, leaf in zip(names, leaves, strict=True)
        if isinstance(leaf, Tensor)
    }
