"""Calls are timed in one way, by `compress bench` and by the script in a result's folder alike."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

import compressor
from compressor import clock
from compressor.latency import operators
from compressor.latency.statistics import ratio_of, summary_of, usual
from compressor.runtimes import onnx
from compressor.studies.bench import Way, turns

PACKAGE = Path(compressor.__file__).parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The portable bench.py, as a module."""
    path = PACKAGE / "report" / "templates" / "bench.py"
    spec = importlib.util.spec_from_file_location("portable_bench", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which passes when a test says so."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(clock.time, "thread_time", lambda: now[0] / 2)
    return now


def take(moment: list[float], seconds: Iterator[float], log: list[Any], name: str) -> None:
    log.append(name)
    moment[0] += next(seconds)


def test_turns_leave_out_the_first_call_and_end_with_their_time(moment: list[float]) -> None:
    call = partial(take, moment, iter([9.0, 1.0, 2.0, 4.0, 9.0, 8.0]), [], "")
    assert clock.take_turn(call, 3.5, clock.by_wall) == [1000, 2000, 4000]
    assert clock.take_turn(call, 3.5, clock.by_wall_and_processor) == [(8000, 4000)]


def test_a_loop_ends_after_its_time_but_has_a_least_and_a_most(moment: list[float]) -> None:
    def numbers(seconds: float, least: int, most: float) -> list[int]:
        found = []
        for number in clock.repeat(seconds, least, most):
            found.append(number)
            moment[0] += 1
        return found

    assert numbers(2.5, 1, 9) == [0, 1, 2]
    assert numbers(2.5, 5, 9) == [0, 1, 2, 3, 4]
    assert numbers(2.5, 1, 2) == [0, 1]


def fields_of(options: Any) -> dict[str, Any]:
    """All that can be read of session options."""
    names = [n for n in dir(options) if not n.startswith("_") and n != "profile_file_prefix"]
    plain = {n: getattr(options, n) for n in names if not callable(getattr(options, n))}
    entries = ("session.force_spinning_stop", "session.use_env_allocators")
    for entry in entries:
        try:
            plain[entry] = options.get_session_config_entry(entry)
        except RuntimeError:  # it has no such entry
            plain[entry] = None
    return plain


@pytest.mark.parametrize("more", [{}, {"record": Path("x")}, {"shares_memory": True}])
def test_sessions_have_the_same_options(script: ModuleType, more: dict[str, Any]) -> None:
    ours = fields_of(onnx.make_options(3, **more))
    assert fields_of(script.make_options(3, **more)) == ours
    assert ours["intra_op_num_threads"] == 3
    assert ours != fields_of(onnxruntime.SessionOptions())


def test_the_same_warm_up_and_turns(script: ModuleType, moment: list[float]) -> None:
    """Calls of known times, in the same order, give the same numbers."""

    class Ready:
        def __init__(self, call: Callable[[], object]) -> None:
            self.call = call
            clock.warm_up(partial(clock.by_wall, call))

        def round(self, seconds: float) -> dict[str, Any]:
            return {"ms": clock.take_turn(self.call, seconds, clock.by_wall), "peak_mb": 0.0}

    def calls(log: list[str]) -> dict[str, Callable[[], object]]:
        moment[0], seconds = 0.0, (0.01 * (1 + (7 * n) % 5) for n in count())
        return {name: partial(take, moment, seconds, log, name) for name in ("a", "b", "a again")}

    theirs: list[str] = []
    rounds = script.time_in_turns(calls(theirs), 6.0)
    ours: list[str] = []
    contestants = [Ready(call) for call in calls(ours).values()]
    way = Way("onnxruntime", "cpu", 1, 1)
    first, second = turns.in_turns(["a", "b"], contestants, way, seconds=6.0, seed=0)
    assert theirs == ours
    assert len(ours) > 200
    for name, record in (("a", first), ("b", second)):
        assert script.percentiles_of(rounds[name]) == [
            record["ms"][p] for p in ("p50", "p90", "p99")
        ]
    assert script.ratio_of(rounds["a"], rounds["b"]) == list(second["faster"].values())
    assert script.ratio_of(rounds["a"], rounds["a again"]) == list(first["faster"].values())


def test_the_same_statistics_of_recorded_numbers(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    one, other = (
        [list(ms + rng.random(4 + n)) for n in range(script.ROUNDS)] for ms in (10.0, 5.0)
    )
    found, summary = ratio_of(one, other), summary_of(one)
    assert script.ratio_of(one, other) == [found.value, found.low, found.high]
    assert script.percentiles_of(one) == [summary.p50, summary.p90, summary.p99]
    assert script.usual(one[9]) == usual(one[9])


def test_the_same_record_is_read(script: ModuleType, tmp_path: Path) -> None:
    class Session:
        def end_profiling(self) -> str:
            return str(tmp_path / "record.json")

    (tmp_path / "record.json").write_text(
        '[{"cat": "Session", "name": "run", "dur": 9}, {"cat": "Node", "name": "a_fence_before", '
        '"dur": 1}, {"cat": "Node", "name": "a_kernel_time", "dur": 1500, '
        '"args": {"op_name": "Conv"}}, {"cat": "Node", "name": "b_kernel_time", "dur": 2}]'
    )
    found = [(kernel.name, kernel.kind, kernel.ms) for kernel in onnx.read_record(Session())]
    assert found == list(script.read_record(Session())) == [("a", "Conv", 1.5), ("b", "", 0.002)]
    ours = (operators.CALLS, operators.LEAST, operators.WARM_UP, operators.SECONDS)
    assert ours == (script.CALLS, script.LEAST, script.FIRST, script.SECONDS)


def test_sessions_are_opened_and_calls_repeated_in_one_place() -> None:
    """Elsewhere nobody names what opens a session, reads its record or repeats calls for a time."""
    homes = {
        "InferenceSession(": "runtimes/onnx.py",
        "SessionOptions(": "runtimes/onnx.py",
        "end_profiling(": "runtimes/onnx.py",
        "thread_time(": "clock.py",
        "perf_counter() < ": "clock.py",
    }
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for words, home in homes.items():
            if words in text and "templates" not in path.parts:
                assert path.relative_to(PACKAGE).as_posix() == home, f"{path} has {words}"
