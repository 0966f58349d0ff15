"""`compress bench`: networks timed against each other, and why one is not faster.

Every network runs in a process of its own; they take turns, the first one twice, which shows the
noise.
"""

from compressor.benchmark.running import benchmark

__all__ = ["benchmark"]
