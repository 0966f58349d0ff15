"""Run recurrent layers, whose stored weights are held as torch's own layers hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compressor.loading.onnx.operators.invocation import Entry, NodeCall

USUAL = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}
"""The activations of each direction, unless others are given."""


def recurrent(run: Callable[..., Any]) -> Entry:
    """Make an entry: x[T, N, in] -> [T, directions, N, hidden], and the last states.

    Inputs 1 to 3 are tuples of tensors, as `stored_forms` makes them.
    """

    def entry(call: NodeCall) -> Any:
        _refuse_rare(call)
        layers: list[tuple[Tensor, ...]] = [_parts(call, i) for i in (1, 2, 3)]
        x, first = call.x, bool(call.get("layout", 0))
        x = x.transpose(0, 1) if first else x
        inner, own, biases = layers
        directions, hidden = len(inner), own[0].shape[1]
        flat = [
            t for d in range(directions) for t in (inner[d], own[d], *biases[2 * d : 2 * d + 2])
        ]
        zero = x.new_zeros([directions, x.shape[1], hidden])
        states = [zero if s is None else s for s in (call.optional(5), call.optional(6))]
        states = [s.transpose(0, 1) if first and s is not zero else s for s in states]
        both = call.get("direction", "forward") == "bidirectional"
        backwards = call.get("direction", "forward") == "reverse"
        x = torch.flip(x, [0]) if backwards else x
        out, *ends = run(call, x, states, flat, bool(biases), both)
        out = torch.flip(out, [0]) if backwards else out
        out = out.unflatten(2, (directions, hidden)).transpose(1, 2)
        if first:
            out, ends = out.permute(2, 0, 1, 3), [end.transpose(0, 1) for end in ends]
        return (out, *ends)

    return entry


def _parts(call: NodeCall, position: int) -> tuple[Tensor, ...]:
    """Return a stored weight as the tensors that it is held as; () where there is none."""
    given = call.raw(position)
    if given is None and position == 3:
        return ()
    if not isinstance(given, tuple):
        raise call.refusal("has weights that are computed")
    return given


def _refuse_rare(call: NodeCall) -> None:
    usual = USUAL[call.op]
    given = call.get("activations") or usual
    if call.op == "RNN" and given and all(name == "Relu" for name in given):
        usual = ["Relu"]
    if [name.lower() for name in given] != [n.lower() for n in usual * (len(given) // len(usual))]:
        raise call.refusal(f"has the activations {', '.join(given)}")
    if call.get("clip") is not None or call.get("input_forget", 0) or call.has(7):
        raise call.refusal("clips, couples its gates or looks through peepholes")
    if call.op == "GRU" and not call.get("linear_before_reset", 0):
        raise call.refusal("resets before its product (linear_before_reset=0)")
    if call.has(4) and not _is_whole(call):
        raise call.refusal("takes sequences of unequal lengths")


def _is_whole(call: NodeCall) -> bool:
    """Return whether the lengths that are given are those of the whole sequence."""
    lengths, steps = call.raw(4), call.x.shape[1 if call.get("layout", 0) else 0]
    listed = getattr(lengths, "listed", None)
    return listed is not None and all(length == steps for length in listed)


def _lstm(
    call: NodeCall, x: Tensor, states: list[Tensor], flat: list[Tensor], biased: bool, both: bool
) -> Any:
    return torch.lstm(x, states, flat, biased, 1, 0.0, call.training, both, False)


def _gru(
    call: NodeCall, x: Tensor, states: list[Tensor], flat: list[Tensor], biased: bool, both: bool
) -> Any:
    return torch.gru(x, states[0], flat, biased, 1, 0.0, call.training, both, False)


def _rnn(
    call: NodeCall, x: Tensor, states: list[Tensor], flat: list[Tensor], biased: bool, both: bool
) -> Any:
    is_relu = (call.get("activations") or ["Tanh"])[0] == "Relu"
    run = torch.rnn_relu if is_relu else torch.rnn_tanh
    return run(x, states[0], flat, biased, 1, 0.0, call.training, both, False)


ENTRIES: dict[str, Entry] = {
    "GRU": recurrent(_gru),
    "LSTM": recurrent(_lstm),
    "RNN": recurrent(_rnn),
}
