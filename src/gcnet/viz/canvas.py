"""The copy of an image that is drawn on."""

from __future__ import annotations

import cv2
import numpy as np

from gcnet.errors import GCNetError


def as_canvas(image: np.ndarray, enlarge: int) -> np.ndarray:
    """A copy to draw on: RGB, contiguous, enlarged."""
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or (image.ndim == 3 and image.shape[2] not in (1, 3))
    ):
        raise GCNetError(
            f"cannot draw on an image of {image.dtype} and shape {image.shape}: "
            "give H x W x 3 RGB or H x W gray, uint8"
        )
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)
    if enlarge == 1:
        return np.ascontiguousarray(image).copy()
    return cv2.resize(
        np.ascontiguousarray(image), None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC
    )
