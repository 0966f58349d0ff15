"""See whether the runtime survives a file.

Kernels for 16 bits are new: with some networks ONNX Runtime ends the whole process on some
processors. So a file is called once in a process of its own before it is called in ours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from compressor.python_path import environment

_CALL = """
import sys
from pathlib import Path
from compressor.onnx_runtime import draw_inputs, open_session
session = open_session(Path(sys.argv[1]), 1)
session.run(None, draw_inputs(session, 1))
"""
"""Imports the runtime alone: torch would take longer to import than the call takes."""


def runs_here(path: Path) -> bool:
    """Return whether ONNX Runtime calls the file on this machine without ending its process."""
    command = [sys.executable, "-c", _CALL, str(path)]
    found = subprocess.run(command, capture_output=True, check=False, env=environment())
    return found.returncode == 0
