"""Times the original and the smaller network of this folder on this machine.

    python bench.py [--threads 1] [--batch 1] [--seconds 5] [--layers] [--json FILE]
    python bench.py --table FILE [--threads 1]

Needs onnxruntime and numpy, nothing else. Both networks take turns; random data, the first call of
each turn is not counted. --table times the original's layers at many widths instead: then
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
TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def options_of(threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def opened(path, options, batch, provider):
    """A session and its inputs; whole numbers are ones, which are nearly always valid."""
    session = ort.InferenceSession(str(path), options, providers=[provider])
    rng, feeds = np.random.default_rng(0), {}
    for spec in session.get_inputs():
        kind = np.dtype(TYPES[spec.type])
        shape = [size if isinstance(size, int) else batch for size in spec.shape]
        drawn = rng.standard_normal(shape) if kind.kind == "f" else np.ones(shape)
        feeds[spec.name] = drawn.astype(kind)
    return session, feeds


def turn(session, feeds, seconds):
    """Milliseconds of each call of one turn."""
    session.run(None, feeds)
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        session.run(None, feeds)
        times.append(1000 * (time.perf_counter() - begin))
    return times


def compared(threads, batch, seconds, provider):
    """Milliseconds of every call by network; the original's second session shows the noise."""
    paths = {**NETWORKS, "before again": NETWORKS["before"]}
    running = {n: opened(p, options_of(threads), batch, provider) for n, p in paths.items()}
    times = {name: [] for name in running}
    turn_seconds, end = min(0.1, seconds / 9), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["after"]) < 3:
        for name, (session, feeds) in running.items():
            times[name] += turn(session, feeds, turn_seconds)
    return times


def layers(path, threads, batch, provider):
    """Median milliseconds of each operator, as the runtime records them."""
    with tempfile.TemporaryDirectory() as folder:
        options = options_of(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session, feeds = opened(path, options, batch, provider)
        for _ in range(25):
            session.run(None, feeds)
        found = {}
        for name, _, ms in events_of(session):
            found.setdefault(name[: -len("_kernel_time")], []).append(ms)
    return {name: statistics.median(times[3:]) for name, times in found.items()}


def events_of(session):
    """Milliseconds of every call of an operator, with its name and kind."""
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            kind = event.get("args", {}).get("op_name")
            yield event["name"], kind, event["dur"] / 1000


def usual(times):
    """The mean of the middle half."""
    quarter = len(times) // 4
    return float(np.mean(sorted(times)[quarter : len(times) - quarter]))


def layer_call(network, threads, prefix, numbers):
    """A session of one layer and its inputs, which are parts of the same memory for all layers."""
    options = options_of(threads)
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.enable_profiling, options.profile_file_prefix = True, str(prefix)
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    feeds, end = {}, 0
    for spec in session.get_inputs():
        count = math.prod(spec.shape)
        if TYPES[spec.type] is np.int64:
            feeds[spec.name] = np.ones(spec.shape, np.int64)
        else:
            feeds[spec.name] = np.resize(numbers[end : end + count], spec.shape)
            end += count
    session.run(None, feeds)
    return session, feeds


def layer_times(networks, threads, beside, numbers):
    """Milliseconds of each layer; they take turns call by call. Helpers and changes of layout,
    which a layer among others does not need, do not count."""
    with tempfile.TemporaryDirectory() as folder:
        calls = [
            layer_call(network, threads, Path(folder) / str(number), numbers)
            for number, network in enumerate(networks)
        ]
        end, turns = time.perf_counter() + 0.01 * len(calls), 0
        while turns < 3 or (turns < 20 and time.perf_counter() < end):
            for session, feeds in calls:
                session.run(None, feeds)
            turns += 1
        for session, _ in calls:
            found = {}
            for name, kind, ms in events_of(session):
                if kind not in ("ReorderInput", "ReorderOutput") and not name.startswith(beside):
                    found.setdefault(name, []).append(ms)
            yield sum(usual(times[1:]) for times in found.values())


def processor():
    info, name = Path("/proc/cpuinfo"), platform.processor()
    if info.exists():
        pairs = (line.partition(":") for line in info.read_text().splitlines())
        name = next((value.strip() for key, _, value in pairs if key.strip() == "model name"), name)
    return f"{name} ({platform.machine()})".strip()


def table(threads):
    """The times of all layers in the form that compress reads. Of three looks at each the least
    counts: what else the machine does makes a layer seem slower, never faster."""
    told = json.loads(gzip.decompress(LAYERS.read_bytes()))
    ort.create_and_register_allocator(
        ort.OrtMemoryInfo(
            "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
        ),
        None,
    )
    numbers = np.resize(np.linspace(0.5, 1.5, 1019, dtype=np.float32), 1 << 24)
    times = {signature: {} for signature in told["layers"]}
    done, total = 0, 3 * len(times)
    for _ in range(3):
        for signature, points in told["layers"].items():
            names, coded = list(points), list(points.values())
            rounds = -(-len(names) // 32)
            for first in range(rounds):
                networks = [base64.b64decode(text) for text in coded[first::rounds]]
                measured = layer_times(networks, threads, told["beside"], numbers)
                for name, ms in zip(names[first::rounds], measured, strict=True):
                    times[signature][name] = min(ms, times[signature].get(name, ms))
            done += 1
            print(f"\r{done} of {total} layers", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "runtime": f"onnxruntime {ort.__version__}",
        "device": "cpu",
        "threads": threads,
        "batch": told["batch"],
        "dtype": "float32",
    }
    return {"schema": 1, "machine": machine, "steps": told["steps"], "times": times}


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
        write(asked.table, table(asked.threads))
        return
    missing = [path.name for path in NETWORKS.values() if not path.exists()]
    if missing:
        sys.exit(f"error: {', '.join(missing)} should lie beside this script")
    try:
        times = compared(asked.threads, asked.batch, asked.seconds, asked.provider)
    except Exception as error:
        sys.exit(f"error: ONNX Runtime does not run the networks: {error}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    whole = (medians["before"] + medians.pop("before again")) / 2
    noise = abs(whole - medians["before"]) / whole * 2
    print(
        f"onnxruntime {ort.__version__}, {platform.machine()}, {asked.provider}, "
        f"threads {asked.threads}, batch {asked.batch}"
    )
    for name, value in (("before", whole), ("after", medians["after"])):
        ends = np.percentile(times[name], [90, 99])
        print(f"{name:>7}  p50 {value:9.3f} ms  p90 {ends[0]:9.3f} ms  p99 {ends[1]:9.3f} ms")
    print(
        f"{whole / medians['after']:.2f}x faster; the original differs from itself by {noise:.1%}"
    )
    found = {"ms": {"before": whole, "after": medians["after"]}, "noise": noise, **vars(asked)}
    if asked.layers or asked.json:
        both = {
            name: layers(path, asked.threads, asked.batch, asked.provider)
            for name, path in NETWORKS.items()
        }
        found["layers"] = both
    if asked.layers:
        print(f"\n{'before':>10} {'after':>10}  ms by operator")
        for name in dict.fromkeys([*both["before"], *both["after"]]):
            pair = (both[which].get(name) for which in ("before", "after"))
            cells = " ".join(f"{ms:10.4f}" if ms is not None else " " * 10 for ms in pair)
            print(f"{cells}  {name}")
    if asked.json:
        write(asked.json, found)


if __name__ == "__main__":
    main()
