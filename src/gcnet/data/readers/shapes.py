"""Outlines and masks of objects, as several formats have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from pycocotools import mask as coco_mask

from gcnet.console import shown
from gcnet.errors import GCNetError
from gcnet.ops.decode import image_size, read_index_mask
from gcnet.ops.segmentations import (
    LONGEST_OUTLINE,
    crop_polygons,
    mask_to_rle,
    outline_length,
    run_lengths,
    segmentation_to_mask,
    segmentation_to_rle,
)

Kind = TypeVar("Kind")

_MOST_PIXELS = 1 << 28  # of a mask that is unpacked


def read_mask(path: Path, size: tuple[int, int]) -> Integer[np.ndarray, "H W"] | None:
    """The numbers in a mask; None if it is damaged, missing or not of its image's `size`, (height, width).

    A few bytes can say any size: its header is held against the image's before it takes memory.
    """
    with suppress(GCNetError):
        return read_index_mask(path) if image_size(path) == size else None
    return None


def grouped(
    shapes: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], tuple[Any, Kind]]
) -> dict[tuple[str, Kind], list[dict[str, Any]]]:
    """The shapes of each object by a name for it and a kind, such as its class.

    `key` gives group and kind of a shape: those that agree in both are one object. Without a group, None, a
    shape is an object of its own.
    """
    groups: dict[tuple[str, Kind], list[dict[str, Any]]] = {}
    for number, shape in enumerate(shapes):
        group, kind = key(shape)
        name = str(number) if group is None else f"group {group}"
        groups.setdefault((name, kind), []).append(shape)
    return groups


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> list[float]:
    """An ellipse as x, y, x, y of 32 points; the angle is in radians."""
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    across, down = rx * np.cos(turn), ry * np.sin(turn)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([x + across * cos - down * sin, y + across * sin + down * cos], 1).ravel().tolist()


def turned_box(
    box: tuple[float, float, float, float], angle: float, about: tuple[float, float]
) -> dict[str, Any]:
    """A box (x, y, width, height), as an outline if it is turned, clockwise on the screen; in radians."""
    if not angle:
        return {"bbox": list(box)}
    x, y, width, height = box
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return {"segmentation": [((corners - about) @ turn + about).ravel().tolist()]}


def cut_out(outlines: Sequence[Any], holes: Sequence[Any], size: dict[str, Any]) -> dict[str, Any]:
    """An object of outlines, each [[x, y], ...] or [x, y, ...]: polygons, or a mask where a hole reaches in.

    Args:
        outlines: the parts of the object.
        holes: outlines that may lie elsewhere in the image.
        size: the image's "width" and "height".
    """
    parts, inner = _points(outlines), _points([hole for hole in holes if len(hole) >= 3])
    first, last = np.concatenate(parts).min(0), np.concatenate(parts).max(0)
    inner = [hole for hole in inner if (hole.max(0) > first).all() and (hole.min(0) < last).all()]
    if not inner:
        return {"segmentation": [points.ravel().tolist() for points in parts]}
    shape = int(size["height"]), int(size["width"])
    outside, inside = (segmentation_to_mask(_cropped(some, shape), shape) for some in (parts, inner))
    return {"segmentation": mask_to_rle(outside & ~inside)}


def even_odd(outlines: Sequence[Sequence[Sequence[float]]], size: dict[str, Any]) -> dict[str, Any]:
    """An object of outlines, each [[x, y], ...], of which one in another is a hole: a mask if it has several.

    `size` has the image's "width" and "height".
    """
    parts = _points(outlines)
    if len(parts) == 1:
        return {"segmentation": [parts[0].ravel().tolist()]}
    shape = int(size["height"]), int(size["width"])
    parts = _cropped(parts, shape)
    if outline_length(parts) > LONGEST_OUTLINE:
        raise ValueError("outlines that are longer than any")
    # Where a mask begins or ends: what is there in two of them is neither.
    runs = (run_lengths(segmentation_to_rle([points], *shape)["counts"]) for points in parts)
    places, times = np.unique(
        np.concatenate([np.cumsum(lengths)[:-1] for lengths in runs]), return_counts=True
    )
    counts = np.diff(places[times % 2 == 1], prepend=0, append=math.prod(shape)).tolist()
    return {"segmentation": {"size": list(shape), "counts": counts}}


def _points(outlines: Sequence[Any]) -> list[Float[np.ndarray, "P 2"]]:
    return [np.array(points, np.float64).reshape(-1, 2) for points in outlines]


def _cropped(parts: Sequence[Float[np.ndarray, "P 2"]], size: tuple[int, int]) -> list[np.ndarray]:
    """What of the outlines lies in an image of `size`. Raises ValueError for what cannot be drawn there."""
    check_mask_size(size)
    if not all(np.isfinite(points).all() for points in parts):
        raise ValueError("a point that is no number")
    return crop_polygons(parts, size)


def check_mask_size(size: tuple[int, int]) -> int:
    """The pixels of a mask of `size` (height, width). Raises ValueError where an image has no such size."""
    if not (min(size) > 0 and size[0] * size[1] <= _MOST_PIXELS):
        raise ValueError(f"no mask of an image of {shown(size)}")
    return size[0] * size[1]


def place_mask(
    part: UInt8[np.ndarray, "h w"] | Bool[np.ndarray, "h w"], x: int, y: int, size: tuple[int, int]
) -> dict[str, Any]:
    """The RLE of a mask of 0 and 1 whose first pixel is at `x`, `y` of an image of `size` (height, width)."""
    check_mask_size(size)
    if min(x, y) < 0:
        raise ValueError(f"a mask that begins at {x}, {y}")
    height, width = size
    part = part[: max(height - y, 0), : max(width - x, 0)]
    columns = np.zeros((part.shape[1], height), np.uint8)  # the others have nothing in them
    columns[:, y : y + part.shape[0]] = part.T
    changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0)) + x * height
    counts = np.diff(changes[changes < height * width], prepend=0, append=height * width).tolist()
    return {"segmentation": coco_mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width)}
