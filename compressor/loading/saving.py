"""`compressor.save`: a model and its example inputs in one file that needs no code to come back."""

import copy
import inspect
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError
from compressor.loading.inputs import normalise_examples
from compressor.loading.programs import inspect_program
from compressor.loading.wording import one_line
from compressor.records import ExampleInputs

# they would leak source text and paths, and make the file differ from machine to machine
TRACES = ("stack_trace", "from_node", "source_fn_stack")


def save(model: nn.Module, example_inputs: Any, path: str | os.PathLike[str]) -> None:
    """Write the model with its example inputs as a self-contained `torch.export` program.

    The batch is kept free where the model allows it. The model is not changed; the file appears
    whole or not at all, and an earlier file of that name stays if anything fails.

    Args:
        model: Saved as it is in eval mode.
        example_inputs: A tensor, a tuple of positionals, a dict of keywords, or a pair
            (tuple, dict).
        path: The file, whatever its extension.

    Raises:
        UsageError: The example inputs are of no such form.
        CompressorError: The model cannot be exported, or the file cannot be written.
    """
    target = Path(path)
    examples = normalise_examples(example_inputs)
    program = export(copy.deepcopy(model).eval(), examples)
    program.example_inputs = (examples.args, dict(examples.kwargs))
    _strip_traces(program.graph_module)
    with _written_whole(target) as temporary:
        with temporary.open("wb") as file:
            torch.export.save(program, file)
        inspect_program(temporary)


def export(model: nn.Module, examples: ExampleInputs) -> ExportedProgram:
    """Export in eval mode, with a free batch if possible, else with the given sizes.

    Raises:
        CompressorError: The model does not run on the examples, or export refuses it.
    """
    args, kwargs = examples.args, dict(examples.kwargs)
    attempts = [(args, kwargs, None)]
    if _share_batch(args, kwargs):
        batched = pytree.tree_map(_at_least_two, (args, kwargs))
        attempts.insert(0, (*batched, _free_batch(model, *batched)))
    failure: Exception | None = None
    for positionals, keywords, shapes in attempts:
        try:
            with torch.no_grad(), _plain_attention():
                return torch.export.export(
                    model, positionals, keywords, dynamic_shapes=shapes, strict=False
                )
        except Exception as error:
            failure = error
    raise CompressorError(
        f"the model cannot be exported: {one_line(failure or RuntimeError())}",
        where="torch.export",
        consequence="nothing was written",
        next_step="check that model(*example_inputs) runs; a forward whose branches depend on "
        "values cannot be exported: save a state dict and use --factory",
    ) from failure


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _share_batch(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    tensors = _tensors((args, kwargs))
    return bool(tensors) and len({t.shape[0] if t.ndim else None for t in tensors} - {None}) == 1


def _at_least_two(leaf: Any) -> Any:
    """A batch of one silently becomes a constant in the export."""
    if isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == 1:
        return leaf.repeat(2, *[1] * (leaf.ndim - 1))
    return leaf


def _free_batch(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    batch = Dim("batch")
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except TypeError:
        return None
    return pytree.tree_map(
        lambda leaf: {0: batch} if isinstance(leaf, Tensor) and leaf.ndim else None, dict(bound)
    )


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused fast path, whose single operator hides the layers inside."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _strip_traces(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            for node in part.graph.nodes:
                for key in TRACES:
                    node.meta.pop(key, None)


@contextmanager
def _written_whole(target: Path) -> Iterator[Path]:
    """A temporary file beside the target that takes its name once all is written."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        os.close(handle)
        yield Path(temporary)
        Path(temporary).replace(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _unwritable(target: Path, error: OSError) -> CompressorError:
    return CompressorError(
        f"{target} cannot be written: {error.strerror or error}",
        where=str(target),
        consequence="nothing was written",
        next_step="give a file in an existing folder that you may write to",
    )
