"""Trials carried out: by the product's command, by Torch-Pruning, by the clock."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor
from compressor.files.format_table import FORMATS, HF
from compressor.graph.counting import count_macs, count_params
from compressor.graph.trace import trace
from compressor.loading.data import batches, data_of, hold_out
from compressor.options import Options
from compressor.records import ExampleInputs
from compressor.recover import (
    LEARNING_RATES,
    Hooks,
    Objective,
    Recipe,
    TrainingState,
    evaluate,
    fine_tune,
    optimizer_for,
    recalibrate_batch_norm,
    top1,
)
from compressor.run.journal import Journal
from tools.studies.language.flap import add_biases, cut_by_fluctuation
from tools.studies.language.generation import size_of_weights, time_folders
from tools.studies.networks import Network
from tools.studies.packages.files import FileNetwork
from tools.studies.packages.running import apart, compress_and_judge
from tools.studies.packages.table import clock_of
from tools.studies.their_choice import write_plan
from tools.studies.timing import time_in_8_bits, time_modules, time_smaller
from tools.studies.torch_pruning import Goal, Gradients, prune
from tools.studies.trial import (
    CLOCK,
    FLAP,
    GENERATION,
    OURS,
    RIVAL,
    THEIR_CHOICE,
    Record,
    Trial,
)

Made = tuple[nn.Module, Record]
"""A smaller network, and its numbers: `macs` and `params` before and after, and `moments`, pairs of
a step and the value of the network's metric after it."""

TRAINING = "training"

CALIBRATION = Options().calibration
"""The number of samples that statistics are re-estimated on: those of our repair."""


def make_ours(network: Network, options: Mapping[str, Any]) -> Made:
    """Compress as a user does, and take the numbers of the report."""
    result = compressor.compress(**network.given, **options)
    return result.module, numbers_of(result.report) | worth_of(network, result.module)


def worth_of(network: Network, module: nn.Module) -> Record:
    """Return the package that carries a network, and what a smaller module is worth to its users.

    Returns:
        `package`, and `quality` (per measure the original's and the module's), where there are any.
    """
    found: Record = {} if network.carried is None else {"package": network.carried.describe()}
    if network.judge is not None:
        before, after = (network.judge(each.eval()) for each in (network.module, module))
        found["quality"] = {name: [before[name], after[name]] for name in before}
    return found


def numbers_of(report: Mapping[str, Any]) -> Record:
    """Return the numbers of a trial from the report of a run."""
    before, after = report["before"], report["after"]
    found: Record = {
        "macs": [before["macs"], after["macs"]],
        "params": [before["params"], after["params"]],
        "moments": [
            [row["step"], value] for row in report["recovery"] for value in row["metrics"].values()
        ],
        "seconds": report["seconds"],
    }
    if measured := (report.get("budget") or {}).get("measured"):
        found["measured"] = measured
    return found


def make_theirs(
    network: Network,
    options: Mapping[str, Any],
    journal: Journal | None = None,
    *,
    device: str = "cpu",
) -> Made:
    """Prune by Torch-Pruning, and train the result as `compress --epochs` would.

    Args:
        network: What is pruned; not changed.
        options: Those of `Goal`, `batch_norm` and `epochs`.
        journal: Keeps what each epoch has reached, and goes on from there.
        device: Where it is trained and evaluated.
    """
    goal = Goal(**{f.name: options[f.name] for f in fields(Goal) if f.name in options})
    gradients = _gradients(network, goal.seed) if goal.importance == "Taylor" else ()
    module = prune(network.module, network.example, goal, network.hint, gradients)
    example = (network.example,)
    pairs = network.module, module
    moments = [["original", _original(network, device)]]
    moments.append(["sliced", _evaluate(network, module, device)])
    found: Record = {
        "macs": [count_macs(each, example, {}) for each in pairs],
        "params": [count_params(each) for each in pairs],
        "moments": moments,
    }
    if goal.of == "latency":
        found["measured"] = time_smaller(network.module, module, network.example)
    if options.get("batch_norm"):
        train = data_of(network.train, "train")
        some = batches(train, 64, seed=goal.seed, limit=CALIBRATION, drop_last=True)
        recalibrate_batch_norm(module, some, device)
        moments.append(["batch norm", _evaluate(network, module, device)])
    if epochs := options.get("epochs", 0):
        found["epochs"] = _train(network, module, epochs, goal.seed, journal or Journal(), device)
        moments.append([f"{epochs} epochs", _evaluate(network, module, device)])
    return module, found | worth_of(network, module)


@cache
def _original(network: Network, device: str) -> float | None:
    return _evaluate(network, network.module, device)


def _evaluate(network: Network, module: nn.Module, device: str) -> float | None:
    """Return the network's metric of a module on the test data; None where there are none."""
    if network.test is None:
        return None
    data = data_of(network.test, "test")
    value = evaluate(module, batches(data, 64), network.metric or top1, device)
    module.cpu()
    return value


def _gradients(network: Network, seed: int, samples: int = 1024) -> Gradients:
    """Return those of the loss, summed over the batches of some training samples."""
    module = copy.deepcopy(network.module).eval()
    loss = network.loss or nn.functional.cross_entropy
    data = data_of(network.train, "train")
    for inputs, target in batches(data, 64, seed=seed, limit=samples):
        torch.autograd.backward(loss(module(*inputs.args), target))
    return [parameter.grad for parameter in module.parameters()]


def _train(
    network: Network, module: nn.Module, epochs: int, seed: int, journal: Journal, device: str
) -> list[Record]:
    """Train in place by the product's defaults on what it would train on; leave it on the CPU."""
    train, _ = hold_out(data_of(network.train, "train"), seed=seed)
    kept = journal.find_record(TRAINING)
    traced = trace(network.module, ExampleInputs((network.example,)))
    optimizer, _ = optimizer_for(traced.program)
    state = fine_tune(
        module,
        batches(train, network.batch_size, seed=seed, augment=network.augment, drop_last=True),
        Recipe(epochs, LEARNING_RATES[optimizer], optimizer, seed=seed, captured=device == "cuda"),
        Objective(loss=network.loss, teacher=copy.deepcopy(network.module)),
        device=device,
        state=TrainingState.from_dict(kept) if kept and _fits(kept["weights"], module) else None,
        hooks=Hooks(after_epoch=lambda reached: journal.keep(TRAINING, reached.to_dict())),
    )
    module.cpu()
    return [{"epoch": e.epoch, "loss": e.loss, "seconds": e.seconds} for e in state.history]


def _fits(weights: Mapping[str, Any], module: nn.Module) -> bool:
    """Return whether weights are of this network: another machine might have cut other channels."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return {name: tensor.shape for name, tensor in weights.items()} == shapes


def make_their_choice(network: Network, options: Mapping[str, Any]) -> Made:
    """Cut and repair by the product what Torch-Pruning chose; take the measured time, too."""
    with tempfile.TemporaryDirectory(prefix="their-choice-") as folder:
        path = Path(folder) / "plan.json"
        write_plan(network.module, network.example, Goal(**options), network.hint, path)
        module, found = make_ours(network, {"plan": str(path)})
    return module, found | {"measured": time_smaller(network.module, module, network.example)}


def make_of_file(network: FileNetwork, options: Mapping[str, Any]) -> Record:
    """Compress a file that a package carries, in a process of its own; return a trial's numbers."""
    found = apart(compress_and_judge, network, options)
    report = found.pop("report")
    about = {"package": network.carried.describe(), "clock": clock_of(report)}
    return {**numbers_of(report), **about, **found, "notes": report["notes"]}


def make_by_fluctuation(network: Network, options: Mapping[str, Any]) -> Made:
    """Cut by fluctuation, and put the means of what is gone into biases."""
    train: Any = network.train
    inputs = train.tensors[0]
    result = cut_by_fluctuation(network.module, network.example, inputs, options)
    moments = [["original", _original(network, "cpu")]]
    moments.append(["sliced", _evaluate(network, result.module, "cpu")])
    module = add_biases(result.module, network.module, result.plan, inputs)
    moments.append(["biases", _evaluate(network, module, "cpu")])
    return module, {**numbers_of(result.report), "moments": moments}


def time_generation(network: Network, options: Mapping[str, Any]) -> Made:
    """Write the folders of some forms, and let transformers make tokens with each in turn.

    A form of which there is no folder is left out.
    """
    with tempfile.TemporaryDirectory(prefix="generation-") as name:
        folders = {"original": Path(network.model.removeprefix("hf:"))}
        for number, (label, form) in enumerate(options["forms"].items()):
            result = compressor.compress(**network.given, **form["options"])
            result.save(Path(name) / str(number))
            folder = Path(name) / str(number) / FORMATS[HF].file
            if folder.exists():  # else a note of the run says why
                folders[label] = folder
        sizes = {label: size_of_weights(folder) for label, folder in folders.items()}
        return network.module, {"generation": time_folders(folders), "bytes": sizes}


def time_forms(network: Network, options: Mapping[str, Any]) -> Made:
    """Make the forms, and time them against the original; one that cannot be made is told."""
    modules: dict[str, nn.Module] = {"original": network.module}
    left: dict[str, float] = {}
    failures: dict[str, str] = {}
    for label, form in options["forms"].items():
        try:
            module, found = TOOLS[form["tool"]](network, form["options"])
        except Exception as error:  # whatever a rival raises on a network
            failures[label] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        else:
            modules[label], left[label] = module, found["macs"][1] / found["macs"][0]
    asked = {name: options[name] for name in ("batches", "backends") if name in options}
    times = time_modules(modules, network.example, **asked)
    if "int8" in options:
        asked["backends"] = options["int8"]
        times += time_in_8_bits(modules, network.example, _samples(network), **asked)
    return network.module, {"times": times, "macs_left": left, "failures": failures}


def _samples(network: Network) -> list[torch.Tensor]:
    """Return a few batches of a network's data, or of noise like its example."""
    if network.train is None:
        generator = torch.Generator().manual_seed(0)
        shape = (8, *network.example.shape[1:])
        return [torch.randn(shape, generator=generator) for _ in range(2)]
    some = batches(data_of(network.train, "train"), 64, seed=0, limit=256)
    return [inputs.args[0] for inputs, _ in some]


TOOLS: Mapping[str, Callable[[Network, Mapping[str, Any]], Made]] = {
    OURS: make_ours,
    RIVAL: make_theirs,
    THEIR_CHOICE: make_their_choice,
    FLAP: make_by_fluctuation,
    CLOCK: time_forms,
    GENERATION: time_generation,
}


class Runner:
    """Carries out trials; the network of the latest one stays in memory."""

    def __init__(
        self, networks: Mapping[str, Callable[[Path], Network | FileNetwork]], root: Path
    ) -> None:
        self.networks, self.root, self.name = networks, root, ""

    def run(self, trial: Trial) -> Record:
        """Return what the trial finds."""
        if trial.network != self.name:
            self.network = self.networks[trial.network](self.root)
            self.name = trial.network
        if isinstance(self.network, FileNetwork):
            return make_of_file(self.network, trial.options)
        return TOOLS[trial.tool](self.network, trial.options)[1]


def by_network(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials, those of one network side by side, else in their order."""
    names = list(dict.fromkeys(trial.network for trial in trials))
    return sorted(trials, key=lambda trial: names.index(trial.network))
