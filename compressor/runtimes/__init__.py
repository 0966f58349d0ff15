"""Run a format's file in the runtime that it is for, in a process that holds no more than that.

`ways.py` lists how networks are run. A module for each runtime is the one place that opens its
files; its `start` returns a file's call (`compressor.files.format_table` names the modules; that of
PyTorch lies with its format). `process.py` times one network.
"""
