"""Run-length encodings of predicted masks, computed without drawing them.

D detections, M x M grid of probabilities over each box, H x W image; w columns and h rows of pixels in a box.

Bilinear sampling is linear between two cells of the grid. In a column of pixels a mask can therefore begin or
end at most once between them, so that only M + 1 positions are evaluated, however tall the box is.
COCO counts pixels down the columns, from the top left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt32

from gcnet.ops.segmentations import coco_mask

MASK_THRESHOLD = 0.5


def encode_masks(
    probs: Float[np.ndarray, "D M M"], boxes: Float[np.ndarray, "D 4"], size: tuple[int, int]
) -> list[bytes]:
    """The compressed counts of COCO's RLE of each mask in an image of `size` (height, width).

    The masks are those of `gcnet.ops.masks.paste_masks`. Time and memory grow with the width of a box and the
    length of an outline, not with the area.
    """
    grids = probs.astype(np.float32, copy=False)
    each = zip(grids, boxes.tolist(), strict=True)
    return encode_edges([mask_edges(grid, box, size) for grid, box in each], size)


def encode_edges(edges: Sequence[Int64[np.ndarray, " _E"]], size: tuple[int, int]) -> list[bytes]:
    """The compressed counts of the masks whose edges `mask_edges` found."""
    if len(edges) == 0:
        return []
    # All at once, and as arrays: a quarter of the time of one call for each with a list.
    masks = [{"size": size, "counts": _runs(own, size[0] * size[1])} for own in edges]
    return [mask["counts"] for mask in coco_mask.frPyObjects(masks, *size)]


def _runs(edges: Int64[np.ndarray, " E"], end: int) -> UInt32[np.ndarray, " _R"]:
    """How long each run is up to the next edge; a mask that reaches the last pixel has none after it."""
    runs = np.empty(len(edges) + 1, np.uint32)
    runs[:-1], runs[-1] = edges, end
    runs[1:] -= runs[:-1].copy()
    return runs if runs[-1] else runs[:-1]


def sample_positions(
    first: int, last: int, low: float, high: float, grid: int
) -> tuple[Int64[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """The cells around the centres of pixels first..last - 1; `grid` cells cover [low, high].

    Returns:
        For each pixel the cell before it, counted with one empty cell added at either end, and how far it is
        from there to the next, in [0, 1]. What lies outside is in the empty cells.
    """
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    with np.errstate(over="ignore"):  # of a box much narrower than a pixel
        positions = (centres - np.float32(low)) / np.float32(high - low) * np.float32(grid) + np.float32(0.5)
    positions = positions.clip(0, grid + 1)
    cells = np.minimum(positions.astype(np.int64), grid)
    return cells, positions - cells.astype(np.float32)


def window(box: list[float], size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns that a box touches in an image of `size`; none if either is empty."""
    (height, width), (x1, y1, x2, y2) = size, box
    if x2 <= x1 or y2 <= y1:
        return slice(0, 0), slice(0, 0)
    top, left = max(int(np.floor(y1)) - 1, 0), max(int(np.floor(x1)) - 1, 0)
    bottom, right = min(int(np.ceil(y2)) + 1, height), min(int(np.ceil(x2)) + 1, width)
    return slice(top, max(bottom, top)), slice(left, max(right, left))


def mask_edges(
    probs: Float[np.ndarray, "M M"], box: list[float], size: tuple[int, int]
) -> Int64[np.ndarray, " E"]:
    """The pixels, counted as COCO does, at which a mask begins, ends, begins, and so on."""
    rows, columns = window(box, size)
    if rows.start == rows.stop or columns.start == columns.stop:
        return np.zeros(0, np.int64)
    grid = len(probs)
    cells, shares = sample_positions(rows.start, rows.stop, box[1], box[3], grid)
    # In each cell the first and the last pixel tell whether the threshold is passed between them.
    turns = np.ones(len(cells) + 1, bool)
    np.not_equal(cells[1:], cells[:-1], out=turns[1:-1])
    knots = (turns[1:] | turns[:-1]).nonzero()[0]
    values = sample_columns(probs, columns, box)
    slopes = values[1:] - values[:-1]
    states = np.zeros((len(knots) + 2, values.shape[1]), bool)  # with nothing above and below
    at = cells[knots]
    np.greater_equal(values[at] + slopes[at] * shares[knots, None], MASK_THRESHOLD, out=states[1:-1])
    column, knot = (states[1:] != states[:-1]).T.nonzero()
    # The pixel of each knot, with one before and one after the box.
    stops = np.concatenate([knots[:1] - 1, knots, knots[-1:] + 1])
    row = stops[knot + 1]
    inside = (row - stops[knot] > 1).nonzero()[0]
    if len(inside):
        cell, previous = cells[row[inside]], stops[knot[inside]]
        value, slope = values[cell, column[inside]], slopes[cell, column[inside]]
        row[inside] = _search(value, slope, shares, previous, row[inside])
    edges = (column + columns.start) * size[0] + row + rows.start
    # Where columns are as tall as the image, one's end is the next one's start: no edge.
    touching = (edges[1:] == edges[:-1]).nonzero()[0]
    return np.delete(edges, np.concatenate([touching, touching + 1])) if len(touching) else edges


def sample_columns(
    probs: Float[np.ndarray, "M M"], columns: slice, box: list[float]
) -> Float[np.ndarray, "M2 w"]:
    """The grid, with an empty row at either end, sampled at the centres of columns of pixels."""
    padded = np.zeros((len(probs) + 2, len(probs) + 2), np.float32)
    padded[1:-1, 1:-1] = probs
    cells, shares = sample_positions(columns.start, columns.stop, box[0], box[2], len(probs))
    return padded[:, cells] + (padded[:, 1:] - padded[:, :-1])[:, cells] * shares


def _search(
    value: Float[np.ndarray, " E"],
    slope: Float[np.ndarray, " E"],
    shares: Float[np.ndarray, " h"],
    before: Int64[np.ndarray, " E"],
    after: Int64[np.ndarray, " E"],
) -> Int64[np.ndarray, " E"]:
    """The first row in (before, after], all in one cell, on the same side of the threshold as `after`.

    In a cell `value + slope * share` is monotonic, rounded too, so that the guess only has to be put right.
    """
    step = (after - before) / (shares[after] - shares[before])
    guess = before + np.ceil(((np.float32(MASK_THRESHOLD) - value) / slope - shares[before]) * step)
    guess = np.clip(guess, before + 1, after).astype(np.int64)
    rising = slope > 0

    def passed(row: Int64[np.ndarray, " E"]) -> Bool[np.ndarray, " E"]:
        return (value + slope * shares[row] >= MASK_THRESHOLD) == rising

    while (late := (guess > before + 1) & passed(guess - 1)).any():
        guess -= late
    while (early := ~passed(guess)).any():
        guess += early
    return guess
