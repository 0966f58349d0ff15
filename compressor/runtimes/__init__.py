"""Run a format's file in the runtime that it is for, in a process that holds no more than that.

`ways.py` lists how networks are run. A module for each runtime that needs no torch has `start`,
which opens a file and returns its call (`compressor.files.format_table` names the modules; those
of PyTorch and ExecuTorch lie with their formats). `process.py` times one network.
"""
