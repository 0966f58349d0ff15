"""State dicts: found inside checkpoints, freed of wrappers' prefixes, loaded strictly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.errors import CompressorError, UsageError
from compressor.loading.pickles import load_torch_save
from compressor.loading.sniff import FileKind, sniff
from compressor.loading.wording import cut_list, one_line

StateDict = dict[str, Tensor]

# where training scripts keep the weights, likeliest first
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params",
    "model_ema", "ema", "student", "teacher", "backbone",
)  # fmt: skip
WRAPPER_PREFIXES = ("module.", "model.", "net.", "network.")
COMPILED_PREFIX = "_orig_mod."
BATCH_COUNTER = ".num_batches_tracked"


def read_weights(path: Path, *, trust_pickle: bool) -> StateDict:
    """The state dict in any file that holds one, or a pickled module's own, on the CPU.

    Raises:
        CompressorError: The file holds no state dict, or is not safe or not possible to read.
    """
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}",
            where="--weights",
            next_step="give a state dict: .pt or .pth by torch.save, or .safetensors",
        )
    kind = sniff(path)
    if kind is FileKind.SAFETENSORS:
        return read_safetensors(path)
    if kind not in (FileKind.TORCH_SAVE, FileKind.PICKLE):
        raise CompressorError(
            f"{path.name} is {kind}, and weights are needed",
            where=str(path),
            next_step="give a state dict: .pt or .pth by torch.save, or .safetensors",
        )
    content = load_torch_save(path, kind, trust_pickle=trust_pickle)
    found = find_content(content)
    if isinstance(found, nn.Module):
        return dict(found.state_dict())
    if found is None:
        raise CompressorError(
            f"{path.name} holds {describe(content)}, no weights",
            where=str(path),
            next_step="give a state dict: .pt or .pth by torch.save, or .safetensors",
        )
    return found


def read_safetensors(path: Path) -> StateDict:
    """The tensors of a safetensors file, on the CPU. Raises CompressorError if it is damaged."""
    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CompressorError(
            f"{path.name} is a damaged or truncated safetensors file ({one_line(error)})",
            where=str(path),
            consequence="nothing was loaded",
            next_step="copy or save the file again",
        ) from error


def find_content(content: Any) -> nn.Module | StateDict | None:
    """The module or state dict in what a checkpoint holds, or None."""
    if isinstance(content, nn.Module):
        return content
    if not isinstance(content, Mapping):
        return None
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and len(tensors) == len(_without_extras(content)):
        return tensors
    nested = [content[key] for key in USUAL_KEYS if key in content]
    for value in (*nested, *content.values()):
        if isinstance(value, Mapping | nn.Module) and value is not content:
            found = find_content(value)
            if found is not None:
                return found
    return None


def describe(content: Any) -> str:
    """What an object is, for a sentence: its type, and the keys of a dict."""
    if isinstance(content, Mapping):
        keys = cut_list(str(key) for key in content)
        return f"a dict with the keys {keys}" if content else "an empty dict"
    return f"an object of type {type(content).__name__}"


def load_strictly(module: nn.Module, given: StateDict, where: str) -> dict[str, torch.dtype]:
    """Load every tensor, or say which are missing, unexpected or of another shape.

    Returns:
        The types of the tensors in the file that the module has in another.

    Raises:
        CompressorError: With all three lists, cut to a readable length. The module is unchanged.
    """
    expected = {
        key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)
    }
    state = fit_keys(given, expected)
    covered = {_place(expected[key]) for key in expected if key in state}
    missing = [
        key
        for key in expected
        if key not in state
        and not key.endswith(BATCH_COUNTER)
        and _place(expected[key]) not in covered
    ]
    unexpected = [key for key in state if key not in expected]
    misshaped = [
        f"{key}: {_shape(state[key])} in the file, {_shape(tensor)} in the model"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    mistyped = [
        f"{key}: {state[key].dtype} in the file, {tensor.dtype} in the model"
        for key, tensor in expected.items()
        if key in state and state[key].is_floating_point() != tensor.is_floating_point()
    ]
    lists = (
        *(("missing", missing), ("unexpected", unexpected)),
        *(("mis-shaped", misshaped), ("of another kind", mistyped)),
    )
    problems = [f"{len(names)} {kind} ({cut_list(names)})" for kind, names in lists if names]
    if problems:
        raise CompressorError(
            "the weights do not fit the model: " + "; ".join(problems),
            where=where,
            consequence="nothing was loaded",
            next_step="check the factory and its arguments, such as --factory-arg num_classes=10",
        )
    module.load_state_dict(state, strict=False)
    types = {name: state[name].dtype for name in expected.keys() & state.keys()}
    return {name: dtype for name, dtype in types.items() if dtype != expected[name].dtype}


def fit_keys(given: StateDict, expected: Mapping[str, Any]) -> StateDict:
    """The state dict with the prefixes of wrappers (data parallel, compiled, …) taken off."""
    state = given
    if not any(COMPILED_PREFIX in key for key in expected):
        state = {key.replace(COMPILED_PREFIX, ""): value for key, value in state.items()}
    for _ in WRAPPER_PREFIXES:
        for prefix in WRAPPER_PREFIXES:
            shorter = {key.removeprefix(prefix): value for key, value in state.items()}
            wrapped = state and all(key.startswith(prefix) for key in state)
            before = _matches(state, expected)
            if wrapped and (not before or _matches(shorter, expected) > before):
                state = shorter
    return state


def _matches(state: Mapping[str, Any], expected: Mapping[str, Any]) -> int:
    return sum(key in expected for key in state)


def _without_extras(content: Mapping[Any, Any]) -> list[Any]:
    return [key for key in content if not str(key).endswith("_extra_state")]


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tied tensors, of which safetensors keeps only one."""
    if tensor.device.type == "meta":
        return (id(tensor),)
    storage = tensor.untyped_storage().data_ptr()
    return (storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
