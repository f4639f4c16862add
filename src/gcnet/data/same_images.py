"""Finds files that show the same image: equal bytes, or nearly equal small gray copies.

M images.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int

from gcnet.errors import GCNetError
from gcnet.ops.decode import read_small

THUMB = 32  # side of the small gray copies
# Gray levels, on average and at most, by which copies of one image differ: saving as JPEG changes less.
MEAN_OFF, MOST_OFF = 1.5, 12.0


def same_images(
    paths: Sequence[Path], *, most_decoded: int = 2000, done: Callable[[], object] = lambda: None
) -> list[list[int]]:
    """Groups of indices whose files show one image, each in order.

    Files of equal bytes are always found. Images that were saved again, or resized, are found among
    `most_decoded` at most, evenly drawn: those are decoded, and `done` is called after each. Files that
    cannot be read are like no other.
    """
    first = np.arange(len(paths))
    for group in _equal_files(paths):
        first[group] = group[0]
    drawn = np.unique(first)
    drawn = drawn[np.linspace(0, len(drawn) - 1, min(len(drawn), most_decoded)).astype(int)]
    thumbs = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for thumb in pool.map(_thumbnail, [paths[index] for index in drawn.tolist()]):
            thumbs.append(thumb)
            done()
    known = [place for place, thumb in enumerate(thumbs) if thumb is not None]
    nearest = _first_like(np.stack([thumbs[place] for place in known])) if known else known
    like = dict(zip(drawn[known].tolist(), drawn[known][nearest].tolist(), strict=True))
    groups = defaultdict(list)
    for index, one in enumerate(first.tolist()):
        groups[like.get(one, one)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _equal_files(paths: Sequence[Path]) -> list[list[int]]:
    """Compares files of equal size only."""
    by_size = defaultdict(list)
    for index, path in enumerate(paths):
        if os.path.isfile(path):
            by_size[path.stat().st_size].append(index)
    by_content = defaultdict(list)
    for size, group in by_size.items():
        for index in group if len(group) > 1 else ():
            with contextlib.suppress(OSError), open(paths[index], "rb") as file:
                by_content[size, hashlib.file_digest(file, "sha256").digest()].append(index)
    return [group for group in by_content.values() if len(group) > 1]


def _thumbnail(path: Path) -> Float[np.ndarray, " P"] | None:
    """Gray levels of a small copy and, in a row with them, how wide the image is beside its height."""
    try:
        image = read_small(path, 4 * THUMB)
    except GCNetError:
        return None
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return np.append(small.ravel(), 100 * np.log(gray.shape[1] / gray.shape[0])).astype(np.float32)


def _first_like(thumbs: Float[np.ndarray, "M P"]) -> Int[np.ndarray, " M"]:
    """For each image the first one that is like it, which may be itself."""
    lengths = (thumbs**2).sum(1)
    limit = thumbs.shape[1] * MEAN_OFF * MOST_OFF  # of the sum of squares, whatever the differences are
    first = np.arange(len(thumbs))
    for index, thumb in enumerate(thumbs):
        apart = lengths[:index] + lengths[index] - 2 * (thumbs[:index] @ thumb)
        near = np.flatnonzero((apart <= limit) & (first[:index] == np.arange(index)))
        off = np.abs(thumbs[near] - thumb)
        like = near[(off.mean(1) <= MEAN_OFF) & (off.max(1) <= MOST_OFF)]
        if len(like):
            first[index] = like[0]
    return first
