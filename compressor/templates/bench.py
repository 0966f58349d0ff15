"""Times the original and the smaller network of this folder on this machine.

    python bench.py [--threads 1] [--batch 1] [--seconds 5] [--layers] [--json FILE]

Needs onnxruntime and numpy, nothing else. Both networks take turns; random data, the first call of
each turn is not counted.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

HERE = Path(__file__).resolve().parent
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
        events = json.loads(Path(session.end_profiling()).read_text())
    found = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"][: -len("_kernel_time")]
            found.setdefault(name, []).append(event["dur"] / 1000)
    return {name: statistics.median(times[3:]) for name, times in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--provider", default="CPUExecutionProvider")
    parser.add_argument("--layers", action="store_true", help="also the time of each operator")
    parser.add_argument("--json", metavar="FILE", help="write what was found there")
    asked = parser.parse_args()
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
        Path(asked.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
