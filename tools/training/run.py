"""A trial: a smaller network, trained as `compress --epochs` trains it, judged at each moment."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.measure import count_macs
from compressor.recover import Objective, Recipe, TrainingState, fine_tune
from compressor.whole_file import written_whole
from tools.surroundings import where
from tools.training.data import Cifar
from tools.training.methods import Bench
from tools.training.timing import timed
from tools.training.trial import Record, Trial


class Remembered(nn.Module):
    """The original as teacher, asked once about each batch: trials of one seed see the same ones.

    Where it computes on a GPU nothing is remembered, it is quick there.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.known: dict[bytes, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu":
            return self.original(images)
        key = hashlib.sha1(images.numpy().tobytes(), usedforsecurity=False).digest()
        if key not in self.known:
            self.known[key] = self.original(images)
        return self.known[key]


class Runner:
    """Trials of one network after the other; what an epoch reached is kept in `folder`."""

    def __init__(self, data: Cifar, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.of: tuple[str, int] | None = None

    def run(self, trial: Trial) -> Record:
        self._open(trial)
        if not trial.method:
            return {**timed(self.bench, trial, self.data.device), "where": self._where()}
        return self._trained(trial)

    def _open(self, trial: Trial) -> None:
        if self.of is None or self.of[0] != trial.network:
            self.bench = Bench(trial.network, self.data)
        if self.of != (trial.network, trial.seed):
            self.teacher = Remembered(self.bench.module).eval()
        self.of = (trial.network, trial.seed)

    def _trained(self, trial: Trial) -> Record:
        module, moments = self.bench.make(trial)
        recipe = Recipe(trial.epochs, seed=trial.seed)
        begin = time.perf_counter()
        state = fine_tune(
            module,
            self.data.epochs(trial.seed),
            recipe,
            Objective(teacher=self.teacher),
            device=self.data.device,
            validate=self.data.validation,
            state=self._kept(trial),
            after_epoch=lambda reached: self._keep(trial, reached),
        )
        last = self.data.test(module)
        module.load_state_dict(state.best)
        found = {
            "base": self.bench.base,
            **moments,
            "tuned": last,
            "best": self.data.test(module),
            "best_epoch": state.best_epoch,
            "macs": count_macs(module, (self.bench.example[:1],), {}),
            "base_macs": self.bench.macs,
            "params": sum(p.numel() for p in module.parameters()),
            "base_params": sum(p.numel() for p in self.bench.module.parameters()),
            "recipe": asdict(recipe),
            "epochs": [asdict(result) for result in state.history],
            "seconds": time.perf_counter() - begin,
            "where": self._where(),
        }
        self._file(trial).unlink(missing_ok=True)
        return found

    def _where(self) -> Record:
        return {**where(self.data.device), "threads": torch.get_num_threads()}

    def _file(self, trial: Trial) -> Path:
        return self.folder / f"{trial.file}.pt"

    def _keep(self, trial: Trial, reached: TrainingState) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self._file(trial)) as temporary:
            torch.save(reached.to_dict(), temporary)

    def _kept(self, trial: Trial) -> TrainingState | None:
        file = self._file(trial)
        if not file.exists():
            return None
        return TrainingState.from_dict(torch.load(file, weights_only=True))
