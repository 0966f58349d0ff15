"""Say how the user wants a MODEL to be loaded, and refuse options that have no use for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.errors import UsageError
from compressor.loading.sniff import FileKind


@dataclass(frozen=True)
class Wanted:
    """How the user wants the network and the weights of MODEL to be loaded.

    Attributes:
        factory: Spec of what makes the network that a state dict in MODEL is loaded into.
        factory_args: `name=value` pairs for the factory.
        weights: File with a state dict for a MODEL that is a factory.
        weights_key: Dotted key of the weights within a checkpoint; None takes what fits.
        ignore_unexpected: Globs of tensors that the network may do without.
        pretrained: Whether to take the library's own weights.
        trust_pickle: Whether the file may run the code that it asks for.
        inputs: The texts given with `--input`, for a file that declares its inputs.
    """

    factory: str | None = None
    factory_args: Sequence[str] = ()
    weights: str | None = None
    weights_key: str | None = None
    ignore_unexpected: Sequence[str] = ()
    pretrained: bool = False
    trust_pickle: bool = False
    inputs: Sequence[str] = ()


def refuse_options_of_weights(wanted: Wanted, why: str) -> None:
    """Raise UsageError for an option about weights in a file where none are read, and say why."""
    given = {"--weights-key": wanted.weights_key, "--ignore-unexpected": wanted.ignore_unexpected}
    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} is about weights in a file, and {why}",
                where=option,
                next_step=f"leave {option} out",
            )


def refuse_factory(path: Path, kind: FileKind, wanted: Wanted) -> None:
    """Raise UsageError for options that have no use where a file holds a whole model."""
    if wanted.factory or wanted.factory_args:
        option = "--factory" if wanted.factory else "--factory-arg"
        raise UsageError(
            f"{path.name} holds a whole model ({kind}), so {option} has no use",
            where=option,
            next_step=f"leave {option} out",
        )
    is_whole = kind in (FileKind.PROGRAM, FileKind.ONNX)
    if is_whole or wanted.ignore_unexpected:
        key = wanted.weights_key if is_whole else None
        refuse_options_of_weights(
            replace(wanted, weights_key=key), f"{path.name} holds a whole model ({kind})"
        )
