"""Time networks against each other, and find why one is not faster: `compress bench`.

Every network runs in a process of its own. They take turns, the first one twice, which shows the
noise.
"""

from compressor.benchmark.running import benchmark

__all__ = ["benchmark"]
