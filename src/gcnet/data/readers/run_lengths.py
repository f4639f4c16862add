"""Reads masks as runs of pixels in text, "START LENGTH START LENGTH ...", as Kaggle's competitions have them.

Pixels are counted from 1, column after column in most competitions, and row after row in some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from gcnet.data.readers.shapes import check_mask_size
from gcnet.data.source import warn
from gcnet.ops.segmentations import mask_to_rle

_LOOKED_AT = 20  # masks by which the order is told


def read_runs(path: Path, texts: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """The `segmentation` of each mask of an image of its size (height, width); nothing for one that is none.

    In the wrong order a mask is torn to stripes, unless its image is square: the order with the shorter
    outlines is taken, and said where it is not by columns.
    """
    every = [_parse(text, size) for text, size in zip(texts, sizes, strict=True)]
    told = [runs for runs in every if runs is not None and runs.size[0] != runs.size[1]][:_LOOKED_AT]
    rows, columns = (sum(_borders(runs.drawn(by_rows=order)) for runs in told) for order in (True, False))
    by_rows = rows < columns
    if by_rows:
        warn(path, "run lengths are taken to go row by row, in which masks are less torn")
    return [{} if runs is None else {"segmentation": runs.rle(by_rows=by_rows)} for runs in every]


@dataclass(frozen=True)
class Runs:
    """The runs of a mask: first pixels, counted from 0, and those after the last ones."""

    starts: Int64[np.ndarray, " R"]
    ends: Int64[np.ndarray, " R"]
    size: tuple[int, int]

    def drawn(self, *, by_rows: bool) -> UInt8[np.ndarray, "H W"]:
        height, width = self.size
        steps = np.zeros(height * width + 1, np.int8)
        np.add.at(steps, self.starts, 1)
        np.add.at(steps, self.ends, -1)
        flat = steps[:-1].cumsum(dtype=np.int8).astype(np.uint8)
        return flat.reshape(height, width) if by_rows else flat.reshape(width, height).T

    def rle(self, *, by_rows: bool) -> dict[str, Any]:
        """COCO's RLE, whose runs, of other pixels and the mask's in turn, go by columns too."""
        if by_rows:
            return mask_to_rle(self.drawn(by_rows=True))
        changes = np.stack([self.starts, self.ends], 1).ravel()
        counts = np.diff(changes, prepend=0, append=self.size[0] * self.size[1])
        return {"size": list(self.size), "counts": counts.tolist()}


def _parse(text: str, size: tuple[int, int]) -> Runs | None:
    """The runs in a text; None where they are none of an image of this size."""
    try:
        pixels = check_mask_size(size)
        pairs = np.array(text.split(), np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        return None
    if not len(pairs) or pairs.min() < 1 or pairs.max() > pixels:  # before sums of them overflow
        return None
    starts, lengths = pairs[np.argsort(pairs[:, 0], kind="stable")].T - [[1], [0]]
    ends = starts + lengths
    return Runs(starts, ends, size) if (starts[1:] >= ends[:-1]).all() and ends[-1] <= pixels else None


def _borders(mask: UInt8[np.ndarray, "H W"]) -> int:
    """The number of borders between pixels of the mask and others."""
    return sum(int(np.count_nonzero(np.diff(mask, axis=axis))) for axis in (0, 1))
