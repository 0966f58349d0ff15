"""All zoos by name, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Mapping

from tools.zoo import language, trained, vision, yolo
from tools.zoo.members import Zoo

ZOOS: Mapping[str, Zoo] = {
    "transformers": Zoo(lambda _: list(language.NETWORKS), language.build, language.skipped),
    "data": Zoo(trained.names, trained.build, trained.skipped),
    "timm": Zoo(vision.timm_names, vision.build_timm, vision.timm_skipped),
    "torchvision": Zoo(
        *(vision.torchvision_names, vision.build_torchvision, vision.torchvision_skipped),
        vision.torchvision_smallest_first,
    ),
    "ultralytics": Zoo(yolo.names, yolo.build, yolo.skipped),
}
