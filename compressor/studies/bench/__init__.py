"""Time networks against each other, and find why one is not faster: `compress bench`.

Every network runs in a process of its own. They take turns, the first one twice, which shows the
noise. `modules_compared` does the same in one process, with modules.
"""

from compressor.runtimes.ways import Way
from compressor.studies.bench.benchmarking import benchmark
from compressor.studies.bench.in_process import time_modules

__all__ = ["Way", "benchmark", "time_modules"]
