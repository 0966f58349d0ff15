"""The studies as data: which rows each compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.files.format_table import FORMATS, NCNN, TARGETS
from tools.studies.methods import (
    METHODS,
    RUNTIMES,
    SEEDS,
    STREAMS,
    Row,
    fewer,
    of,
    timed,
    timed_on,
)
from tools.studies.networks import STORIES_FOLDER, TIMED
from tools.studies.packages.files import FILES
from tools.studies.torch_pruning import IMPORTANCES
from tools.studies.trial import CLOCK, FLAP, GENERATION, OURS, RIVAL, THEIR_CHOICE, Trial

MINILM = "all-MiniLM-L6-v2"
RECIPE: Mapping[str, Any] = {"augment": "crop-flip", "batch_size": 128}
"""How networks of CIFAR-10 are trained; Torch-Pruning's results by the network's own record."""


REACHED = 0.62
"""The share of ResNet-56's time that Torch-Pruning gets to where half of it is asked for."""


@dataclass(frozen=True)
class Study:
    """Attributes:
    about: What it compares.
    hours: How long it takes by one process on two cores, seen or guessed.
    rows: Its trials, the most telling first.
    """

    about: str
    hours: float
    rows: Sequence[Row]


def _repair() -> Iterator[Row]:
    """The widest question first: both tools at the budgets that other pages have, too."""
    for network, times in (("ResNet-20", 2.0), ("ResNet-20", 1.37), ("ResNet-56", 2.0)):
        yield from of(network, ("ours",), times, SEEDS)
        yield from of(network, ("Torch-Pruning",), times)
    for network in ("ResNet-56", "ResNet-20"):
        for times in (1.5, 2.5, 3.0):
            yield from of(network, ("ours",), times, SEEDS)
            yield from of(network, ("Torch-Pruning",), times)
    for times in (1.5, 2.0, 2.5, 3.0):
        yield from of("ResNet-56", ("ours, --round-to 8",), times, SEEDS)


def _selection() -> Iterator[Row]:
    """Choices alone, inside blocks."""
    criteria = ("l1", "l2", "lamp", "geometric-median", "bn-scale", "taylor", "fisher", "gradient")
    alone = {"round_to": 1, "repair": False, "protect": STREAMS}
    for times in (1.25, 1.5, 2.0):
        for name in (*criteria, "activation", "wanda", "reconstruction", "random"):
            asked = {**alone, "criterion": name, "ratio": fewer(times)}
            yield Row(name, Trial("ResNet-56", OURS, asked))
        for name in IMPORTANCES:
            asked = {"importance": name, "ratio": fewer(times)}
            yield Row(f"tp {name}", Trial("ResNet-56", RIVAL, asked))


def _calibration() -> Iterator[Row]:
    """How many images, and changed copies of them."""
    for samples in (64, 256):
        for row in of("ResNet-56", ("ours",), 2.0, SEEDS, calibration=samples):
            yield Row(f"ours, --calibration {samples}", row.trial)
    for row in of("ResNet-56", ("ours",), 2.0, SEEDS, augment="crop-flip"):
        yield Row("ours, --augment crop-flip", row.trial)


def _networks() -> Iterator[Row]:
    for network in ("stories260k", "MobileNet-V2", "Vision Transformer"):
        for criterion in ("l2", "wanda", "reconstruction"):
            for repair in (False, True):
                asked = {"round_to": 1, "criterion": criterion, "repair": repair, "ratio": 0.25}
                label = f"{criterion}{', repair' if repair else ''}"
                yield Row(label, Trial(network, OURS, asked))


def _training() -> Iterator[Row]:
    compared = ("ours", "Torch-Pruning", "uniform L1", "random", "ours, inside blocks")
    for network, epochs in (("ResNet-20", 5), ("ResNet-56", 1)):
        yield from _cut_then_trained(network, compared, epochs)
        yield timed(network, compared)


def _cut_then_trained(
    network: str,
    compared: Sequence[str],
    epochs: int,
    seeds: Sequence[int] = (0,),
    times: float = 2.0,
) -> Iterator[Row]:
    for label in compared:
        own = RECIPE if METHODS[label].tool == OURS else {}
        yield from of(network, (label,), times, seeds, epochs=epochs, **own)


def _peers() -> Iterator[Row]:
    """After the same training."""
    both = ("ours", "ours, --round-to 8", "Torch-Pruning")
    budgets = {"MobileNet-V1": (1.25, 3), "MobileNet-V2": (1.25, 3), "character GPT": (1.5, 1)}
    for network, (times, epochs) in budgets.items():
        yield from of(network, both, times, epochs=epochs)
        yield timed(network, both, times)


def _latency() -> Iterator[Row]:
    compared = (
        *("ours, defaults", "ours, --criterion l2", "ours, --round-to 8"),
        *("Torch-Pruning", "Torch-Pruning, round_to=8"),
    )
    yield timed("ResNet-56", compared)
    for network in TIMED:
        batches = (1, 8) if network == "vit_b_16" else (1, 32)
        yield timed(
            network, tuple(c for c in compared if c != "ours, --criterion l2"), 2.0, batches
        )
    for network in ("ResNet-56", *TIMED):
        yield from of(network, ("ours, --of latency",))


def _equal_time() -> Iterator[Row]:
    ours = ("ours, --of latency", "ours, --of latency --search 0")
    for network, shares in (("ResNet-56", (0.6, 0.5, 0.7, 0.8)), ("ResNet-20", (0.6, 0.5))):
        for share in shares:
            yield from of(network, ours, 1 / share)
            yield from of(network, ("Torch-Pruning, by measured time",), 1 / share)
    theirs = [label for label, method in METHODS.items() if method.tool == THEIR_CHOICE]
    yield from of("ResNet-56", theirs, 2.0)
    for times in (4 / 3, 3.0):
        yield from of("ResNet-56", theirs[1:2], times)
    for network in ("stories260k", "MobileNet-V2"):
        yield from of(network, ours, 2.0)
    yield from of("Vision Transformer", ours[:1], 2.0)  # out of reach for channels alone
    for share in (0.6, 0.5, 0.7, 0.8):
        yield from of("ResNet-56", ours, 1 / share, SEEDS[1:])


def _equal_time_trained() -> Iterator[Row]:
    compared = ("ours, --of latency", "Torch-Pruning, round_to=8, by measured time")
    for epochs in (1, 5):
        for network in ("ResNet-20", "ResNet-56"):
            yield from _cut_then_trained(network, compared, epochs, SEEDS)
    yield from _cut_then_trained("ResNet-56", compared[:1], 1, SEEDS, 1 / REACHED)


def _trained() -> Iterator[Row]:
    """Networks that packages carry, and a language model: nothing trained, and one epoch."""
    alone = ("ours, --criterion l2 --no-repair", "ours, --criterion wanda --no-repair")
    theirs = ("Torch-Pruning", "Torch-Pruning, round_to=8")
    with_norms = (*theirs, "Torch-Pruning, batch norm re-estimated")
    rivals = {"EfficientNet-lite0": with_norms, "voice encoder": (), MINILM: theirs}
    for times in (2.0, 4 / 3):
        for network, both in rivals.items():  # Torch-Pruning cuts no recurrent layers
            yield from of(network, ("ours, defaults", *both, *alone), times)
    for network, both in rivals.items():
        for times in (4 / 3, 2.0):
            yield from of(network, ("ours, defaults", *both[:1]), times, epochs=1)
        for share in (0.75, 0.5):
            yield from of(network, ("ours, --of latency",), 1 / share)


def _downloaded() -> Iterator[Row]:
    """Networks of images whose weights are in the data folder; ResNets learn in `training`."""
    compared = (
        *("ours, defaults", "Torch-Pruning", "Torch-Pruning, round_to=8"),
        "Torch-Pruning, batch norm re-estimated",
        *("ours, --criterion l2 --no-repair", "ours, --criterion wanda --no-repair"),
    )
    learning = ("MobileNet-V2", "MobileNet-V1")
    for network in (*learning, "ResNet-20", "ResNet-56"):
        for times in (4 / 3, 2.0):
            yield from of(network, compared, times)
            if network in learning:
                yield from of(network, ("ours, defaults", "Torch-Pruning"), times, epochs=1)
            yield from of(network, ("ours, --of latency",), times)


def _language() -> Iterator[Row]:
    """A transformers folder: widths that its configuration says, any widths, and layers."""
    folder, free = {"format": ("hf",)}, {"format": ("pt2",), "uniform": False}
    alone = {**free, "repair": False, "prune": ()}
    ours: Mapping[str, Mapping[str, Any]] = {
        "--format hf": folder,
        "--format hf --prune block": {**folder, "prune": ("block",)},
        "--no-uniform": {**free, "prune": ()},
        "--no-uniform --prune block": {**free, "prune": ("block",)},
        "--no-uniform --criterion l2 --no-repair": {**alone, "criterion": "l2"},
        "--no-uniform --criterion wanda --no-repair": {**alone, "criterion": "wanda"},
        "--no-uniform --criterion flap --no-repair": {**alone, "criterion": "flap"},
    }
    for ratio in (0.25, 0.5):
        for label, options in ours.items():
            yield Row(label, Trial(STORIES_FOLDER, OURS, {**options, "ratio": ratio}))
        yield Row("FLAP, with biases", Trial(STORIES_FOLDER, FLAP, {"ratio": ratio}))
        yield Row("Torch-Pruning", Trial(STORIES_FOLDER, RIVAL, {"ratio": ratio}))
        trained = {**folder, "ratio": ratio, "epochs": 1}
        yield Row("--format hf", Trial(STORIES_FOLDER, OURS, trained))
    forms = {f"{ratio:.0%} fewer": {**folder, "ratio": ratio} for ratio in (0.25, 0.5)}
    forms |= {f"{n}, layers too": {**o, "prune": ("block",)} for n, o in forms.items()}
    made = {label: {"tool": OURS, "options": options} for label, options in forms.items()}
    yield Row("generation", Trial(STORIES_FOLDER, GENERATION, {"forms": made}))


LOOPBACK = "ssh:loopback"
"""A name of the user's ssh configuration: this machine, through its own sshd."""
CLOCKS = {"cpu": "ONNX Runtime", **{name: FORMATS[name].backends[name] for name in TARGETS}}


def _runtimes() -> Iterator[Row]:
    """Half of the multiply-adds in each runtime; half of the time by one, and on the others."""
    for network in ("ResNet-56", *TIMED):
        yield timed_on(network, ("ours, defaults", "Torch-Pruning, round_to=8"))
    forms = {}
    for clock, title in CLOCKS.items():
        options = {"of": "latency", "latency_on": clock, "ratio": 0.5, "search": 0}
        forms[f"half of the time in {title}"] = {"tool": OURS, "options": options}
        for network in ("ResNet-56", "mobilenet_v2"):
            if (network, clock) != ("ResNet-56", NCNN):  # which has no steps in slices
                yield Row(f"--latency-on {clock}", Trial(network, OURS, options))
    for network in ("ResNet-56", "mobilenet_v2"):
        options = {"of": "latency", "on": LOOPBACK, "ratio": 0.5, "search": 0}
        yield Row(f"--on {LOOPBACK}", Trial(network, OURS, options))
    across = {"forms": forms, "batches": [1], "backends": list(RUNTIMES)}
    yield Row("time", Trial("mobilenet_v2", CLOCK, across))


def _sentences() -> Iterator[Row]:
    """The sentence encoder's rows of `trained`, and its time beside Torch-Pruning's."""
    for row in _trained():
        if row.trial.network == MINILM:
            yield row
    yield timed(MINILM, ("ours, defaults", "Torch-Pruning"))


def _blocks() -> Iterator[Row]:
    """Whole blocks at a budget of multiply-adds, where they do not go without being asked for."""
    for times in (2.0, 3.0, 4.0):
        yield from of("ResNet-56", ("ours", "ours, --prune block"), times)


FILE_OPTIONS: Mapping[str, Any] = {"batch_size": 16, "format": ("onnx",)}
"""Maps of whole pictures are large: a batch of few takes less memory."""


def _packages() -> Iterator[Row]:
    """Files that packages carry: the defaults, and what choice and repair each bring."""
    by_size = {"ratio": 0.5, "criterion": "l2"}
    ways = {
        "--ratio 0.5": {"ratio": 0.5},
        "--ratio 0.5 --criterion l2": by_size,
        "--ratio 0.5 --criterion l2 --no-repair": {**by_size, "repair": False},
        "--ratio 0.25": {"ratio": 0.25},
        "--of latency --ratio 0.5": {"ratio": 0.5, "of": "latency"},
    }
    for words, asked in ways.items():
        for network in FILES:
            yield Row(words, Trial(network, OURS, {**FILE_OPTIONS, **asked}))


STUDIES: Mapping[str, Study] = {
    "repair": Study("ours with repair, Torch-Pruning, nothing trained", 2.5, [*_repair()]),
    "selection": Study("criteria and importances alone", 2.0, [*_selection()]),
    "calibration": Study("how many images, and changed copies", 0.8, [*_calibration()]),
    "networks": Study("a language model, a MobileNet, a transformer", 0.5, [*_networks()]),
    "training": Study("the same training after each", 2.0, [*_training()]),
    "peers": Study("networks of other kinds, trained", 1.0, [*_peers()]),
    "latency": Study("time at half of the MACs, half of the time", 1.5, [*_latency()]),
    "equal time": Study("accuracy at equal measured time", 2.0, [*_equal_time()]),
    "equal time training": Study(
        "half of the time, the same training after it", 5.0, [*_equal_time_trained()]
    ),
    "trained": Study("trained networks of packages, choice, repair, training", 3.0, [*_trained()]),
    "downloaded": Study("trained networks of the data folder", 1.0, [*_downloaded()]),
    "language": Study("a language model's folder", 0.5, [*_language()]),
    "sentences": Study("a sentence encoder's folder", 1.0, [*_sentences()]),
    "runtimes": Study("other runtimes", 1.0, [*_runtimes()]),
    "packages": Study("ONNX files that Python packages carry", 0.4, [*_packages()]),
    "blocks": Study("whole blocks at fewer multiply-adds", 0.7, [*_blocks()]),
}
