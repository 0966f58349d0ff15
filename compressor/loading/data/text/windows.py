"""Cut plain text into windows of one length, in tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from compressor.calls import Call
from compressor.errors import CompressorError, UsageError
from compressor.loading.data.language import USUAL_LENGTH, Language
from compressor.loading.data.reading import Reading
from compressor.loading.data.text.text_files import read_text
from compressor.loading.data.text.tokens import Tokens

_PIECE = 2**18
"""Characters after which text is parted at the end of a line, to be tokenised piece by piece."""

_OFFSETS = 4
"""Some networks count positions from as many on, which their configuration does not say."""


def greatest_length(tokens: Tokens, language: Language, reading: Reading) -> int:
    """Return how many tokens a sample has at most.

    Raises:
        UsageError: The user asks for more than the network was made for, or for too few.
    """
    known = [n for n in (language.positions, tokens.longest) if n is not None]
    most = min(known, default=None)
    wanted = language.length or reading.length
    least = len(tokens.before) + len(tokens.after) + 2
    if wanted is not None and not least <= wanted <= (most or wanted):
        bounds = f"from {least} on" if most is None else f"between {least} and {most}"
        raise UsageError(
            f"samples of {wanted} tokens: for this network it is a number {bounds}",
            where="--length",
            consequence="no sample was read",
            next_step=f"--length {min(max(wanted, least), most or wanted)}",
        )
    if wanted is not None:
        return wanted
    if most is None or most > USUAL_LENGTH:
        return USUAL_LENGTH
    return _accepted(most, reading)


def _accepted(most: int, reading: Reading) -> int:
    """Return the greatest length, from the known one down, that the network can be run on."""
    if reading.accepts is None or "input_ids" not in reading.binding.forward.known:
        return most
    for length in range(most, max(most - _OFFSETS, 1), -1):
        ids = torch.zeros(1, length, dtype=torch.long)
        if reading.accepts(Call((), {"input_ids": ids + 1, **_decoder(ids, reading)})):
            return length
    return most


def _decoder(ids: Tensor, reading: Reading) -> Mapping[str, Tensor]:
    name = "decoder_input_ids"
    return {name: ids} if name in reading.binding.forward.known else {}


def cut_windows(
    paths: Sequence[Path], tokens: Tokens, length: int, where: str
) -> tuple[list[Mapping[str, Tensor]], list[str]]:
    """Cut each file's text into windows that follow one another, with special tokens around each.

    What is left at the end of a file is left out, unless there would be no window at all.

    Returns:
        The windows, {"input_ids": [length]} each, and what the user should know of them.

    Raises:
        CompressorError: A file cannot be read, or there are fewer than two tokens of text.
    """
    room = length - len(tokens.before) - len(tokens.after)
    before, after = (torch.tensor(ids, dtype=torch.int32) for ids in (tokens.before, tokens.after))
    windows: list[Tensor] = []
    left: list[Tensor] = []
    for path in paths:
        ids = torch.tensor(_ids_of(read_text(path), tokens), dtype=torch.int32)
        whole = len(ids) - len(ids) % room
        windows += ids[:whole].reshape(-1, room)
        left.append(ids[whole:])
    if not windows:
        windows, left = [max(left, key=len)], []
    if len(windows[0]) < 2:
        raise CompressorError(
            "there are fewer than two tokens of text",
            where=where,
            consequence="no sample was read",
            next_step="give more text",
        )
    samples: list[Mapping[str, Tensor]] = [
        {"input_ids": torch.cat([before, window, after])} for window in windows
    ]
    count = "1 window" if len(samples) == 1 else f"{len(samples)} windows"
    note = f"text is cut into {count} of {len(samples[0]['input_ids'])} tokens"
    rest = sum(map(len, left))
    return samples, [f"{note}; {rest} at the end are left out" if rest else note]


def _ids_of(text: str, tokens: Tokens) -> list[int]:
    return [number for ids in tokens.plain(list(_pieces(text))) for number in ids]


def _pieces(text: str) -> Iterator[str]:
    """Part text at ends of lines, so that no piece is much longer than `_PIECE`."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE) + 1 or len(text)
        yield text[start:end]
        start = end
