"""Correct the shapes of an LSTM's last states, which torch 2.11 gets wrong without values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch._decomp import decompositions

_LAYER = "one_layer_lstm"


@contextmanager
def correct_lstm_states() -> Iterator[None]:
    """Let an LSTM that runs on tensors without data, or is decomposed, yield states [layers, N, H].

    torch 2.11 takes the dimension of the samples away there where it means that of the layer, so
    that the states become [layers, 1, N, H] for more than one sample. A later torch is left as it
    is.
    """
    layer = getattr(decompositions, _LAYER, None)
    if layer is None:
        yield
        return
    with patch.object(decompositions, _LAYER, _squeeze_states(layer)):
        yield


def _squeeze_states(layer: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of one layer with states [N, H], whichever torch gives."""

    def right(*args: Any, **kwargs: Any) -> Any:
        out, states = layer(*args, **kwargs)
        return out, tuple(s.squeeze(0) if s.dim() == 3 else s for s in states)

    return right
