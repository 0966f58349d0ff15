"""Make samples of tables' rows: a text each, perhaps with a second one, and a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compressor.errors import CompressorError, UsageError
from compressor.listing import some_of
from compressor.loading.data.language import Language
from compressor.loading.data.text.text_tables import TextTable
from compressor.loading.data.text.tokens import Tokens
from compressor.recover.evaluation import IGNORED
from compressor.recover.tasks import CLASSES, TOKENS

LEARNT = (CLASSES, TOKENS)
"""The tasks that are learnt from labels; others make their targets of the text."""

Rows = tuple[list[Mapping[str, Tensor]], list[Any] | None, list[str]]
"""Samples, their targets (None where there are none), and what the user should know of them."""


def rows_of_tables(
    tables: Sequence[TextTable], tokens: Tokens, language: Language, most: int, where: str
) -> Rows:
    """Make a sample of each row: what its texts are in tokens, cut to a length, and its class.

    Raises:
        UsageError: Some tables have columns that others lack, or labels are no classes.
        CompressorError: There is no text of two tokens.
    """
    texts = [text for table in tables for text in table.texts]
    pairs = _all_or_none([table.pairs for table in tables], "text_pair", where)
    labels = _all_or_none([table.labels for table in tables], "label", where)
    if len({isinstance(text, str) for text in texts}) > 1:
        raise _uneven("some files have texts, others lists of words", where)
    made = tokens.samples(texts, pairs, most)
    lengths = [sum(number not in tokens.special for number in row["input_ids"]) for row in made]
    kept = [i for i, row in enumerate(made) if lengths[i] and len(row["input_ids"]) > 1]
    if not kept:
        raise CompressorError(
            "no row has a text of two tokens, special ones included",
            where=where,
            consequence="no sample was read",
            next_step="check the column of text, and the tokenizer",
        )
    notes = [f"{len(made) - len(kept)} rows without text are left out"] * (len(kept) < len(made))
    targets = None
    if labels is not None and language.task in LEARNT:
        all_targets = (
            _of_words(texts, labels, tokens, language, most, where)
            if language.task is TOKENS
            else [_number(label, language, where) for label in labels]
        )
        targets = [all_targets[i] for i in kept]
    elif labels is not None:
        notes.append("the labels of the rows are not used: the task makes its own targets")
    unused = dict.fromkeys(name for table in tables for name in table.unused)
    if unused:
        notes.append(f"columns that are not used: {some_of(unused)}")
    rows = [{name: torch.tensor(x, dtype=torch.int32) for name, x in made[i].items()} for i in kept]
    return list(rows), targets, notes


def _all_or_none(
    columns: Sequence[Sequence[Any] | None], name: str, where: str
) -> list[Any] | None:
    there = [column for column in columns if column is not None]
    if len(there) not in (0, len(columns)):
        raise _uneven(f"some files have a column {name}, others have none", where)
    return [value for column in there for value in column] if there else None


def _uneven(what: str, where: str) -> UsageError:
    return UsageError(
        what,
        where=where,
        consequence="no sample was read",
        next_step="give files of the same columns",
    )


def _of_words(
    texts: Sequence[Any],
    labels: Sequence[Any],
    tokens: Tokens,
    language: Language,
    most: int,
    where: str,
) -> list[Tensor]:
    """Give the label of each word to its first token; other tokens count in nothing."""
    uneven = next(
        (
            number
            for number, (text, label) in enumerate(zip(texts, labels, strict=True), start=1)
            if isinstance(text, str) or not isinstance(label, list) or len(text) != len(label)
        ),
        None,
    )
    if uneven is not None:
        raise UsageError(
            "the network gives each word a class, and a row has no list of words with as many "
            "labels",
            where=f"{where}, row {uneven}",
            consequence="no sample was read",
            next_step='give rows like {"text": ["New", "York"], "label": ["B-LOC", "I-LOC"]}, '
            "or texts without labels",
        )
    targets = []
    for words, label in zip(tokens.words_of(texts, most), labels, strict=True):
        firsts = [
            word if word is not None and word not in words[:i] else None
            for i, word in enumerate(words)
        ]
        numbers = [IGNORED if w is None else _number(label[w], language, where) for w in firsts]
        targets.append(torch.tensor(numbers))
    return targets


def _number(label: Any, language: Language, where: str) -> int | float:
    """Return a class's number, which is its name in the configuration, or the label itself."""
    if isinstance(label, bool):
        return int(label)
    if isinstance(label, int | float):
        return label
    if str(label) in language.classes:
        return language.classes[str(label)]
    if isinstance(label, str) and label.strip().lstrip("-").isdecimal():
        return int(label)
    raise UsageError(
        f"the label {label!r} is no class of the network: {some_of(language.classes)}",
        where=where,
        consequence="no sample was read",
        next_step="give the classes' names of its configuration (label2id), or their numbers",
    )
