"""Sheets of many images with titles. Images are RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np

from gcnet.viz.canvas import as_canvas

HEAD, LINE = 34, 22  # pixels for a line of text over an image, and for each further line
DPI = 128  # a power of two: sizes in inches are exact, however matplotlib rounds them


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
    from matplotlib.figure import Figure  # takes a second to import: only where sheets are drawn

    across, down = (cell, cell) if isinstance(cell, int) else cell
    texts = list(captions or [titles])
    texts += [()] * (len(rows) - len(texts))
    heads = [HEAD + LINE * max(text.count("\n") for text in row) if row else 0 for row in texts]
    width = max(len(row) for row in rows) * (across + gap) + gap
    height = len(rows) * (down + gap) + gap + sum(heads)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for r, row in enumerate(rows):
        top = gap + r * (down + gap) + sum(heads[: r + 1])
        for c, image in enumerate(row):
            left = gap + c * (across + gap)
            place = (left / width, 1 - (top + down) / height, across / width, down / height)
            axes = figure.add_axes(place)
            axes.imshow(as_canvas(image, 1), interpolation="antialiased")
            axes.axis("off")
            if c < len(texts[r]):
                axes.set_title(texts[r][c], fontsize=10, pad=5.5, parse_math=False)  # a "$" is a "$"
    file = BytesIO()
    figure.savefig(file, format="rgba")
    return np.frombuffer(file.getvalue(), np.uint8).reshape(height, width, 4)[..., :3].copy()
