"""Run operators of images and boxes: resizing, sampling, regions, suppression."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.loading.onnx.operators.invocation import Entry, NodeCall
from compressor.loading.onnx.small_numbers import Numbers

LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


def upsample(call: NodeCall) -> Tensor:
    """Upsample, and the first Resize: by factors, corners apart."""
    return _resize(call, call.raw(1), None, "asymmetric")


def resize(call: NodeCall) -> Tensor:
    """Resize: by factors or to sizes, with one of several maps of coordinates."""
    if call.version < 11:
        return upsample(call)
    way = call.get("coordinate_transformation_mode", "half_pixel")
    scales, sizes = call.raw(2), call.raw(3)
    scales = None if isinstance(scales, Numbers) and not scales.listed else scales
    return _resize(call, scales, sizes, way)


def _resize(call: NodeCall, scales: Any, sizes: Any, way: str) -> Tensor:
    x, mode = call.x, call.get("mode", "nearest")
    if call.get("antialias", 0) or call.get("exclude_outside", 0) or way == "tf_crop_and_resize":
        raise call.refusal("resizes with antialiasing or a region of interest")
    if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refusal("keeps the shape of what it resizes")
    if scales is None and sizes is None:
        raise call.refusal("has neither factors nor sizes")
    numbers = (scales if sizes is None else sizes).listed if _are_numbers(scales, sizes) else None
    if numbers is None:
        raise call.refusal("resizes to sizes that are computed from data")
    axes = [a % x.dim() for a in call.get("axes") or range(x.dim())]
    given = dict(zip(axes, numbers, strict=True))
    last = list(range(2, x.dim()))
    if any(not _stays(x, d, given.get(d), by_factor=sizes is None) for d in (0, 1)):
        return _resize_channels_last(call, x, given, way, mode, by_factor=sizes is None)
    if sizes is None:
        factors = [float(given.get(d, 1.0)) for d in last]
        return _interpolate(call, x, None, factors, way, mode)
    return _interpolate(call, x, [given.get(d, x.shape[d]) for d in last], None, way, mode)


def _are_numbers(scales: Any, sizes: Any) -> bool:
    return isinstance(scales if sizes is None else sizes, Numbers)


def _stays(x: Tensor, dim: int, given: Any, *, by_factor: bool) -> bool:
    if given is None:
        return True
    if by_factor:
        return bool(given == 1)
    return not isinstance(x.shape[dim], int) or given == x.shape[dim]


def _resize_channels_last(
    call: NodeCall, x: Tensor, given: dict[int, Any], way: str, mode: str, *, by_factor: bool
) -> Tensor:
    """Resize an image whose channels come last, as exporters from TensorFlow write it."""
    if x.dim() != 4 or not _stays(x, 0, given.get(0), by_factor=by_factor):
        raise call.refusal("resizes its samples")
    if not _stays(x, 3, given.get(3), by_factor=by_factor):
        raise call.refusal("resizes its channels")
    numbers = [given.get(d, 1.0 if by_factor else x.shape[d]) for d in (1, 2)]
    turned = x.permute(0, 3, 1, 2)
    sizes, factors = (None, numbers) if by_factor else (numbers, None)
    return _interpolate(call, turned, sizes, factors, way, mode).permute(0, 2, 3, 1)


def _interpolate(
    call: NodeCall, x: Tensor, sizes: Any, factors: list[float] | None, way: str, mode: str
) -> Tensor:
    if factors is not None:
        sizes = [math.floor(n * f + 1e-6) for n, f in zip(x.shape[2:], factors, strict=True)]
    if all(isinstance(a, int) and a == b for a, b in zip(x.shape[2:], sizes, strict=True)):
        return x
    if mode == "nearest":
        return _nearest(call, x, sizes, factors, way)
    kind = LINEAR.get(x.dim(), "") if mode == "linear" else {4: "bicubic"}.get(x.dim(), "")
    if (
        not kind
        or way == "asymmetric"
        or (kind == "bicubic" and call.get("cubic_coeff_a", -0.75) != -0.75)
    ):
        return _by_matrices(call, x, sizes, factors, way, mode)
    to_one = any(n == 1 != old for n, old in zip(sizes, x.shape[2:], strict=True))
    if way == "pytorch_half_pixel" and to_one:
        return _by_matrices(call, x, sizes, factors, way, mode)
    corners = way == "align_corners"
    if factors is not None and not corners:
        return F.interpolate(
            x, scale_factor=factors, mode=kind, align_corners=False, recompute_scale_factor=False
        )
    return F.interpolate(x, size=list(sizes), mode=kind, align_corners=corners)


def _nearest(call: NodeCall, x: Tensor, sizes: list[int], factors: Any, way: str) -> Tensor:
    """Take the nearest place; each dimension by its own list of places, or torch's way."""
    rounding = call.get("nearest_mode", "round_prefer_floor") if call.version >= 11 else "floor"
    old = list(x.shape[2:])
    doubles = all(isinstance(a, int) and b % a == 0 for a, b in zip(old, sizes, strict=True))
    is_usual = (way, rounding) == ("asymmetric", "floor") or (
        doubles and way in ("half_pixel", "pytorch_half_pixel") and rounding == "round_prefer_floor"
    )
    if is_usual and (factors is None or doubles):
        return F.interpolate(x, size=list(sizes), mode="nearest")
    for d, size in enumerate(sizes):
        factor = factors[d] if factors is not None else size / old[d]
        places = [_place(i, factor, old[d], size, way, rounding) for i in range(size)]
        index = torch.tensor(places, device=x.device)
        x = torch.index_select(x, d + 2, index)
    return x


def _source(i: int, factor: float, old: int, new: int, way: str) -> float:
    """Return the coordinate that a place of the result is read from."""
    if way == "align_corners":
        return i * (old - 1) / (new - 1) if new > 1 else 0.0
    if way == "asymmetric":
        return i / factor
    if way == "pytorch_half_pixel" and new == 1:
        return 0.0
    if way == "half_pixel_symmetric":
        return old / 2 * (1 - new / (factor * old)) + (i + 0.5) / factor - 0.5
    return (i + 0.5) / factor - 0.5


def _place(i: int, factor: float, old: int, new: int, way: str, rounding: str) -> int:
    at = _source(i, factor, old, new, way)
    ways = {
        "floor": math.floor(at),
        "ceil": math.ceil(at),
        "round_prefer_floor": math.ceil(at - 0.5),
        "round_prefer_ceil": math.floor(at + 0.5),
    }
    return min(max(ways[rounding], 0), old - 1)


def _by_matrices(
    call: NodeCall, x: Tensor, sizes: list[int], factors: Any, way: str, mode: str
) -> Tensor:
    """Interpolate dimension by dimension, by a matrix of weights for each."""
    for d, new in enumerate(sizes):
        old = x.shape[d + 2]
        if old == new and factors is None:
            continue
        factor = factors[d] if factors is not None else new / old
        weights = torch.zeros(new, old)
        for i in range(new):
            at = _source(i, factor, old, new, way)
            for place, share in _shares(at, mode, call.get("cubic_coeff_a", -0.75)):
                weights[i, min(max(place, 0), old - 1)] += share
        x = torch.matmul(x.movedim(d + 2, -1), weights.to(x.device).t()).movedim(-1, d + 2)
    return x


def _shares(at: float, mode: str, a: float) -> list[tuple[int, float]]:
    low = math.floor(at)
    t = at - low
    if mode == "linear":
        return [(low, 1 - t), (low + 1, t)]
    near = [((a + 2) * s - (a + 3)) * s * s + 1 for s in (t, 1 - t)]
    far = [((a * s - 5 * a) * s + 8 * a) * s - 4 * a for s in (1 + t, 2 - t)]
    return [(low - 1, far[0]), (low, near[0]), (low + 1, near[1]), (low + 2, far[1])]


def sample_grid(call: NodeCall) -> Tensor:
    """GridSample: read at places that a grid says."""
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    mode = call.get("mode", "bilinear")
    corners = bool(call.get("align_corners", 0))
    padding = call.get("padding_mode", "zeros")
    return F.grid_sample(call.x, call.tensor(1), modes.get(mode, mode), padding, corners)


def align_regions(call: NodeCall) -> Tensor:
    """RoiAlign: the mean over points of each region."""
    from torchvision.ops import roi_align

    x, boxes, samples = call.x, call.tensor(1), call.tensor(2)
    if call.get("mode", "avg") != "avg":
        raise call.refusal("takes the largest of each region")
    rois = torch.cat([samples.to(boxes.dtype).unsqueeze(1), boxes], 1)
    default = "output_half_pixel" if call.version < 16 else "half_pixel"
    aligned = call.get("coordinate_transformation_mode", default) == "half_pixel"
    size = call.get("output_height", 1), call.get("output_width", 1)
    regions: Tensor = roi_align(
        x, rois, size, call.get("spatial_scale", 1.0), call.get("sampling_ratio", 0), aligned
    )
    return regions


def suppress(call: NodeCall) -> Tensor:
    """NonMaxSuppression: of every sample and class the best boxes that do not overlap."""
    from torchvision.ops import nms

    boxes, scores = call.tensor(0), call.tensor(1)
    most = int(call.number(2, 0))
    overlap, least = float(call.number(3, 0.0)), call.given_numbers(4)
    if call.get("center_point_box", 0):
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        boxes = torch.cat([centre - half, centre + half], -1)
    else:
        low, high = (f(boxes[..., :2], boxes[..., 2:]) for f in (torch.minimum, torch.maximum))
        boxes = torch.cat([low, high], -1)
    chosen = []
    for sample in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            of = scores[sample, kind]
            among = torch.nonzero(of > float(least[0])).squeeze(1) if least else None
            own = boxes[sample] if among is None else boxes[sample][among]
            kept = nms(own, of if among is None else of[among], overlap)[:most]
            kept = kept if among is None else among[kept]
            lead = torch.tensor([sample, kind], device=kept.device).expand(kept.shape[0], 2)
            chosen.append(torch.cat([lead, kept.unsqueeze(1)], 1))
    return torch.cat(chosen)


ENTRIES: dict[str, Entry] = {
    "GridSample": sample_grid,
    "NonMaxSuppression": suppress,
    "Resize": resize,
    "RoiAlign": align_regions,
    "Upsample": upsample,
}
