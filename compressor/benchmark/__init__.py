"""Time networks against each other, and find why one is not faster: `compress bench`.

Every network runs in a process of its own. They take turns, the first one twice, which shows the
noise. `modules_compared` does the same in one process, with modules.
"""

from compressor.benchmark.modules import modules_compared
from compressor.benchmark.running import benchmark
from compressor.benchmark.ways import Way

__all__ = ["Way", "benchmark", "modules_compared"]
