"""Run trials: here, in processes of their own, or on a Ray cluster."""

from __future__ import annotations

import pickle
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import Any

from compressor.errors import UsageError
from compressor.machine import cores
from compressor.python_path import environment
from compressor.studies.sweep.carrying_out import Outcome, Outcomes, Task, Tell, carry_out_trial
from compressor.unexpected import is_debugging

Tells = Callable[[Task, str], None]
"""A function that is told which trial is doing what."""


def run_all(tasks: Sequence[Task], jobs: int, ray: str | None, tells: Tells) -> Outcomes:
    """Run all tasks where the options say, and yield each with its outcome as it ends."""
    if ray is not None:
        from compressor.studies.sweep.on_ray import on_ray

        return on_ray(tasks, jobs, ray)
    return in_processes(tasks, jobs, tells) if jobs > 1 else here(tasks, tells)


def here(tasks: Sequence[Task], tells: Tells) -> Outcomes:
    """Run tasks one after the other in this process, and yield each with its outcome."""
    for task in tasks:
        yield task, carry_out_trial(task, _for(task, tells))


def in_processes(tasks: Sequence[Task], jobs: int, tells: Tells) -> Outcomes:
    """Run `jobs` tasks at once in processes that share out the processors.

    Each task is yielded with its outcome as it ends. A process that dies is a failed trial.

    Raises:
        UsageError: The network or the data cannot be pickled.
    """
    for task in tasks[:1]:
        _check_travels(task)
    workers = _Workers(min(jobs, len(tasks)), max(1, cores() // jobs))
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(workers.run, task, _for(task, tells)): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        workers.end()
        pool.shutdown(cancel_futures=True)
        workers.end()  # one may have been starting meanwhile


def _for(task: Task, tells: Tells) -> Tell:
    return lambda text: tells(task, text)


def _check_travels(task: Task) -> None:
    try:
        pickle.dumps(task)
    except Exception as error:  # pickling asks the user's classes
        raise UsageError(
            f"the network or the data cannot be handed to another process: {error}",
            where="--jobs",
            consequence="nothing was done",
            next_step="jobs=1, or name them: 'path/file.py:callable' instead of an object",
        ) from None


class _Workers:
    """Processes that wait for tasks; started when first needed, and anew after one has died."""

    def __init__(self, count: int, threads: int) -> None:
        self._threads = threads
        self._idle: queue.Queue[_Worker | None] = queue.Queue()
        self._all: list[_Worker] = []
        self._is_over = False
        for _ in range(count):
            self._idle.put(None)

    def run(self, task: Task, tell: Tell) -> Outcome:
        worker = self._idle.get()
        try:
            if self._is_over:
                return Outcome(failure="the sweep has ended")
            if worker is None:
                worker = _Worker(self._threads)
                self._all.append(worker)
            return worker.run(task, tell)
        except _DiedError as error:
            worker = None
            return Outcome(failure=str(error))
        finally:
            self._idle.put(worker)

    def end(self) -> None:
        self._is_over = True
        for worker in self._all:
            worker.end()


class _DiedError(Exception):
    """The error raised where a worker's process has ended."""


class _Worker:
    """A process of the module `pool_worker`: tasks go in, texts and outcomes come out."""

    def __init__(self, threads: int) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "compressor.studies.sweep.pool_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if is_debugging() else subprocess.DEVNULL,
            env={**environment(), "OMP_NUM_THREADS": str(threads)},
        )

    def run(self, task: Task, tell: Tell) -> Outcome:
        try:
            self._send(task)
            while True:
                answer = self._receive()
                if isinstance(answer, Outcome):
                    return answer
                tell(answer)
        except (OSError, EOFError, pickle.UnpicklingError, ValueError):
            code = self._code()
            reason = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
            raise _DiedError(f"its process ended: {reason}; is there memory enough?") from None

    def _code(self) -> int:
        with suppress(subprocess.TimeoutExpired):
            return self._popen.wait(5)
        self.end()
        return self._popen.wait()

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        self._popen.kill()
        self._popen.wait()

    def _send(self, task: Task) -> None:
        assert self._popen.stdin is not None
        pickle.dump(task, self._popen.stdin)
        self._popen.stdin.flush()

    def _receive(self) -> Any:
        assert self._popen.stdout is not None
        return pickle.load(self._popen.stdout)
