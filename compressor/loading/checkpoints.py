"""What a checkpoint holds: every module and every set of weights in it, each with its key.

Training scripts leave weights beside optimizers, counters, averages of the weights and other
networks. Nothing here decides by the first tensors that are met: optimizers are known by their
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
"""Where training scripts keep the weights that they train."""

AVERAGE_WORDS = frozenset(("ema", "swa", "average", "averaged", "avg", "shadow", "polyak"))
"""A key with one of these words holds averages over the steps of training."""

OPTIMIZER_KEYS = frozenset(("state", "param_groups"))
"""What `torch.optim.Optimizer.state_dict` returns is a dict with these two keys."""

DEEPEST = 6


@dataclass(frozen=True)
class Candidate:
    """A module, or a state dict, in a checkpoint.

    `key` is the way to it, with dots between the keys; "" is the checkpoint itself.
    """

    key: str
    content: nn.Module | StateDict

    @property
    def state(self) -> StateDict:
        """The tensors by name; of a module its state dict's."""
        if not isinstance(self.content, nn.Module):
            return self.content
        state = self.content.state_dict()
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def candidates_in(content: Any, key: str = "", depth: int = 0) -> Iterator[Candidate]:
    """Find every module and state dict in what a checkpoint holds, outside optimizers' states."""
    if isinstance(content, nn.Module):
        yield Candidate(key, content)
    elif depth < DEEPEST and isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from candidates_in(value, joined(key, index), depth + 1)
    elif depth < DEEPEST and isinstance(content, Mapping) and not _is_optimizer(content):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if _is_state_dict(content, tensors):
            yield Candidate(key, tensors)
            return
        for name, value in content.items():
            yield from candidates_in(value, joined(key, name), depth + 1)


def at_key(content: Any, wanted: str, file_name: str) -> Candidate | Any:
    """What stands under a key with dots, e.g. "ema.module"; a prefix of a state dict's names is a
    key too.

    Raises:
        UsageError: Nothing does; the keys that lead to weights are listed.
    """
    found = _under(content, wanted)
    if found is None:
        known = [candidate.key for candidate in candidates_in(content) if candidate.key]
        raise UsageError(
            f"{file_name} holds nothing under {wanted!r}.{did_you_mean(wanted, known)}",
            where="--weights-key",
            consequence="nothing was loaded",
            next_step=f"give one of: {cut_list(known)}" if known else "leave --weights-key out",
        )
    return found


def _under(content: Any, wanted: str) -> Any:
    """None where there is nothing; a key may hold dots itself, so the longest is tried first."""
    if not wanted:
        return content
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        return None
    named = {str(name): value for name, value in content.items()}
    parts = wanted.split(".")
    for count in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:count]), ".".join(parts[count:])
        if head in named and (found := _under(named[head], rest)) is not None:
            return found
    prefix = f"{wanted}."
    inner = {n.removeprefix(prefix): value for n, value in named.items() if n.startswith(prefix)}
    return inner or None


def is_average(key: str) -> bool:
    """Whether a key says that what it leads to are averages of weights: ema, swa and the like."""
    return not AVERAGE_WORDS.isdisjoint(re.split(r"[^a-z]+", key.lower()))


def is_usual(key: str) -> bool:
    """Whether a key is the checkpoint itself, or ends with one of the usual names."""
    return not key or key.rpartition(".")[2] in USUAL_KEYS


def joined(key: str, name: object) -> str:
    """The key one step further."""
    return f"{key}.{name}" if key else str(name)


def _is_optimizer(content: Mapping[Any, Any]) -> bool:
    return set(content) >= OPTIMIZER_KEYS


def _is_state_dict(content: Mapping[Any, Any], tensors: StateDict) -> bool:
    """Whether its values are tensors: all of them, or those with names of layers, beside counters
    and texts."""
    others = [name for name in content if not str(name).endswith("_extra_state")]
    if not tensors or any(isinstance(value, Mapping | nn.Module) for value in content.values()):
        return False
    return len(tensors) == len(others) or any("." in name for name in tensors)
