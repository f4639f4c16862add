"""Reads masks as runs of pixels in text, "START LENGTH START LENGTH ...", as Kaggle's competitions have them.

Pixels are counted from 1, column after column in most competitions, and row after row in some.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from gcnet.data.readers.files import check_mask_size, object_of
from gcnet.ops.segmentations import mask_to_rle

log = logging.getLogger(__name__)

_LOOKED_AT = 20  # masks by which the order is told


def read_runs(path: Path, texts: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """The `segmentation` of each mask of an image of its size (height, width); nothing for one that is none.

    In the wrong order a mask is torn to stripes, unless its image is square: the order with the shorter
    outlines is taken, and said where it is not by columns.
    """
    parts = [part for part in zip(texts, sizes, strict=True) if part[1][0] != part[1][1]][:_LOOKED_AT]
    by_rows = _outlines(parts, by_rows=True) < _outlines(parts, by_rows=False)
    if by_rows:
        log.warning("%s: run lengths are taken to go row by row, in which masks are less torn", path)
    return [object_of(_mask, text, size, by_rows) for text, size in zip(texts, sizes, strict=True)]


def _outlines(parts: Sequence[tuple[str, tuple[int, int]]], *, by_rows: bool) -> int:
    """The number of borders between pixels of the masks and others."""
    masks = [object_of(lambda *part: {"mask": _drawn(*part)}, *part, by_rows).get("mask") for part in parts]
    return sum(
        int(np.count_nonzero(np.diff(mask, axis=axis)))
        for mask in masks
        if mask is not None
        for axis in (0, 1)
    )


def _mask(text: str, size: tuple[int, int], by_rows: bool) -> dict[str, Any]:
    if by_rows:
        return {"segmentation": mask_to_rle(_drawn(text, size, True))}
    starts, lengths = _runs(text, size)
    # COCO's run lengths, of other pixels and the mask's in turn, go by columns too.
    ends = np.concatenate([[0], starts + lengths])
    counts = np.stack([starts - ends[:-1], lengths], 1).ravel()
    rest = size[0] * size[1] - int(ends[-1])
    return {"segmentation": {"size": list(size), "counts": [*counts.tolist(), rest]}}


def _drawn(text: str, size: tuple[int, int], by_rows: bool) -> UInt8[np.ndarray, "H W"]:
    starts, lengths = _runs(text, size)
    height, width = size
    steps = np.zeros(height * width + 1, np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + lengths, -1)
    flat = steps[:-1].cumsum(dtype=np.int8).astype(np.uint8)
    return flat.reshape(height, width) if by_rows else flat.reshape(width, height).T


def _runs(text: str, size: tuple[int, int]) -> tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " R"]]:
    """Starts, counted from 0, and lengths. Raises ValueError where they are no runs in the image."""
    pixels = check_mask_size(size)
    pairs = np.array(text.split(), np.int64).reshape(-1, 2)
    starts, lengths = pairs[np.argsort(pairs[:, 0], kind="stable")].T - [[1], [0]]
    ends = starts + lengths
    apart = len(pairs) and starts[0] >= 0 and lengths.min() >= 1 and (starts[1:] >= ends[:-1]).all()
    if not apart or ends[-1] > pixels:
        raise ValueError("no runs of this image")
    return starts, lengths
