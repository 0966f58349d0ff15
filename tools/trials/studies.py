"""Which trials there are."""

from __future__ import annotations

from collections.abc import Mapping

from tools.trials.trial import Trial

DRAWS = (0, 1, 2)
OF_WEIGHTS = ("l1", "l2", "lamp", "geometric-median", "bn-scale")
OF_DATA = ("random", "gradient", "taylor", "fisher", "activation", "wanda", "reconstruction")
INCUMBENT = ("tp magnitude L1", "tp magnitude L2", "tp LAMP", "tp FPGM", "tp BN scale")
INCUMBENT_OF_DATA = ("tp random", "tp Taylor")
SLOW = "tp Hessian"
"""It takes gradients of one image at a time."""
TIMES_FEWER = (1.25, 1.5, 2.0)
CURVE = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)


def removed(times: float) -> float:
    """The share that is gone where so many times fewer are left."""
    return 1 - 1 / times


def _selection() -> list[Trial]:
    """Choices alone; those that no draw changes are tried once."""
    once = (*OF_WEIGHTS, *INCUMBENT, SLOW)
    draws = dict.fromkeys(once, DRAWS[:1]) | dict.fromkeys((*OF_DATA, *INCUMBENT_OF_DATA), DRAWS)
    return [
        Trial(
            "selection",
            "ResNet-56",
            name,
            ratio=removed(times),
            draw=draw,
            inner=True,
            samples=64 if name == SLOW else 1024,
        )
        for name, numbers in draws.items()
        for times in TIMES_FEWER
        for draw in numbers
    ]


def _repair() -> list[Trial]:
    found = [
        Trial(
            "repair",
            "ResNet-56",
            "reconstruction",
            "least squares",
            removed(times),
            step,
            draw=draw,
        )
        for step in (1, 8)
        for times in CURVE
        for draw in DRAWS
    ]
    return found + [
        Trial("repair", "ResNet-20", "reconstruction", "least squares", removed(1.37), draw=draw)
        for draw in DRAWS
    ]


def _parts() -> list[Trial]:
    return [
        Trial("parts", "ResNet-56", choice, repair, draw=draw)
        for choice in ("l2", "reconstruction")
        for repair in ("none", "bias", "batch norm", "least squares")
        for draw in (DRAWS if choice == "reconstruction" or repair != "none" else DRAWS[:1])
    ]


def _samples() -> list[Trial]:
    return [
        Trial("samples", "ResNet-56", "reconstruction", "least squares", samples=samples, draw=draw)
        for samples in (64, 256, 1024)
        for draw in DRAWS
    ]


def _augmented() -> list[Trial]:
    return [
        Trial(
            *("augmented", network, "reconstruction", "least squares", removed(times)),
            draw=draw,
            augment=True,
        )
        for network, times in (("ResNet-56", 1.5), ("ResNet-56", 2.0), ("ResNet-20", 1.37))
        for draw in DRAWS
    ]


def _networks() -> list[Trial]:
    ways = (
        ("l2", "none"),
        ("wanda", "none"),
        ("reconstruction", "none"),
        ("l2", "least squares"),
        ("wanda", "least squares"),
        ("reconstruction", "least squares"),
    )
    return [
        Trial("networks", network, choice, repair, ratio, samples=samples, draw=draw)
        for network, ratio, samples in (
            ("stories260k", 0.25, 256),
            ("MobileNet-V2", 0.25, 84),
            ("Vision Transformer", 0.25, 1024),
        )
        for choice, repair in ways
        for draw in (DRAWS[:1] if (choice, repair) == ("l2", "none") else DRAWS)
    ]


STUDIES: Mapping[str, list[Trial]] = {
    "selection": _selection(),
    "repair": _repair(),
    "parts": _parts(),
    "samples": _samples(),
    "augmented": _augmented(),
    "networks": _networks(),
}
