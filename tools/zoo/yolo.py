"""YOLO networks, where ultralytics is installed (never a dependency: its licence is AGPL)."""

from __future__ import annotations

import importlib
import importlib.util

import torch

from compressor.records import ExampleInputs
from tools.zoo.members import Settings, Subject

NETWORKS = ("yolov5n", "yolov8n", "yolo11n")


def _is_installed() -> bool:
    return importlib.util.find_spec("ultralytics") is not None


def names(_: Settings) -> list[str]:
    return list(NETWORKS) if _is_installed() else []


def skipped(_: Settings) -> dict[str, str]:
    return {} if _is_installed() else dict.fromkeys(NETWORKS, "ultralytics is not installed")


def build(name: str, _: Settings) -> Subject:
    model = importlib.import_module("ultralytics.nn.tasks").DetectionModel(f"{name}.yaml")
    return Subject(model.eval(), ExampleInputs((torch.rand(1, 3, 320, 320),)))
