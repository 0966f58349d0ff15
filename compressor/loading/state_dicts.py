"""Choose, among the weights that a file holds, those that fit a network; load them strictly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.loading.checkpoints import (
    Candidate,
    StateDict,
    at_key,
    candidates_in,
    is_average,
    is_usual,
    join,
)
from compressor.loading.fitting import Fit, fits_of
from compressor.loading.wording import cut_list
from compressor.modules import give_buffers_memory

BY_KEY = "--weights-key KEY decides"


@dataclass(frozen=True)
class Taken:
    """Which weights of a checkpoint were loaded into a network.

    Attributes:
        key: The dotted key of the weights; "" where the file holds nothing else.
        notes: What else would have fitted, and what was left out, in words.
        stored: Types in the file of the tensors that have another type in the network.
    """

    key: str
    notes: tuple[str, ...] = ()
    stored: Mapping[str, torch.dtype] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Return where the weights stood, for a sentence about the file: " under 'ema'", or ""."""
        return f" under {self.key!r}" if self.key else ""


@dataclass(frozen=True)
class _Choice:
    """A candidate for the network's weights, with one way in which it fits."""

    candidate: Candidate
    fit: Fit

    @property
    def key(self) -> str:
        return join(self.candidate.key, self.fit.prefix).strip(".")

    @property
    def rank(self) -> tuple[bool, bool, bool, bool]:
        """Return the sort key of a choice, the best first.

        Preferred are weights that fit whole, then weights before their averages, then those without
        surplus tensors, then those under a usual name.
        """
        fit, key = self.fit, self.key
        return (
            not fit.is_whole,
            is_average(key),
            bool(fit.unexpected),
            not is_usual(self.candidate.key),
        )


def module_in(content: Any, key: str | None, file_name: str) -> tuple[nn.Module, Taken] | None:
    """Return the module that a checkpoint holds and how it was chosen, or None if it holds none.

    Raises:
        CompressorError: It holds several, and nothing says which to take.
    """
    modules = [c for c in _candidates(content, key, file_name) if isinstance(c.content, nn.Module)]
    if not modules:
        return None
    ranked = sorted(modules, key=_rank_of_module)
    best = ranked[0]
    if len(ranked) > 1 and _rank_of_module(best) == _rank_of_module(ranked[1]):
        raise _ambiguous(file_name, "a network", [(c.key, c.state) for c in ranked], file_name)
    assert isinstance(best.content, nn.Module)
    notes = _said(best.key, [c.key for c in ranked[1:]])
    return best.content, Taken(best.key, notes)


def _rank_of_module(candidate: Candidate) -> tuple[bool, bool]:
    return is_average(candidate.key), not is_usual(candidate.key)


def describe(content: Any) -> str:
    """Describe an object for a sentence: its type, and the keys of a dict."""
    if isinstance(content, Mapping):
        keys = cut_list(str(key) for key in content)
        return f"a dict with the keys {keys}" if content else "an empty dict"
    return f"an object of type {type(content).__name__}"


def load_strictly(
    module: nn.Module,
    content: Any,
    where: str,
    *,
    key: str | None = None,
    ignore: Sequence[str] = (),
) -> Taken:
    """Load the weights of a checkpoint that fit into `module`, all of them or none.

    Weights come before their averages (EMA, SWA), and that averages exist is noted. Tensors
    outside the prefix that the network's own share belong to something else; they are noted.

    Args:
        module: The network that gets the weights; it is changed.
        content: What `read_weights` returns.
        where: The files, for messages.
        key: The dotted key of the weights within the checkpoint, if the user gives one.
        ignore: Globs of tensors that the network may do without.

    Returns:
        Which weights were loaded, with notes.

    Raises:
        UsageError: Nothing stands under the key.
        CompressorError: No weights fit (the message says what does not, cut to a readable length),
            or several do that differ. The module is unchanged.
    """
    choices = [
        _Choice(candidate, fit)
        for candidate in _candidates(content, key, where)
        for fit in fits_of(candidate.state, module, tuple(ignore))
    ]
    if not choices:
        raise _none_there(content, key, where)
    choices.sort(key=lambda choice: (choice.rank, -choice.fit.matched))
    best = choices[0]
    if best.fit.problems:
        raise _misfit(best, choices, where)
    fitting = [choice for choice in choices if not choice.fit.problems]
    rivals = [choice for choice in fitting if choice.rank == best.rank]
    if any(_differ(one, other) for one, other in combinations(rivals, 2)):
        held = [(choice.key, choice.fit.state) for choice in rivals]
        raise _ambiguous(where, "the network", held, where)
    stored = _stored_types(module, best.fit.state)
    give_buffers_memory(module)
    module.load_state_dict(best.fit.state, strict=False)
    others = [choice.key for choice in fitting[1:] if choice not in rivals]
    return Taken(best.key, (*_said(best.key, others), *_left_out(best.fit)), stored)


def _stored_types(module: nn.Module, state: StateDict) -> dict[str, torch.dtype]:
    own = module.state_dict()
    return {
        name: t.dtype for name, t in state.items() if name in own and own[name].dtype != t.dtype
    }


def _candidates(content: Any, key: str | None, where: str) -> list[Candidate]:
    if key is None:
        return list(candidates_in(content))
    return list(candidates_in(at_key(content, key, where), key))


def _differ(one: _Choice, other: _Choice) -> bool:
    ours, theirs = one.fit.state, other.fit.state
    return ours.keys() != theirs.keys() or not all(
        torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def _said(taken: str, others: Sequence[str]) -> tuple[str, ...]:
    """Return a note on which other weights would have fitted, or that only averages did."""
    if not others and is_average(taken):
        return (f"the weights are averages, those under {taken!r}: no others fit",)
    if not others:
        return ()
    listed = [f"{key!r} (averaged)" if is_average(key) else repr(key) for key in others]
    which = f"those under {taken!r}" if taken else "those at the top of the file"
    verb = "fits" if len(others) == 1 else "fit"
    return (
        f"the weights are {which}; {cut_list(listed)} {verb} too: "
        f"--weights-key {others[0]} takes that",
    )


def _left_out(fit: Fit) -> tuple[str, ...]:
    notes = []
    if fit.beside:
        notes.append(
            f"the network's weights are those named {fit.prefix}*; {len(fit.beside)} other tensors "
            f"of the file are left out ({cut_list(fit.beside)})"
        )
    if fit.ignored:
        notes.append(
            f"--ignore-unexpected left {len(fit.ignored)} tensors out ({cut_list(fit.ignored)})"
        )
    return tuple(notes)


def _none_there(content: Any, key: str | None, where: str) -> CompressorError:
    """Build the error for a checkpoint, or a key in it, without weights."""
    keys = [candidate.key for candidate in candidates_in(content) if candidate.key]
    return CompressorError(
        f"there are no weights under {key!r}"
        if key
        else f"there are no weights in {describe(content)}",
        where=where,
        consequence="nothing was loaded",
        next_step=f"--weights-key: give one of {cut_list(keys)}"
        if keys
        else "give a file that holds a state dict: torch.save(model.state_dict(), path)",
    )


def _misfit(best: _Choice, choices: Sequence[_Choice], where: str) -> CompressorError:
    inside = f" under {best.key!r}" if best.key else ""
    others = [repr(choice.key) for choice in choices[1:] if choice.key != best.key]
    if best.fit.is_whole:
        next_step = "if the network does without them: --ignore-unexpected GLOB"
    else:
        next_step = "check the factory and its arguments, such as --factory-arg num_classes=10"
    if others:
        next_step += f"; the file also holds {cut_list(others)}: {BY_KEY}"
    return CompressorError(
        f"the weights{inside} do not fit the model: {best.fit.problems}",
        where=where,
        consequence="nothing was loaded",
        next_step=next_step,
    )


def _ambiguous(
    file: str, what: str, held: Sequence[tuple[str, StateDict]], where: str
) -> CompressorError:
    listed = [
        f"{key or 'the top'!r} ({sum(tensor.numel() for tensor in state.values()):,} numbers)"
        for key, state in held
    ]
    return CompressorError(
        f"several weights for {what} are in {file}, and they differ: {cut_list(listed)}",
        where=where,
        consequence="nothing was loaded",
        next_step=f"say which: --weights-key {held[0][0]}",
    )
