"""Predicts large images tile by tile, and merges the detections.

H x W image. This uses arrays and does not import torch: the detector may be an export.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gcnet.found import Found
from gcnet.models.seams import join_views
from gcnet.models.tiles import Tiles, View
from gcnet.ops.decode import as_rgb_array
from gcnet.ops.images import together


@dataclass(frozen=True)
class WholeImage:
    """An image whose views are made when its turn comes: all at once would take more than itself."""

    image: UInt8[np.ndarray, "H W 3"]


class Tiled:
    """A detector that predicts large images as a whole and in `tiles`, `batch_size` tiles at a time.

    It has the methods for inference of the `detector`, which is a `Detector`, an `ExportedDetector`, or, with
    a `batch_size` of 1, an `Augmented` one.
    """

    def __init__(self, detector: Any, tiles: Tiles, batch_size: int = 1) -> None:
        self.detector, self.tiles, self.batch_size = detector, tiles, batch_size

    @property
    def spec(self) -> Any:
        return self.detector.spec

    def prepare(self, image: Any) -> WholeImage:
        """An image as `Detector.prepare` takes it."""
        return WholeImage(as_rgb_array(image))

    def predict(self, whole: WholeImage, *, score_threshold: float = 0.05) -> list[Any]:
        """The detections in the image as a list of one, on the CPU, in the detector's own type.

        Of a tile the detector gives as many objects as of an image. Of the image all are kept.
        """
        image = whole.image
        size = (image.shape[0], image.shape[1])
        views = self.tiles.views(size)
        found: list[Any] = []
        for group in self._groups(views):
            crops = [self.detector.prepare(image[v.top : v.bottom, v.left : v.right]) for v in group]
            found += self.detector.predict(together(crops), score_threshold=score_threshold)
        if len(views) == 1:
            return found
        joined = join_views([one.arrays() for one in found], views, size)
        return [joined if isinstance(found[0], Found) else type(found[0]).of_arrays(joined)]

    def _groups(self, views: Sequence[View]) -> Iterator[Sequence[View]]:
        """The whole image, then tiles that are predicted together."""
        yield views[:1]
        for first in range(1, len(views), self.batch_size):
            yield views[first : first + self.batch_size]
