"""Where an exported program's node comes from: the layer, and the line of the model's source."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.fx import Node


def owner_of(node: Node) -> str:
    """Return the path of the module whose forward called this operator."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if not path.startswith("_empty")]
    return paths[-1] if paths else ""


def place_of(node: Node) -> str:
    """Return the layer and source line of a node: "layer1.0.conv1 (resnet.py:92)"."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    source = f"({PurePath(lines[-1][0]).name}:{lines[-1][1]})" if lines else ""
    return " ".join(part for part in (owner_of(node) or node.name, source) if part)
