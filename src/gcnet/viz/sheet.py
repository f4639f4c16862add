"""Many pictures on one sheet. Images are RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gcnet.viz.canvas import as_canvas

HEAD, LINE = 34, 22  # pixels for a line of text over an image, and for each further line
DPI = 128  # a power of two: sizes in inches are exact, however matplotlib rounds them


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    cell: int | tuple[int, int] = 384,
    gap: int = 8,
) -> np.ndarray:
    """Images side by side on white, a title over each column or a caption over each image.

    Args:
        rows: RGB or gray uint8 images; each is fitted into a cell. Rows may differ in length.
        titles: one for each column, or none.
        captions: one for each image, in rows as the images are, or none; they take the place of `titles`.
        cell: side of a cell, or its (width, height), in pixels.
        gap: white pixels between cells.

    Returns:
        One RGB uint8 image.
    """
    across, down = (cell, cell) if isinstance(cell, int) else cell
    columns = max(len(row) for row in rows)
    texts = captions or ([titles] if titles else [])
    heads = [_head(texts[r]) if r < len(texts) else 0 for r in range(len(rows))]
    width = columns * (across + gap) + gap
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
            if r < len(texts) and c < len(texts[r]):
                axes.set_title(texts[r][c], fontsize=10, pad=5.5, parse_math=False)  # a "$" is a "$"
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _head(texts: Sequence[str]) -> int:
    """Pixels for the texts over a row."""
    return HEAD + LINE * max((text.count("\n") for text in texts), default=0)
