"""An image and its objects, which transforms change, and the targets that a detector learns from.

H x W image, G objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from gcnet.data.dataset import ImageRecord
from gcnet.ops.mask_targets import draw_outlines
from gcnet.ops.segmentations import Segmentation
from gcnet.types import Targets

IGNORED = -1  # the label of a region that is learnt neither as an object nor as background


@dataclass(frozen=True)
class Sample:
    """An image and its objects, in its pixels. Crowd regions are not among them.

    `masks` are polygons or RLEs of the image's size; empty for an object of which only the box is known.
    What is labelled `IGNORED` is a region that is learnt neither as an object nor as background.
    """

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Float32[np.ndarray, "G 4"]
    labels: Int64[np.ndarray, " G"]
    masks: Sequence[Segmentation]

    @classmethod
    def of(
        cls,
        image: UInt8[np.ndarray, "H W 3"],
        record: ImageRecord,
        *,
        masks: bool = True,
        crowds: bool = False,
    ) -> Sample:
        """The objects that a detector learns, with or without outlines; and those that it ignores.

        With `crowds` that is crowd regions, too.
        """
        objects, ignored = record.objects(masks=masks), record.ignored(masks=masks, crowds=crowds)
        boxes = np.array([item.box for item in [*objects, *ignored]], np.float32).reshape(-1, 4)
        labels = np.array([item.label for item in objects] + [IGNORED] * len(ignored), np.int64)
        outlines: list[Segmentation] = [item.segmentation if masks else [] for item in objects]
        return cls(image, boxes, labels, outlines + [[]] * len(ignored))

    @classmethod
    def without_objects(cls, image: UInt8[np.ndarray, "H W 3"]) -> Sample:
        """The image without its objects."""
        return cls(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def has_objects(self) -> bool:
        return bool((self.labels != IGNORED).any())

    def keep(self, which: Sequence[int] | np.ndarray) -> Sample:
        """A copy with only the objects at these indices."""
        index = np.asarray(which, np.int64)
        masks = [self.masks[i] for i in index.tolist()]
        return replace(self, boxes=self.boxes[index], labels=self.labels[index], masks=masks)

    def targets(self) -> Targets:
        """The targets for a detector's losses. Boxes are clipped to the image, masks are not.

        A box that is empty then is left out: the logarithm of its width or height would be infinite.
        """
        height, width = self.size
        boxes = self.boxes.clip(0, np.array([width, height, width, height], np.float32))
        full = (boxes[:, 2:] > boxes[:, :2]).all(1)
        learnt = self.keep(np.flatnonzero(full & (self.labels != IGNORED)))
        ignored = torch.from_numpy(boxes[full & (self.labels == IGNORED)])
        boxes = boxes[full & (self.labels != IGNORED)]
        drawn = draw_outlines(learnt.masks, boxes)
        outlines, frames = (None, None) if drawn is None else map(torch.from_numpy, drawn)
        labels = torch.from_numpy(learnt.labels)
        return Targets(torch.from_numpy(boxes), labels, learnt.masks, outlines, frames, ignored)
