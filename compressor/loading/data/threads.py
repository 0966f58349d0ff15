"""Read samples from files by several threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.utils.data import Dataset


class ReadByThreads(Dataset[Any]):
    """A dataset that reads files; of a batch several at a time."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the samples of these numbers, in their order."""
        with ThreadPoolExecutor() as readers:
            return list(readers.map(self.__getitem__, indices))
