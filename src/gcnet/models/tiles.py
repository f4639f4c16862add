"""Large images through a detector, a tile at a time; tiles overlap, and what they find becomes one.

H x W image. Arrays alone, no torch: the detector may be one in a file for another runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gcnet.errors import GCNetError
from gcnet.found import Found
from gcnet.models.seams import View, join_views

LEAST_TILE = 32  # pixels: less is no image to a detector
MOST_OVERLAP = 0.8


@dataclass(frozen=True)
class Tiles:
    """Squares of `side` pixels that cover an image; of each side a share of `overlap` lies in the next."""

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < LEAST_TILE:
            raise GCNetError(f"a tile of {self.side} pixels is too small; give {LEAST_TILE} or more")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise GCNetError(f"an overlap of {self.overlap} is not in [0, {MOST_OVERLAP}]; 0.2 is usual")

    def views(self, size: tuple[int, int]) -> list[View]:
        """The whole image of `size` (height, width), then its tiles; the image alone where it is no larger.

        All tiles are of one size: they lie evenly, so that the last ends where the image does.
        """
        height, width = size
        whole = View(0, 0, width, height)
        if max(size) <= self.side:
            return [whole]
        tall, wide = min(self.side, height), min(self.side, width)
        places = [(top, left) for top in self._starts(height) for left in self._starts(width)]
        return [whole, *(View(left, top, left + wide, top + tall) for top, left in places)]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        step = max(int(self.side * (1 - self.overlap)), 1)
        count = -(-(length - self.side) // step) + 1
        return np.linspace(0, length - self.side, count).round().astype(int).tolist()


@dataclass(frozen=True)
class Uncut:
    """An image that is cut when its turn comes: all its tiles at once would take more than itself."""

    image: UInt8[np.ndarray, "H W 3"]

    def __len__(self) -> int:
        return 1

    def to(self, device: Any) -> Uncut:
        """Itself: tiles go to the model's device."""
        return self


class Tiled:
    """A detector that sees large images as a whole, and in `tiles`, `batch_size` of them at a time.

    It has the methods for inference of the `detector`, which is a `Detector` or an `ExportedDetector`.
    """

    def __init__(self, detector: Any, tiles: Tiles, batch_size: int = 1) -> None:
        self.detector, self.tiles, self.batch_size = detector, tiles, batch_size

    @property
    def spec(self) -> Any:
        return self.detector.spec

    def prepare(self, image: Any) -> Uncut:
        """A picture as `Detector.prepare` takes it."""
        from gcnet.ops.decode import as_rgb_array  # slow: mistakes in `Tiles` are told before

        return Uncut(as_rgb_array(image))

    def predict(self, uncut: Uncut, *, score_threshold: float = 0.05) -> list[Any]:
        """What is found in the image, as a list of one: on the CPU, of the kind that the detector gives.

        Of a tile the detector gives as many objects as of an image. Of the image all are kept.
        """
        image = uncut.image
        size = (image.shape[0], image.shape[1])
        views = self.tiles.views(size)
        found: list[Any] = []
        for group in self._groups(views):
            crops = [self.detector.prepare(image[v.top : v.bottom, v.left : v.right]) for v in group]
            batch = crops[0] if len(crops) == 1 else type(crops[0]).together(crops)
            found += self.detector.predict(batch, score_threshold=score_threshold)
        if len(views) == 1:
            return found
        joined = join_views([one.arrays() for one in found], views, size)
        return [joined if isinstance(found[0], Found) else type(found[0]).of_arrays(joined)]

    def _groups(self, views: Sequence[View]) -> Iterator[Sequence[View]]:
        """The whole image, then tiles that are predicted together."""
        yield views[:1]
        for first in range(1, len(views), self.batch_size):
            yield views[first : first + self.batch_size]
