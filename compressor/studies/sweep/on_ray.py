"""Run trials on a Ray cluster, or on one that is started here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor import extras
from compressor.errors import UsageError
from compressor.machine import cores
from compressor.python_path import python_path
from compressor.studies.sweep.carrying_out import Outcome, Outcomes, Task, carry_out_trial

LOCAL = "local"


def check_ray() -> Any:
    """Return the Ray library.

    Raises:
        UsageError: It is not installed.
    """
    return extras.load("ray", "--ray", "--jobs N for processes on this machine")


def on_ray(tasks: Sequence[Task], jobs: int, address: str) -> Outcomes:
    """Run tasks on Ray, `jobs` at once, and yield each with its outcome as it ends.

    The machines of a cluster must have the package, and the files under the same paths.
    """
    ray = check_ray()
    with _connect(ray, jobs, address):
        share = _processors_each(ray, jobs)
        remote = ray.remote(num_cpus=share, max_retries=0)(_elsewhere)
        waiting, running = list(tasks), dict[Any, Task]()
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop(0)
                running[remote.remote(task)] = task
            for reference in ray.wait(list(running), num_returns=1)[0]:
                yield running.pop(reference), _outcome(ray, reference)


def _elsewhere(task: Task) -> Outcome:
    if Path(task.directory).is_dir():
        os.chdir(task.directory)
    return carry_out_trial(task)


def _outcome(ray: Any, reference: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Outcome(failure=f"Ray: {' '.join(str(error).split())[:500]}")
    return outcome


def _processors_each(ray: Any, jobs: int) -> int:
    """Return each job's share of all processors, no more than the largest machine has."""
    total = int(ray.cluster_resources().get("CPU", 1))
    largest = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    return max(1, min(largest, total // jobs))


@contextmanager
def _connect(ray: Any, jobs: int, address: str) -> Iterator[None]:
    if ray.is_initialized():  # the user's own connection
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            environment = {"env_vars": {"PYTHONPATH": python_path()}}
            processors = max(jobs, cores())
            ray.init(
                "local",
                num_cpus=processors,
                include_dashboard=False,
                runtime_env=environment,
                **quiet,
            )
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
        raise UsageError(
            f"there is no Ray cluster to connect to: {' '.join(str(error).split())[:300]}",
            where=f"--ray {address}",
            consequence="no trial was run; those that were kept are untouched",
            next_step="give the address of a running cluster (ray start --head), or --ray local",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
