"""Times the original and the smaller network of this folder on this machine.

    python bench.py [--threads 1] [--batch 1] [--seconds 5] [--layers] [--json FILE]
    python bench.py --table FILE [--threads 1]

Needs Python >= 3.8, onnxruntime and numpy, nothing else. It times as `compress bench` does: random
data, warm-up dropped, threads pinned; both networks take turns, the original a second time, which
shows the noise. --table times the original's layers at many widths instead: then
`compress MODEL --of latency --latency-table FILE` finds, on any machine, the network that is fast
on this one.
"""

import argparse
import base64
import gzip
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

HERE = Path(__file__).resolve().parent
LAYERS = HERE / "layers.json.gz"
NETWORKS = {"before": HERE / "original.onnx", "after": HERE / "model.onnx"}
FLOATS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
INTEGERS = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
ROUNDS, FEWEST = 15, 5
WARM_UP_SECONDS, WARM_UP_CALLS = 0.5, 5
RESAMPLES, INTERVAL = 2000, (2.5, 97.5)
CALLS, LEAST, FIRST, SECONDS = 30, 8, 3, 3.0
KERNEL = "_kernel_time"


def make_options(threads, record=None, shares_memory=False):
    """Session options; `record` begins the path of the runtime's record of its operators."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if record is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(record)
    if shares_memory:
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def draw_inputs(session, batch):
    """Random inputs by name; whole numbers are ones, which are nearly always valid."""
    rng, feeds = np.random.default_rng(0), {}
    said = session.get_modelmeta().custom_metadata_map
    usual = json.loads(said.get("compress.sizes", "{}"))
    for spec in session.get_inputs():
        known = usual.get(spec.name, [])
        shape = [
            size if isinstance(size, int) else (known[i : i + 1] or [batch])[0] if i else batch
            for i, size in enumerate(spec.shape)
        ]
        feeds[spec.name] = (
            rng.standard_normal(shape).astype(FLOATS[spec.type])
            if spec.type in FLOATS
            else np.ones(shape, INTEGERS[spec.type])
        )
    return feeds


def open_network(path, batch, provider, options):
    """The session of a network and a call of it on random inputs."""
    session = ort.InferenceSession(str(path), options, providers=[provider])
    feeds = draw_inputs(session, batch)
    return session, lambda: session.run(None, feeds)


def repeat(seconds, least, most=math.inf):
    """0, 1, 2, ... until the seconds are over: `least` numbers at least, `most` at most."""
    end, done = time.perf_counter() + seconds, 0
    while done < least or (done < most and time.perf_counter() < end):
        yield done
        done += 1


def clock(call):
    """Milliseconds of one call."""
    begin = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - begin)


def take_turn(call, seconds, by=clock):
    """Milliseconds of each call of one turn; one more call comes first and is not counted."""
    call()
    return [by(call) for _ in repeat(seconds, 1)]


def time_in_turns(calls, seconds, tick=lambda done, total: None):
    """Milliseconds of each call, by name and round; slow networks get fewer rounds, five at least.

    Every other round goes the other way.
    """
    for call in calls.values():
        for _ in repeat(WARM_UP_SECONDS, WARM_UP_CALLS):
            clock(call)
    rounds = {name: [] for name in calls}
    for done in repeat(2 * seconds, FEWEST, ROUNDS):
        tick(done, ROUNDS)
        for name in calls if done % 2 == 0 else reversed(calls):
            rounds[name].append(take_turn(calls[name], seconds / ROUNDS / len(calls)))
    return rounds


def open_calls(paths, threads, batch, provider):
    """Calls of networks, by name."""
    sessions = {
        name: open_network(path, batch, provider, make_options(threads))
        for name, path in paths.items()
    }
    return {name: call for name, (_, call) in sessions.items()}


def time_networks(threads, batch, seconds, provider):
    """Time both networks, the original a second time, which shows the noise."""
    paths = {**NETWORKS, "before again": NETWORKS["before"]}
    return time_in_turns(open_calls(paths, threads, batch, provider), seconds)


def percentiles_of(rounds):
    """The 50th, 90th and 99th percentile of all calls."""
    return [float(p) for p in np.percentile(np.concatenate(rounds), [50, 90, 99])]


def ratio_of(baseline, other):
    """How many times longer the baseline takes, and the interval of 95 % confidence.

    Rounds are drawn anew, both networks' together.
    """
    pairs = [np.array([np.median(times) for times in rounds]) for rounds in (baseline, other)]
    value, count = float(np.median(pairs[0]) / np.median(pairs[1])), len(pairs[0])
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    one, two = (np.median(medians[drawn], axis=1) for medians in pairs)
    return [value, *(float(end) for end in np.percentile(one / two, INTERVAL))]


def record_operators(path, threads, batch, provider):
    """Name, kind and milliseconds of every call of each operator, as the runtime records them."""
    with tempfile.TemporaryDirectory() as folder:
        options = make_options(threads, Path(folder) / "profile")
        session, call = open_network(path, batch, provider, options)
        for _ in repeat(SECONDS, LEAST, CALLS + FIRST):
            call()
        return list(read_record(session))


def time_layers(path, threads, batch, provider):
    """Median milliseconds of each operator."""
    by_name = {}
    for name, _, ms in record_operators(path, threads, batch, provider):
        by_name.setdefault(name, []).append(ms)
    return {name: statistics.median(times[FIRST:] or times) for name, times in by_name.items()}


def read_record(session):
    """Name, kind and milliseconds of every call of an operator."""
    for event in json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")):
        if event["cat"] == "Node" and event["name"].endswith(KERNEL):
            kind = event.get("args", {}).get("op_name", "")
            yield event["name"][: -len(KERNEL)], kind, event["dur"] / 1000


def usual(times):
    """The mean of the middle half."""
    quarter = len(times) // 4
    return float(np.mean(sorted(times)[quarter : len(times) - quarter]))


def open_layer(network, threads, prefix, numbers):
    """A session of one layer and its inputs, which are parts of the same memory for all layers."""
    options = make_options(threads, prefix, shares_memory=True)
    session = ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    feeds, end = {}, 0
    for spec in session.get_inputs():
        count = math.prod(spec.shape)
        if spec.type in INTEGERS:
            feeds[spec.name] = np.ones(spec.shape, INTEGERS[spec.type])
        else:
            feeds[spec.name] = np.resize(numbers[end : end + count], spec.shape)
            end += count
    session.run(None, feeds)
    return session, feeds


def time_turns_of_layers(networks, threads, beside, numbers):
    """Milliseconds of each layer; they take turns call by call.

    Helpers and changes of layout, which a layer among others does not need, do not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        calls = [
            open_layer(network, threads, Path(folder) / str(number), numbers)
            for number, network in enumerate(networks)
        ]
        for _ in repeat(0.01 * len(calls), 3, 20):
            for session, feeds in calls:
                session.run(None, feeds)
        for session, _ in calls:
            by_name = {}
            for name, kind, ms in read_record(session):
                if kind not in ("ReorderInput", "ReorderOutput") and not name.startswith(beside):
                    by_name.setdefault(name, []).append(ms)
            yield sum(usual(times[1:]) for times in by_name.values())


def name_processor():
    info, name = Path("/proc/cpuinfo"), platform.processor()
    if info.exists():
        pairs = (line.partition(":") for line in info.read_text().splitlines())
        name = next((value.strip() for key, _, value in pairs if key.strip() == "model name"), name)
    return f"{name} ({platform.machine()})".strip()


def describe_machine():
    return {
        "processor": name_processor(),
        "cores": os.cpu_count(),
        "runtime": f"onnxruntime {ort.__version__}",
    }


def share_memory():
    """Let all layers use one pool of memory; the numbers that are inputs to them."""
    kinds = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", *kinds), None)
    return np.resize(np.linspace(0.5, 1.5, 1019, dtype=np.float32), 1 << 24)


def measure_table(threads):
    """The times of all layers in the form that compress reads.

    Of three looks at each the least counts: what else the machine does makes a layer seem slower,
    never faster.
    """
    told = json.loads(gzip.decompress(LAYERS.read_bytes()))
    numbers = share_memory()
    times = {signature: {} for signature in told["layers"]}
    done, total = 0, 3 * len(times)
    for _ in range(3):
        for signature, points in told["layers"].items():
            names, coded = list(points), list(points.values())
            rounds = -(-len(names) // 32)
            for first in range(rounds):
                networks = [base64.b64decode(text) for text in coded[first::rounds]]
                measured = time_turns_of_layers(networks, threads, told["beside"], numbers)
                for name, ms in zip(names[first::rounds], measured):  # noqa: B905 (Python 3.8)
                    times[signature][name] = min(ms, times[signature].get(name, ms))
            done += 1
            print(f"\r{done} of {total} layers", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    machine = {
        **describe_machine(),
        "device": "cpu",
        "threads": threads,
        "batch": told["batch"],
        "dtype": "float32",
    }
    return {"schema": 1, "machine": machine, "steps": told["steps"], "times": times}


def pin(threads):
    """Keep to as many processors as there are threads, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def write(path, content):
    """Whole or not at all."""
    half = Path(f"{path}.part")
    half.write_text(json.dumps(content, indent=1) + "\n")
    half.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--provider", default="CPUExecutionProvider")
    parser.add_argument("--layers", action="store_true", help="also the time of each operator")
    parser.add_argument("--json", metavar="FILE", help="write what was found there")
    parser.add_argument("--table", metavar="FILE", help="time the layers, and write them there")
    asked = parser.parse_args()
    if asked.table:
        if not LAYERS.exists():
            sys.exit(f"error: {LAYERS.name} should lie beside this script")
        write(asked.table, measure_table(asked.threads))
        return
    missing = [path.name for path in NETWORKS.values() if not path.exists()]
    if missing:
        sys.exit(f"error: {', '.join(missing)} should lie beside this script")
    if asked.provider == "CPUExecutionProvider":
        pin(asked.threads)
    try:
        rounds = time_networks(asked.threads, asked.batch, asked.seconds, asked.provider)
    except Exception as error:
        sys.exit(f"error: ONNX Runtime does not run the networks: {error}")
    print(
        f"onnxruntime {ort.__version__}, {platform.machine()}, {asked.provider}, "
        f"threads {asked.threads}, batch {asked.batch}"
    )
    results = {"ms": {name: percentiles_of(rounds[name])[0] for name in NETWORKS}, **vars(asked)}
    for name in NETWORKS:
        p50, p90, p99 = percentiles_of(rounds[name])
        print(f"{name:>7}  p50 {p50:9.3f} ms  p90 {p90:9.3f} ms  p99 {p99:9.3f} ms")
    faster, low, high = results["faster"] = ratio_of(rounds["before"], rounds["after"])
    results["noise"] = abs(ratio_of(rounds["before"], rounds["before again"])[0] - 1)
    print(
        f"{faster:.2f}x faster ({low:.2f} to {high:.2f}); "
        f"the original differs from itself by {results['noise']:.1%}"
    )
    if asked.layers or asked.json:
        both = results["layers"] = {
            name: time_layers(path, asked.threads, asked.batch, asked.provider)
            for name, path in NETWORKS.items()
        }
    if asked.layers:
        print(f"\n{'before':>10} {'after':>10}  ms by operator")
        for name in dict.fromkeys([*both["before"], *both["after"]]):
            pair = (both[which].get(name) for which in ("before", "after"))
            cells = " ".join(f"{ms:10.4f}" if ms is not None else " " * 10 for ms in pair)
            print(f"{cells}  {name}")
    if asked.json:
        write(asked.json, results)


if __name__ == "__main__":
    main()
