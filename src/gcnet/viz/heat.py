"""Attention maps drawn over images.

H x W image, h x w map. Images are RGB uint8.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from gcnet.viz.canvas import as_canvas


def attention_overlay(
    image: np.ndarray,
    attention: Any,
    *,
    valid: tuple[float, float] = (1.0, 1.0),
    peak: float | None = None,
    enlarge: int = 1,
) -> np.ndarray:
    """The image in dark gray, with an attention map as a heat map over it.

    Args:
        image: H x W x 3 RGB or H x W gray, uint8.
        attention: (h, w) array or tensor of any size; negative values count as 0. The brightest colour is its
            largest value, or four times its mean if that is more, so that a uniform map stays dim.
        peak: replaces the largest value, so that several maps share one scale.
        valid: share of the map's (rows, columns) that the image fills, if the network's input was padded.
        enlarge: integer factor on the size of the result.

    Returns:
        H x W x 3 RGB uint8 (times `enlarge`).
    """
    canvas = as_canvas(image, enlarge)
    heat = enlarged(attention, canvas.shape[:2], valid)
    largest = float(heat.max()) if peak is None else peak
    heat = (heat / max(largest, 4 * float(heat.mean()), 1e-12)).clip(0, 1)
    colors = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    gray = cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) * 0.7
    opacity = (0.25 + 0.55 * heat)[..., None]
    return (gray + (colors - gray) * opacity).clip(0, 255).astype(np.uint8)


def enlarged(attention: Any, size: tuple[int, int], valid: tuple[float, float]) -> Float[np.ndarray, "H W"]:
    """An attention map for the pixels of an image of `size` (height, width); `valid` as above."""
    height, width = size
    heat = np.asarray(attention.cpu() if hasattr(attention, "cpu") else attention, np.float32)
    # Enlarged with its padding, then cut: interpolation stays aligned with the pixels that the map saw.
    padded = round(width / valid[1]), round(height / valid[0])
    return cv2.resize(heat, padded, interpolation=cv2.INTER_LINEAR)[:height, :width]


def mark_point(image: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """The image with a ring and a dot, white on black, around a point.

    Args:
        image: H x W x 3 RGB or H x W gray, uint8.
        point: (x, y) as shares of width and height, in [0, 1].

    Returns:
        H x W x 3 RGB uint8, a new array.
    """
    canvas = as_canvas(image, 1)
    height, width = canvas.shape[:2]
    center = round(point[0] * (width - 1)), round(point[1] * (height - 1))
    radius = max(3, round(min(height, width) / 40))
    for ink, thickness in (((0, 0, 0), max(3, radius // 2)), ((255, 255, 255), max(1, radius // 4))):
        cv2.circle(canvas, center, radius, ink, thickness, cv2.LINE_AA)
        cv2.circle(canvas, center, thickness // 2, ink, -1, cv2.LINE_AA)
    return canvas
