"""What all tests share."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
import torch

from compressor.latency import LatencyTable, write_table
from compressor.latency.kernels import KERNELS
from compressor.latency.machine import machine_of, path_in_cache
from compressor.latency.measured_steps import Step
from compressor.report import report_schema, to_json
from compressor.run import deliver, footprints
from compressor.studies.export import worth

if "PYTEST_XDIST_WORKER" in os.environ:  # several run at once: each has a processor
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process neighbouring tests, which often look at one result that takes long to make.

    Whoever is done first takes some of another's. `--dist` asks for something else.
    """
    if config.getvalue("dist") != "load":  # what -n alone means
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


gc.disable()  # until all tests are collected: a quarter of that time went into it


def pytest_collection_finish() -> None:
    """Keep the collector of garbage away from what the libraries and the list of tests consist of.

    It is half a million objects that stay anyway. Looking through them again and again took a
    quarter of the tests' time, since a capture of a network makes and drops many.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


STEP = 4
"""Widths run well in steps of so many channels, as tests have it."""


@pytest.fixture(scope="session", autouse=True)
def known_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is left alone. This machine's steps are known there already, so that no test
    waits for them or depends on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        steps = {k: dict.fromkeys(kernel.stepped, Step(STEP)) for k, kernel in KERNELS.items()}
        for batch in (1, 2):
            machine = machine_of(1, batch, "cpu")
            write_table(LatencyTable(machine, steps), path_in_cache(machine))
        yield


@pytest.fixture(scope="session", autouse=True)
def latency_is_measured_briefly() -> Iterator[None]:
    """How long a network takes is no test's matter."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (footprints, worth):
            patch.setattr(module, "LATENCY_SECONDS", 0.05)
        yield


@pytest.fixture(scope="session", autouse=True)
def reports_are_of_the_schema() -> Iterator[None]:
    """Whichever test makes a report: it is what its schema says."""
    validator = jsonschema.Draft202012Validator(report_schema())

    def validated(report: Mapping[str, Any]) -> str:
        text = to_json(report)
        validator.validate(json.loads(text))
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliver, "to_json", validated)
        yield
