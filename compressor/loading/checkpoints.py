"""Find every module and every set of weights in a checkpoint, each with its key.

Training scripts leave weights beside optimizers, counters, averages of the weights and other
networks. Nothing here decides by the first tensors that are met: optimizers are recognised by their
structure, and `fitting` compares what remains with the network.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.loading.wording import cut_list, did_you_mean

StateDict = dict[str, Tensor]

USUAL_KEYS = (
    "state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params",
)  # fmt: skip
"""The keys under which training scripts keep the weights that they train."""

AVERAGE_WORDS = frozenset(("ema", "swa", "average", "averaged", "avg", "shadow", "polyak"))
"""A key with one of these words holds averages over the steps of training."""

OPTIMIZER_KEYS = frozenset(("state", "param_groups"))
"""What `torch.optim.Optimizer.state_dict` returns is a dict with these two keys."""

DEEPEST = 6


@dataclass(frozen=True)
class Candidate:
    """A module or a state dict found in a checkpoint.

    Attributes:
        key: The path to it, its keys joined by dots; "" is the checkpoint itself.
        content: The module or the state dict.
    """

    key: str
    content: nn.Module | StateDict

    @property
    def state(self) -> StateDict:
        """Return the candidate's tensors by name; for a module, those of its state dict."""
        if not isinstance(self.content, nn.Module):
            return self.content
        state = self.content.state_dict()
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def candidates_in(content: Any, key: str = "", depth: int = 0) -> Iterator[Candidate]:
    """Yield every module and state dict in a checkpoint's content, outside optimizer states.

    Args:
        content: What the checkpoint holds; it is not changed.
        key: The key of `content` itself within the checkpoint.
        depth: How many containers enclose `content`; the search ends at `DEEPEST`.
    """
    if isinstance(content, nn.Module):
        yield Candidate(key, content)
    elif depth < DEEPEST and isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from candidates_in(value, join(key, index), depth + 1)
    elif depth < DEEPEST and isinstance(content, Mapping) and not _is_optimizer(content):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if _is_state_dict(content, tensors):
            yield Candidate(key, tensors)
            return
        for name, value in content.items():
            yield from candidates_in(value, join(key, name), depth + 1)


def at_key(content: Any, wanted: str, file_name: str) -> Candidate | Any:
    """Return what stands under a dotted key of a checkpoint, e.g. "ema.module".

    A prefix of a state dict's names is a key too.

    Raises:
        UsageError: Nothing stands there; the message lists the keys that lead to weights.
    """
    part = _under(content, wanted)
    if part is None:
        known = [candidate.key for candidate in candidates_in(content) if candidate.key]
        raise UsageError(
            f"{file_name} holds nothing under {wanted!r}.{did_you_mean(wanted, known)}",
            where="--weights-key",
            consequence="nothing was loaded",
            next_step=f"give one of: {cut_list(known)}" if known else "leave --weights-key out",
        )
    return part


def _under(content: Any, wanted: str) -> Any:
    """Return what stands under a dotted key, or None if there is nothing."""
    if not wanted:
        return content
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        return None
    named = {str(name): value for name, value in content.items()}
    parts = wanted.split(".")
    for count in range(len(parts), 0, -1):  # the longest first: a key may itself hold dots
        head, rest = ".".join(parts[:count]), ".".join(parts[count:])
        if head in named and (part := _under(named[head], rest)) is not None:
            return part
    prefix = f"{wanted}."
    inner = {n.removeprefix(prefix): value for n, value in named.items() if n.startswith(prefix)}
    return inner or None


def is_average(key: str) -> bool:
    """Return whether a key says that it leads to averages of weights (ema, swa and the like)."""
    return not AVERAGE_WORDS.isdisjoint(re.split(r"[^a-z]+", key.lower()))


def is_usual(key: str) -> bool:
    """Return whether a key is the checkpoint itself, or ends with one of `USUAL_KEYS`."""
    return not key or key.rpartition(".")[2] in USUAL_KEYS


def join(key: str, name: object) -> str:
    """Return a dotted key extended by one name."""
    return f"{key}.{name}" if key else str(name)


def _is_optimizer(content: Mapping[Any, Any]) -> bool:
    return set(content) >= OPTIMIZER_KEYS


def _is_state_dict(content: Mapping[Any, Any], tensors: StateDict) -> bool:
    """Return whether a mapping is a state dict.

    Either all its values are tensors, or some tensors have dotted names like those of layers,
    beside counters and texts.
    """
    others = [name for name in content if not str(name).endswith("_extra_state")]
    if not tensors or any(isinstance(value, Mapping | nn.Module) for value in content.values()):
        return False
    return len(tensors) == len(others) or any("." in name for name in tensors)
