"""Imported once by the process that others fork from: all that the command imports, and what it
imports when it exports."""

import tempfile

import torch

import compressor
from compressor.run import footprints
from tools.selfcheck.launching import LATENCY_SECONDS
from tools.tiny import inputs, sequential

torch.set_num_threads(1)
footprints.LATENCY_SECONDS = LATENCY_SECONDS
compressor.compress(sequential(), inputs(), round_to=1)
tempfile.tempdir = None  # each has its own
