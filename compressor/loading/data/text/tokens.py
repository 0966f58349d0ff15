"""Open a folder's tokenizer, and turn text into token ids with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor import extras
from compressor.errors import CompressorError, UsageError
from compressor.loading.data.array_files import HOW
from compressor.loading.wording import one_line

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.*", "*.model", "*.tiktoken")
"""Files of which a tokenizer's folder has one; from the others alone an empty one would be made."""

_NEXT = (
    "--tokenizer FOLDER names a folder with one (tokenizer.json, or what save_pretrained of a "
    f"tokenizer writes); token ids and other numbers are given as arrays: {HOW}"
)

_ENDLESS = 10**9
"""Tokenizers that know no greatest length say a number beyond this."""


@dataclass(frozen=True)
class Tokens:
    """A tokenizer of the transformers library.

    Attributes:
        tokenizer: The library's object.
        before: The special tokens with which a sample begins.
        after: Those with which it ends.
    """

    tokenizer: Any
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the inputs that it makes."""
        return frozenset(self.tokenizer.model_input_names)

    @property
    def special(self) -> frozenset[int]:
        """Return the ids of all special tokens."""
        return frozenset(self.tokenizer.all_special_ids)

    @property
    def padding(self) -> int:
        """Return the id that fills up a sample; a mask says that it counts in nothing."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((number for number in known if number is not None), 0)

    @property
    def longest(self) -> int | None:
        """Return the most tokens that its network takes, as far as the tokenizer knows it."""
        most = self.tokenizer.model_max_length
        return int(most) if most < _ENDLESS else None

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts without special tokens."""
        ids: list[list[int]] = self._encode(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def samples(
        self, texts: Sequence[Any], pairs: Sequence[str] | None, most: int
    ) -> list[dict[str, list[int]]]:
        """Return texts as samples: inputs by name, with special tokens, cut to a length.

        Args:
            texts: Each a text, or a list of words.
            pairs: The second text of each sample, if they have one.
            most: The most tokens of a sample.
        """
        split = not isinstance(texts[0], str)
        seconds = None if pairs is None else list(pairs)
        settings = {"truncation": True, "max_length": most, "is_split_into_words": split}
        encoded = self._encode(list(texts), seconds, **settings)
        columns = {name: encoded[name] for name in encoded if name in self.names}
        return [{name: column[i] for name, column in columns.items()} for i in range(len(texts))]

    def words_of(self, texts: Sequence[Sequence[str]], most: int) -> list[list[int | None]]:
        """Return which word each token of a sample is of; None for special tokens."""
        settings = {"truncation": True, "max_length": most, "is_split_into_words": True}
        encoded = self._encode([list(text) for text in texts], None, **settings)
        return [encoded.word_ids(i) for i in range(len(texts))]

    def _encode(self, *texts: Any, **settings: Any) -> Any:
        # a text that is longer than the network takes is cut afterwards: no warning
        return self.tokenizer(*texts, verbose=False, **settings)


def open_tokenizer(folder: Path | None, where: str) -> Tokens:
    """Open a folder's tokenizer; no code of the folder is run, and nothing is fetched.

    Args:
        folder: The folder; None where none is known.
        where: The data that take it.

    Raises:
        UsageError: There is none, or transformers is not installed.
        CompressorError: transformers cannot load it.
    """
    if folder is None:
        raise _refusal("this is a text file, and no tokenizer is known of the network", where)
    if not folder.is_dir():
        raise _refusal(f"there is no folder {folder} with a tokenizer", where)
    if not any(any(folder.glob(pattern)) for pattern in _VOCABULARIES):
        raise _refusal(f"text takes a tokenizer, and {folder} holds none", where)
    transformers = extras.load("transformers", "--tokenizer")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        before, after = _around(tokenizer)
    except Exception as error:  # whatever the library raises
        raise CompressorError(
            f"transformers cannot load the tokenizer of {folder}: {one_line(error)}",
            where=where,
            consequence="the text was not read",
            next_step=_NEXT,
        ) from error
    return Tokens(tokenizer, before, after)


def _refusal(what: str, where: str) -> UsageError:
    return UsageError(what, where=where, consequence="the text was not read", next_step=_NEXT)


def _around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the special tokens that a tokenizer puts before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    text = [i for i, is_special in enumerate(special) if not is_special]
    if not text:
        return (), ()
    return tuple(ids[: text[0]]), tuple(ids[text[-1] + 1 :])
