"""See whether the runtime survives a file.

Kernels for 16 bits are new: with some networks ONNX Runtime ends the whole process on some
processors. So a file is called once in a process of its own before it is called in ours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from compressor.python_path import environment


def runs_here(path: Path) -> bool:
    """Return whether ONNX Runtime calls the file on this machine without ending its process."""
    # this module imports the runtime alone: torch would take longer than the call
    command = [sys.executable, "-m", "compressor.runtimes.onnx", str(path)]
    done = subprocess.run(command, capture_output=True, check=False, env=environment())
    return done.returncode == 0
