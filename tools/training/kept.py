"""What trainings have reached, by name, so that they can be stopped at any epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from compressor.files.whole_file import write_whole
from compressor.recover import TrainingState


@dataclass(frozen=True)
class Kept:
    """Files in a folder that is made with the first of them."""

    folder: Path

    def keep(self, name: str, state: TrainingState) -> None:
        """Replaces what was kept by that name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_whole(self._file(name)) as temporary:
            torch.save(state.to_dict(), temporary)

    def made(
        self, name: str, make: Callable[[], tuple[nn.Module, dict[str, float]]]
    ) -> tuple[nn.Module, dict[str, float]]:
        """A network and its accuracies so far, made at the first time only: another machine might
        choose other channels, which the weights that were kept would not fit."""
        file = self._file(f"{name}-made")
        if file.exists():
            found: tuple[nn.Module, dict[str, float]] = torch.load(file, weights_only=False)
            return found
        made = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_whole(file) as temporary:
            torch.save(made, temporary)
        return made

    def state(self, name: str) -> TrainingState | None:
        """What was kept by that name."""
        if not self._file(name).exists():
            return None
        return TrainingState.from_dict(torch.load(self._file(name), weights_only=True))

    def drop(self, name: str) -> None:
        for each in (name, f"{name}-made"):
            self._file(each).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.pt"
