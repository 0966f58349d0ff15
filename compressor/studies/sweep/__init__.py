"""Run `compress sweep`: compare ways to make one network smaller, fairly.

Blalock et al. 2020, "What is the State of Neural Network Pruning?", found results that could not be
compared: other networks, other trainings, single points, no controls. Here every method meets the
same ratios, seeds and recovery, beside controls that are always there.
"""

from compressor.studies.sweep.store import check_folder
from compressor.studies.sweep.summary import Sweep
from compressor.studies.sweep.sweeping import check, run, sweep

__all__ = ["Sweep", "check", "check_folder", "run", "sweep"]
