"""Find out whether the runtime survives a file: `python -m compressor.studies.export.trial FILE`.

Kernels for 16 bits are new: with some networks ONNX Runtime ends the whole process on some
processors. So a file is called once in a process of its own before it is called in ours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from compressor.onnx_runtime import options_of, random_input


def runs_here(path: Path) -> bool:
    """Return whether ONNX Runtime calls the file on this machine without ending its process."""
    command = [sys.executable, "-m", "compressor.studies.export.trial", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _call(path: str) -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(path, options_of(1), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    session.run(None, {spec.name: random_input(spec, 1, rng) for spec in session.get_inputs()})


if __name__ == "__main__":
    _call(sys.argv[1])
