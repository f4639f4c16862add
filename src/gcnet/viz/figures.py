"""Figures for pages: parts of images with some of their objects.

H x W images, RGB uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from gcnet.console import progress_bar
from gcnet.data.dataset import ImageRecord, Instance
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import move_segmentation
from gcnet.viz.canvas import resized
from gcnet.viz.objects import draw_targets
from gcnet.viz.page import embedded

Item = TypeVar("Item")

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


def draw_each(draw: Callable[[Item], Figure], kinds: Mapping[str, Sequence[Item]]) -> dict[str, list[Figure]]:
    """The figures of the items of each kind, without those whose image cannot be read."""
    figures: dict[str, list[Figure]] = {kind: [] for kind in kinds}
    every = [(kind, item) for kind, items in kinds.items() for item in items]
    with progress_bar(transient=True) as bar:
        for kind, item in bar.track(every, description="drawing"):
            with suppress(GCNetError):
                figures[kind].append(draw(item))
    return figures


def window_around(box: Sequence[float], side: float, size: tuple[int, int]) -> tuple[float, ...]:
    """A square (xyxy) of `side` pixels around a box, moved and cut to lie in an image of `size` (H, W)."""
    corners, frame = np.array(box).reshape(2, 2), np.array(size[::-1])
    sides = np.minimum(side, frame)
    start = (corners.mean(0) - sides / 2).clip(0, frame - sides)
    return *start.tolist(), *(start + sides).tolist()


def draw_window(
    image: UInt8[np.ndarray, "H W 3"],
    window: Sequence[float] | None,
    items: Sequence[Instance],
    class_names: Sequence[str],
    scores: Sequence[float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A window (xyxy) of an image, or all of it, with instances and perhaps their scores.

    Its longer side becomes 400 pixels. As in `draw_targets`, instances that are not usable are left out.
    """
    whole = (0, 0, image.shape[1], image.shape[0])
    left, top, right, bottom = (round(float(edge)) for edge in window or whole)
    scale = SIDE / max(right - left, bottom - top)
    size = max(round((bottom - top) * scale), 1), max(round((right - left) * scale), 1)
    part = resized(image[top:bottom, left:right], size)
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    moved = tuple(_move(item, matrix, size) for item in items)
    record = ImageRecord(0, Path(), size[1], size[0], moved)
    return draw_targets(part, record, class_names, scores=scores)


def _move(item: Instance, matrix: np.ndarray, size: tuple[int, int]) -> Instance:
    """The instance in a part of the image, to whose pixels `matrix` takes the image's."""
    corners = np.array(item.box).reshape(2, 2) @ matrix[:, :2].T + matrix[:, 2]
    outline = move_segmentation(item.segmentation, matrix, size) if item.segmentation else []
    return replace(item, box=tuple(corners.ravel().tolist()), segmentation=outline)
