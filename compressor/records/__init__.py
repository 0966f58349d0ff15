"""Define the frozen records that the stages hand to one another; stages never import each other."""

from compressor.records.groups import Group, Member, Protection, producer
from compressor.records.latencies import Latency
from compressor.records.models import AS_MADE, RANDOM, ExampleInputs, LoadedModel, ModelFolder
from compressor.records.plans import Plan, to_number
from compressor.records.traces import Removal, Shorter, Trace

__all__ = [
    "AS_MADE",
    "RANDOM",
    "ExampleInputs",
    "Group",
    "Latency",
    "LoadedModel",
    "Member",
    "ModelFolder",
    "Plan",
    "Protection",
    "Removal",
    "Shorter",
    "Trace",
    "producer",
    "to_number",
]
