"""Find the example inputs to work with, each run once before anything relies on it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compressor.agreement import fresh_inputs, map_inputs
from compressor.calls import Call
from compressor.causes import cause_of
from compressor.errors import CompressorError
from compressor.graph.programs.attention_path import unfuse_attention
from compressor.loading.answers import NotFiniteError, refuse_useless
from compressor.loading.foretelling import is_too_large
from compressor.loading.inputs import parse_inputs
from compressor.loading.plain import widen
from compressor.loading.wording import one_line
from compressor.modules import copy_of, shared_copy_of
from compressor.records import ExampleInputs, LoadedModel

# spatial sizes tried for a first convolution, likeliest first; 28 is handwritten digits
IMAGE_SIDES = (224, 32, 64, 28, 299, 384, 512, 128)
SIGNAL_LENGTHS = (1024, 128, 16000)
VOLUME_SIDES = ((16, 112, 112), (32, 32, 32), (8, 32, 32))
SEQUENCE_LENGTH = 16
SHARES = ", between 0 and 1"
"""The end of the origin of inputs between 0 and 1, drawn since others gave no finite output."""
LIKE_A_SAMPLE = "noise shaped like the first sample of the data"


def _spec(*sizes: int) -> str:
    return "x".join(map(str, sizes))


# the first layer of one of these types -> inputs that it could accept, as --input writes them
GUESSES: tuple[tuple[type[nn.Module], Callable[[Any], list[str]]], ...] = (
    (nn.Conv2d, lambda layer: [_spec(1, layer.in_channels, s, s) for s in IMAGE_SIDES]),
    (nn.Conv1d, lambda layer: [_spec(1, layer.in_channels, n) for n in SIGNAL_LENGTHS]),
    (nn.Conv3d, lambda layer: [_spec(1, layer.in_channels, *sides) for sides in VOLUME_SIDES]),
    (nn.Embedding, lambda layer: [f"1x{SEQUENCE_LENGTH}:int64<{layer.num_embeddings}"]),
    (
        nn.RNNBase,
        lambda layer: [
            _spec(1, SEQUENCE_LENGTH, layer.input_size)
            if layer.batch_first
            else _spec(SEQUENCE_LENGTH, 1, layer.input_size)
        ],
    ),
    (
        nn.MultiheadAttention,
        lambda layer: [_spec(1, SEQUENCE_LENGTH, layer.embed_dim)],
    ),
    (
        nn.Linear,
        lambda layer: [
            _spec(1, layer.in_features),
            _spec(1, SEQUENCE_LENGTH, layer.in_features),
        ],
    ),
)


def find_examples(loaded: LoadedModel, specs: Sequence[str], seed: int = 0) -> ExampleInputs:
    """Return the example inputs to work with: given, the model's own, or guessed.

    Args:
        loaded: The model; it is not changed.
        specs: The texts given with `--input`, in order.
        seed: Seed of the values that are drawn.

    Returns:
        Inputs that the model has been run on, with their origin in words.

    Raises:
        UsageError: A spec cannot be read.
        CompressorError: The model does not accept the inputs, or no guess works.
    """
    model = copy_to_try(loaded).eval()
    if specs:
        examples = parse_inputs(specs, seed)
    elif loaded.examples is not None:
        examples = loaded.examples
    else:
        return _guess(model, seed)
    if loaded.types:
        args, kwargs = widen((examples.args, dict(examples.kwargs)))
        examples = replace(examples, args=args, kwargs=kwargs)
    examples, failure = _draw(model, examples) if specs else (examples, try_inputs(model, examples))
    if failure:
        _raise_ours(failure, examples)
        cause = cause_of(failure.error)
        raise CompressorError(
            f"the model does not accept the inputs of {examples.origin} ({_shapes(examples)})"
            + (f": {cause.what}" if cause else ""),
            where=str(failure),
            consequence="the network cannot be traced",
            next_step=cause.next_step
            if cause
            else "give inputs of the right shape: --input [name=]1x3x224x224[:int64<512]",
        )
    return examples


def copy_to_try(loaded: LoadedModel) -> nn.Module:
    """Return a copy of a model to be run on inputs; it shares weights that are nobody else's."""
    return (copy_of if loaded.is_held else shared_copy_of)(loaded.module)


@dataclass(frozen=True)
class Failure:
    """A failed run of the model.

    Attributes:
        where: The layer that raised, in words.
        error: The exception that it raised.
    """

    where: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.where}: {one_line(self.error)}"


def _draw(model: nn.Module, examples: ExampleInputs) -> tuple[ExampleInputs, Failure | None]:
    """Run the model on drawn inputs, and on numbers between 0 and 1 where no output is finite.

    A network that begins with a logarithm needs the second try.

    Returns:
        The inputs that worked, or those given; and the failure, or None if a run worked.
    """
    failure = try_inputs(model, examples)
    if failure is None or not isinstance(failure.error, NotFiniteError):
        return examples, failure
    shares = map_inputs(examples, lambda x: x.sigmoid() if x.is_floating_point() else x)
    again = try_inputs(model, shares)
    if again is not None:
        return examples, failure
    return replace(shares, origin=examples.origin + SHARES), None


def _raise_ours(failure: Failure, examples: ExampleInputs) -> None:
    """Raise a failure's error if it is one of our own, which already says what is wrong."""
    if isinstance(failure.error, CompressorError):
        failure.error.where = f"inputs of {examples.origin} ({_shapes(examples)})"
        raise failure.error


def like_sample(inputs: Call, seed: int) -> ExampleInputs:
    """Return noise of the shapes and types of a sample of the data, given with a batch of one."""
    return _noise_like(ExampleInputs(inputs.args, inputs.kwargs), seed)


def _noise_like(examples: ExampleInputs, seed: int) -> ExampleInputs:
    """Draw values of the same shape, type, kind and range as the example inputs.

    Example inputs are stored with the result, where nobody's data belongs.
    """
    drawn = fresh_inputs(examples, seed)
    return replace(drawn, origin=LIKE_A_SAMPLE)


def try_inputs(model: nn.Module, examples: ExampleInputs) -> Failure | None:
    """Run the model once, and return None if it works, else the layer that raised and its error.

    Outputs that hold nothing to compare are a failure too (`refuse_useless`). The model should be a
    copy in eval mode: a forward may write to its buffers. Layers inside a function of a
    higher-order operator (torch.cond) are not told apart, since such a function may not change what
    lies outside.
    """
    entered: list[str] = []
    hooks = []
    for path, layer in model.named_modules():
        enter = _remember(
            entered, f"layer {path} ({type(layer).__name__})" if path else "the model"
        )
        hooks.append(layer.register_forward_pre_hook(enter))
        hooks.append(layer.register_forward_hook(_forget(entered)))
    try:
        with torch.no_grad(), unfuse_attention():  # fused, layers hand on tensors without shapes
            returned = model(*examples.args, **examples.kwargs)
        refuse_useless(returned)
    except (Exception, SystemExit) as error:
        return Failure(entered[-1] if entered else "the model", error)
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _remember(entered: list[str], words: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_dynamo_compiling():
            return
        shapes = [_spec(*arg.shape) for arg in args if isinstance(arg, Tensor)]
        entered.append(f"{words} on {', '.join(shapes)}" if shapes else words)

    return hook


def _forget(entered: list[str]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        if not torch.compiler.is_dynamo_compiling():
            entered.pop()

    return hook


def _guess(model: nn.Module, seed: int) -> ExampleInputs:
    tried: list[str] = []
    for spec in _candidates(model):
        examples = replace(parse_inputs([spec], seed), origin=f"a guess: {spec}")
        if is_too_large(model, examples):
            tried.append(f"{spec} (it takes more memory than is free)")
            continue
        examples, failure = _draw(model, examples)
        if not failure:
            return examples
        _raise_ours(failure, examples)
        tried.append(f"{spec} ({failure})")
    raise CompressorError(
        "the shape of the model's input is not known, and no guess works",
        where="tried: " + "; ".join(tried) if tried else "no layer tells what it expects",
        consequence="the network cannot be traced",
        next_step="give it: --input [name=]1x3x224x224[:int64<512], once per input",
    )


def _candidates(model: nn.Module) -> list[str]:
    """Return the input specs to try: first the model's own, then what its first layers accept.

    Where a layer is recurrent the smallest come first: each step is traced by itself, and an image
    of 224 rows and columns can be 50,176 of them, which takes hours.
    """
    found: list[str] = []
    recurrent = any(isinstance(layer, (nn.RNNBase, nn.RNNCellBase)) for layer in model.modules())
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(config, Mapping) and config.get("input_size"):
        found.append(_spec(1, *config["input_size"]))
    seen: set[type[nn.Module]] = set()
    for kind, specs in _first_layers(model):
        if kind not in seen:
            seen.add(kind)
            found += sorted(specs, key=_elements) if recurrent else specs
    return list(dict.fromkeys(found))


def _elements(spec: str) -> int:
    return math.prod(map(int, spec.partition(":")[0].split("x")))


def _first_layers(model: nn.Module) -> Iterator[tuple[type[nn.Module], list[str]]]:
    for layer in model.modules():
        for kind, guess in GUESSES:
            if isinstance(layer, kind):
                yield kind, guess(layer)
                break


def _shapes(examples: ExampleInputs) -> str:
    named = [("", value) for value in examples.args] + [
        (f"{name}=", value) for name, value in examples.kwargs.items()
    ]
    return ", ".join(
        name + (_spec(*value.shape) if isinstance(value, Tensor) else type(value).__name__)
        for name, value in named
    )
