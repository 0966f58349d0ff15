"""Write a network's layers into a file that a machine without this package can time."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from typing import Any

from compressor.latency.kernels import network_of
from compressor.latency.layers import Layer
from compressor.latency.measured_steps import Step, step_names
from compressor.latency.points import Steps, grid_of
from compressor.latency.sketches import BESIDE

SCHEMA = 1


def portable_layers(layers: Iterable[Layer], steps: Mapping[str, Steps], batch: int) -> bytes:
    """Return the content of layers.json.gz: the distinct layers at the points of their grids.

    Each is an ONNX network without weights. What is measured of them is a latency table
    (`LatencyTable`). To find out in which steps widths run well takes hundreds of further networks,
    so the steps found here are taken as they are.

    Args:
        layers: The network's layers, for this batch.
        steps: Per kind of layer and size; those that are not known count as 1.
        batch: Samples in a call.
    """
    distinct = {layer.signature: layer for layer in layers}
    known = {
        layer.kind: {
            name: steps.get(layer.kind, {}).get(name, Step()) for name in step_names(layer.kind)
        }
        for layer in distinct.values()
    }
    content = {
        "schema": SCHEMA,
        "batch": batch,
        "beside": BESIDE,
        "steps": {
            kind: {name: [step.every, step.grain] for name, step in by_size.items()}
            for kind, by_size in known.items()
        },
        "layers": {
            signature: _networks(layer, known[layer.kind]) for signature, layer in distinct.items()
        },
    }
    return gzip.compress(json.dumps(content).encode(), mtime=0)


def _networks(layer: Layer, steps: Steps) -> dict[str, Any]:
    """Return a layer's networks, as text, by the widths of its free sizes."""
    return {
        " ".join(map(str, point)): base64.b64encode(
            network_of(
                layer.kind,
                layer.full | dict(zip(layer.free, point, strict=True)),
                layer.literals,
                with_weights=False,
            )
        ).decode()
        for point in grid_of(layer, steps).points
    }
