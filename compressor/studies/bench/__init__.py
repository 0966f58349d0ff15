"""Time networks against each other, and find why one is not faster: `compress bench`.

Every network runs in a process of its own. They take turns, the first one twice, which shows the
noise. `modules_compared` does the same in one process, with modules.
"""

from compressor.formats.ways import Way
from compressor.studies.bench.modules import time_modules
from compressor.studies.bench.running import benchmark

__all__ = ["Way", "benchmark", "time_modules"]
