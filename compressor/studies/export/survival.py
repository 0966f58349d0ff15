"""See whether the runtime survives a file: `python -m compressor.studies.export.survival FILE`.

Kernels for 16 bits are new: with some networks ONNX Runtime ends the whole process on some
processors. So a file is called once in a process of its own before it is called in ours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from compressor.onnx_runtime import draw_inputs, open_session


def runs_here(path: Path) -> bool:
    """Return whether ONNX Runtime calls the file on this machine without ending its process."""
    command = [sys.executable, "-m", "compressor.studies.export.survival", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _call(path: str) -> None:
    session = open_session(Path(path), 1)
    session.run(None, draw_inputs(session, 1))


if __name__ == "__main__":
    _call(sys.argv[1])
