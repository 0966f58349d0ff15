"""Make a dataset of text: windows of plain text, or the rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from compressor.errors import UsageError
from compressor.loading.data.dataset import Data
from compressor.loading.data.image_folders import classes_of_folders
from compressor.loading.data.language import Language
from compressor.loading.data.reading import Reading
from compressor.loading.data.text.hiding import Hiding
from compressor.loading.data.text.rows import rows_of_tables
from compressor.loading.data.text.text_files import read_text
from compressor.loading.data.text.text_tables import TextTable, read_table
from compressor.loading.data.text.tokens import Tokens, open_tokenizer
from compressor.loading.data.text.windows import cut_windows, greatest_length
from compressor.padding import MASK
from compressor.recover.tasks import CLASSES, IDS, MASKED

DECODER_IDS = "decoder_input_ids"

MANY_UNKNOWN = 0.1
"""A share of unknown tokens above this is pointed out."""


@dataclass(frozen=True)
class Texts(Dataset[Any]):
    """Samples of token ids, in memory.

    Attributes:
        rows: Of each sample its inputs by name, [positions] each.
        targets: What is to be learnt of each; None where nothing is, or where the task makes it.
        names: The inputs that the network takes, of those that there can be; where it takes no
            `IDS`, a sample is the ids alone.
        start: The token that a decoder begins with, if there is one.
        hiding: How tokens are hidden, for masked language models.
        fillers: Name of an input -> what stands at positions that are filled up.
    """

    rows: Sequence[Mapping[str, Tensor]]
    targets: Sequence[Any] | None
    names: frozenset[str]
    start: int | None
    hiding: Hiding | None
    fillers: Mapping[str, int]

    @cached_property
    def lengths(self) -> np.ndarray[Any, Any]:
        """The length of each sample, in tokens."""
        return np.array([len(row[IDS]) for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        inputs = {name: x.long() for name, x in self.rows[index].items()}
        ids, target = inputs[IDS], None if self.targets is None else self.targets[index]
        if self.hiding is not None:
            inputs[IDS], target = self.hiding(ids, index)
        if self.start is not None:
            inputs[DECODER_IDS] = torch.cat([ids.new_tensor([self.start]), ids[:-1]])
        inputs.setdefault(MASK, torch.ones_like(ids))
        given = {name: x for name, x in inputs.items() if name in self.names}
        return (given if IDS in given else inputs[IDS]), target


def load_texts(paths: Sequence[Path], folder: Path | None, reading: Reading) -> Data:
    """Read files of text as one dataset, with the network's tokenizer.

    Plain text is cut into windows of one length. Of a table each row is a sample; so is each file
    in a sub-folder, for a network that scores classes of texts.

    Args:
        paths: The files.
        folder: The folder that they lie in; None where they are named by themselves.
        reading: Says what is known of the network's language.

    Raises:
        UsageError: There is no tokenizer, or files cannot be read together.
        CompressorError: A file cannot be read, or has too little text.
    """
    language = reading.language or Language()
    where = str(folder or ", ".join(map(str, paths[:3])))
    tokens = open_tokenizer(language.tokenizer, where)
    most = greatest_length(tokens, language, reading)
    tables = _tables(paths, folder, language)
    read = [table for table in tables if table is not None]
    if read and len(read) < len(tables):
        raise UsageError(
            "some files are tables with a column of text, others are plain text",
            where=where,
            consequence="no sample was read",
            next_step="name files of one kind",
        )
    if read:
        rows, targets, notes = rows_of_tables(read, tokens, language, most, where)
    else:
        (rows, notes), targets = cut_windows(paths, tokens, most, where), None
    _check_vocabulary(rows, language, where)
    dataset = _dataset(rows, targets, tokens, language, reading, where)
    name = folder.name if folder is not None else ", ".join(path.name for path in paths[:3])
    notes = [*notes, *_on_unknown(rows, tokens, name), *_on_decoder(dataset)]
    return Data(name, dataset, True, len(language.classes) or None, notes=tuple(notes))


def _tables(
    paths: Sequence[Path], folder: Path | None, language: Language
) -> list[TextTable | None]:
    """Read files as tables, or those in sub-folders as one; None for what is plain text."""
    if folder is not None and language.task is CLASSES:
        labels = classes_of_folders(paths, folder, "texts", language.classes)
        if labels is not None:
            return [TextTable([read_text(path) for path in paths], None, labels)]
    return [read_table(path) for path in paths]


def _dataset(
    rows: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Any] | None,
    tokens: Tokens,
    language: Language,
    reading: Reading,
    where: str,
) -> Texts:
    hiding = None
    if language.task is MASKED:
        mask = tokens.tokenizer.mask_token_id
        if mask is None:
            raise UsageError(
                "the network finds masked tokens, and its tokenizer has no mask token",
                where=where,
                consequence="no sample was read",
                next_step="--tokenizer FOLDER names the tokenizer that it was trained with",
            )
        vocabulary = language.vocabulary or len(tokens.tokenizer)
        hiding = Hiding(mask, vocabulary, sorted(tokens.special), language.seed)
    return Texts(
        rows,
        targets,
        reading.binding.names,
        language.start,
        hiding,
        {IDS: tokens.padding, DECODER_IDS: tokens.padding},
    )


def _check_vocabulary(rows: Sequence[Mapping[str, Tensor]], language: Language, where: str) -> None:
    """Refuse token ids that the network has no embedding of."""
    largest = max(int(row[IDS].max()) for row in rows)
    if language.vocabulary is not None and largest >= language.vocabulary:
        raise UsageError(
            f"the tokenizer gives the token {largest}, and the network knows "
            f"{language.vocabulary} (0 to {language.vocabulary - 1})",
            where=where,
            consequence="no sample was read",
            next_step="--tokenizer FOLDER names the tokenizer that it was trained with",
        )


def _on_unknown(rows: Sequence[Mapping[str, Tensor]], tokens: Tokens, name: str) -> list[str]:
    unknown = tokens.tokenizer.unk_token_id
    if unknown is None:
        return []
    some = torch.cat([row[IDS] for row in rows[:1000]])
    share = float((some == unknown).double().mean())
    if share <= MANY_UNKNOWN:
        return []
    return [f"{share:.0%} of the tokens of {name} are unknown to the tokenizer: another one?"]


def _on_decoder(dataset: Texts) -> list[str]:
    if dataset.start is None or DECODER_IDS not in dataset.names:
        return []
    return [
        "encoder and decoder are given the same text, one token later in the decoder: nothing is "
        "learnt from it but the original's outputs (a dataset of your own gives other targets)"
    ]
