"""Frames around objects, and their names.

D objects, in the order in which they are drawn: the last is in front.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

FONT = cv2.FONT_HERSHEY_SIMPLEX
DARK = (20, 20, 20)

# Where a name may go if another is where it should, in heights of a name.
ACROSS, DOWN = np.arange(-20, 20.5, 0.5), np.arange(-10, 10.5, 0.5)


def line_width(canvas: np.ndarray) -> int:
    """Of frames and outlines [px]: the larger the picture, the wider."""
    return max(1, round(float(np.sqrt(canvas.shape[0] * canvas.shape[1])) / 450))


def draw_frames(
    canvas: UInt8[np.ndarray, "H W 3"], boxes: Int[np.ndarray, "D 4"], colors: UInt8[np.ndarray, "D 3"]
) -> None:
    """Draws boxes into the image, coloured on dark to show on any background."""
    width = line_width(canvas)
    for x1, y1, x2, y2 in boxes.tolist():
        cv2.rectangle(canvas, (x1, y1), (x2, y2), DARK, width + 2)
    for (x1, y1, x2, y2), color in zip(boxes.tolist(), colors.tolist(), strict=True):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, width)


def draw_names(
    canvas: UInt8[np.ndarray, "H W 3"],
    corners: Int[np.ndarray, "D 2"],
    texts: Sequence[str],
    colors: UInt8[np.ndarray, "D 3"],
) -> None:
    """Writes names above `corners` (x, y), each on a plate of its colour; see `place_names`."""
    height, width = canvas.shape[:2]
    side = float(np.sqrt(height * width))
    # Slower than the image: names are to be read, not to fill it.
    scale = 0.4 * max(1.0, side / 500) ** 0.8
    thickness, padding = max(1, round(side / 900)), max(2, round(side / 220))
    extents = [cv2.getTextSize(text, FONT, scale, thickness)[0] for text in texts]
    sizes = np.array(extents, int).reshape(-1, 2) + 2 * padding
    wanted = np.stack([corners[:, 0], corners[:, 1] - sizes[:, 1]], 1)
    places = place_names(wanted, sizes, (width, height))
    light = colors @ (0.299, 0.587, 0.114) > 130
    for i, (x, y) in enumerate(places.tolist()):
        plate_width, plate_height = sizes[i].tolist()
        cv2.rectangle(canvas, (x, y), (x + plate_width, y + plate_height), colors[i].tolist(), cv2.FILLED)
        foot = (x + padding, y + plate_height - padding)
        ink = (0, 0, 0) if light[i] else (255, 255, 255)
        cv2.putText(canvas, texts[i], foot, FONT, scale, ink, thickness, cv2.LINE_AA)


def place_names(
    wanted: Int[np.ndarray, "D 2"], sizes: Int[np.ndarray, "D 2"], frame: tuple[int, int]
) -> Int[np.ndarray, "D 2"]:
    """Where names go: where they are wanted, or as near as they are free, or least covered.

    The ones in front choose first. All are inside the frame, or begin there.

    Args:
        wanted: left top corners (x, y).
        sizes: widths and heights.
        frame: width and height of the image.
    """
    places = np.zeros_like(wanted)
    for i in reversed(range(len(wanted))):
        height = sizes[i, 1] + 2  # with a line between two names
        (x, y), (x_end, y_end) = wanted[i], np.array(frame) - sizes[i]
        xs = np.maximum(np.minimum(x + ACROSS * height, x_end), 0)
        ys = np.maximum(np.minimum(y + DOWN * height, y_end), 0)
        across, down = (
            _common(first, sizes[i, axis] + 2, places[i + 1 :, axis], sizes[i + 1 :, axis] + 2)
            for axis, first in enumerate((xs, ys))
        )
        covered = down @ across.T
        distance = (ys - y)[:, None] ** 2 + (xs - x) ** 2
        row, column = divmod(np.where(covered == covered.min(), distance, np.inf).argmin(), len(xs))
        places[i] = xs[column], ys[row]
    return places


def _common(
    first: Float[np.ndarray, " P"],
    length: np.integer,
    others: Int[np.ndarray, " D"],
    lengths: Int[np.ndarray, " D"],
) -> Float[np.ndarray, "P D"]:
    """How much of each of P intervals, all of a length, lies in each of D others."""
    ends = np.minimum(first[:, None] + length, others + lengths)
    return (ends - np.maximum(first[:, None], others)).clip(0)
