"""A trial: a smaller network, trained as `compress --epochs` trains it, judged at each moment."""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.graph.counting import count_macs
from compressor.recover import Objective, Recipe, fine_tune
from tools.surroundings import where
from tools.training.data import Judged
from tools.training.kept import Kept
from tools.training.methods import METHODS, Bench, Methods
from tools.training.studies import STUDIES, Studies
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

    def __init__(
        self, data: Judged, folder: Path, methods: Methods = METHODS, studies: Studies = STUDIES
    ) -> None:
        self.data, self.kept = data, Kept(folder)
        self.methods, self.studies = methods, studies
        self.of: tuple[str, int] | None = None

    def run(self, trial: Trial) -> Record:
        self._open(trial)
        if not trial.method:
            study = self.studies[trial.study]
            return {**timed(self.bench, trial, study, self.data.device), "where": self._where()}
        return self._trained(trial)

    def _open(self, trial: Trial) -> None:
        if self.of is None or self.of[0] != trial.network:
            self.bench = Bench(trial.network, self.data, self.kept, self.methods)
        if self.of != (trial.network, trial.seed):
            self.teacher = Remembered(copy.deepcopy(self.bench.module)).eval()
        self.of = (trial.network, trial.seed)

    def _trained(self, trial: Trial) -> Record:
        begin = time.perf_counter()
        module, moments = self.kept.made(trial.file, lambda: self.bench.make(trial))
        made_s = time.perf_counter() - begin
        recipe = Recipe(trial.epochs, seed=trial.seed, captured=self.data.device == "cuda")
        begin = time.perf_counter()
        state = fine_tune(
            module,
            self.data.epochs(trial.seed),
            recipe,
            Objective(loss=self.data.loss, teacher=self.teacher),
            device=self.data.device,
            validate=self.data.validation,
            state=self.kept.state(trial.file),
            after_epoch=lambda reached: self.kept.keep(trial.file, reached),
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
            "not_captured": state.not_captured,
            "made_s": made_s,
            "seconds": time.perf_counter() - begin,
            "where": self._where(),
        }
        self.kept.drop(trial.file)
        return found

    def _where(self) -> Record:
        return {**where(self.data.device), "threads": torch.get_num_threads()}
