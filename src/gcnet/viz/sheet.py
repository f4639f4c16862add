"""Sheets of many images with titles. Images are RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from gcnet.console import printable
from gcnet.viz.canvas import FONT, as_canvas, resized

HEAD, LINE = 34, 22  # pixels for a line of text over an image, and for each further line
TEXT, ABOVE = 0.55, 11  # size of the text, and pixels from its foot to the image


def sheet(
    images: Sequence[np.ndarray], captions: Sequence[str], *, columns: int, cell: int | tuple[int, int]
) -> np.ndarray:
    """A sheet of images in reading order, `columns` in a row, with captions; `cell` is as in `grid`."""
    starts = range(0, len(images), columns)
    rows = [images[start : start + columns] for start in starts]
    return grid(rows, captions=[captions[start : start + columns] for start in starts], cell=cell)


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    cell: int | tuple[int, int] = 384,
    gap: int = 8,
) -> np.ndarray:
    """Rows of images on a white background.

    Args:
        rows: RGB or gray uint8 images; each is fitted into a cell. Rows may differ in length.
        titles: what stands over each column.
        captions: what stands over each image, in rows as the images are; in place of `titles`.
        cell: side of a cell, or its (width, height), in pixels.
        gap: white pixels between cells.

    Returns:
        One RGB uint8 image.
    """
    across, down = (cell, cell) if isinstance(cell, int) else cell
    texts = list(captions or [titles])
    texts += [()] * (len(rows) - len(texts))
    heads = [HEAD + LINE * max(text.count("\n") for text in row) if row else 0 for row in texts]
    width = max(len(row) for row in rows) * (across + gap) + gap
    height = len(rows) * (down + gap) + gap + sum(heads)
    page = np.full((height, width, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        top = gap + r * (down + gap) + sum(heads[: r + 1])
        for c, image in enumerate(row):
            left = gap + c * (across + gap)
            canvas = as_canvas(image, 1)
            scale = min(down / canvas.shape[0], across / canvas.shape[1])
            h, w = (max(round(side * scale), 1) for side in canvas.shape[:2])
            y, x = top + (down - h) // 2, left + (across - w) // 2
            page[y : y + h, x : x + w] = resized(canvas, (h, w))
            for line, text in enumerate(reversed(texts[r][c].split("\n") if c < len(texts[r]) else [])):
                _write(page, text, (left, top - ABOVE - line * LINE), across)
    return page


def _write(page: UInt8[np.ndarray, "H W 3"], text: str, foot: tuple[int, int], width: int) -> None:
    """Writes a line into the middle of `width` pixels from `foot` (x, y) on, smaller where it is too long."""
    text = printable(text)  # OpenCV ends the process at half a pair of UTF-16, as in a name that is no UTF-8
    size = TEXT * min(width / max(cv2.getTextSize(text, FONT, TEXT, 1)[0][0], 1), 1.0)
    free = width - cv2.getTextSize(text, FONT, size, 1)[0][0]
    cv2.putText(page, text, (foot[0] + free // 2, foot[1]), FONT, size, (0, 0, 0), 1, cv2.LINE_AA)
