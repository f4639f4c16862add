"""Detections and classes as arrays: what results files and drawings are made of.

D detections, M side of a mask, T named classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64


@runtime_checkable
class AnyDetections(Protocol):
    """`Found`, or a `gcnet.types.Detections` of tensors: files and drawings are made without PyTorch."""

    @property
    def image_size(self) -> tuple[int, int]: ...

    def arrays(self) -> Found: ...


@dataclass(frozen=True)
class Found:
    """What was found in one image, best first, in pixels of the original image.

    Fields are those of `gcnet.types.Detections`: `image_size` is (height, width), masks lie over `frames`.
    """

    boxes: Float[np.ndarray, "D 4"]
    scores: Float[np.ndarray, " D"]
    labels: Int64[np.ndarray, " D"]
    mask_probs: Float[np.ndarray, "D M M"] | None
    image_size: tuple[int, int]
    frames: Float[np.ndarray, "D 4"]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, keep: Any) -> Found:
        """The detections that a slice, boolean mask or index array selects."""
        probs = None if self.mask_probs is None else self.mask_probs[keep]
        boxes, scores, labels, frames = (
            array[keep] for array in (self.boxes, self.scores, self.labels, self.frames)
        )
        return Found(boxes, scores, labels, probs, self.image_size, frames)

    def arrays(self) -> Found:
        """Itself: `Detections.arrays` makes one of tensors."""
        return self


@dataclass(frozen=True)
class Classified:
    """The most probable classes of one image, best first, as in `gcnet.types.Classification`."""

    labels: Int64[np.ndarray, " T"]
    probabilities: Float[np.ndarray, " T"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)
