"""Figures for pages: parts of images with some of their objects.

H x W images, RGB uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from gcnet.data.dataset import ImageRecord, Instance
from gcnet.ops.segmentations import move_segmentation
from gcnet.viz.objects import draw_targets
from gcnet.viz.page import embedded

SIDE = 400  # pixels, of the longer side of a figure


@dataclass(frozen=True)
class Figure:
    """Drawings of one size side by side, as data URLs, with captions."""

    images: tuple[str, ...]
    width: int
    height: int
    head: str
    text: str

    @classmethod
    def of(cls, drawn: Sequence[UInt8[np.ndarray, "H W 3"]], head: str, text: str) -> Figure:
        height, width = drawn[0].shape[:2]
        return cls(tuple(map(embedded, drawn)), width, height, head, text)


def draw_window(
    image: UInt8[np.ndarray, "H W 3"],
    window: Sequence[float],
    items: Sequence[Instance],
    class_names: Sequence[str],
    scores: Sequence[float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A window (xyxy) of an image, its longer side 400 pixels, with instances and perhaps their scores."""
    left, top, right, bottom = (round(float(edge)) for edge in window)
    scale = SIDE / max(right - left, bottom - top)
    size = max(round((bottom - top) * scale), 1), max(round((right - left) * scale), 1)
    part = _resized(image[top:bottom, left:right], size)
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    moved = tuple(_move(item, matrix, size) for item in items)
    record = ImageRecord(0, Path(), size[1], size[0], moved)
    return draw_targets(part, record, class_names, scores=scores)


def _resized(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    smaller = size[0] < image.shape[0]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _move(item: Instance, matrix: np.ndarray, size: tuple[int, int]) -> Instance:
    """The instance in a part of the image, to whose pixels `matrix` takes the image's."""
    corners = np.array(item.box).reshape(2, 2) @ matrix[:, :2].T + matrix[:, 2]
    outline = move_segmentation(item.segmentation, matrix, size) if item.segmentation else []
    return replace(item, box=tuple(corners.ravel().tolist()), segmentation=outline)
