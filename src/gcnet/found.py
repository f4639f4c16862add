"""Detections and classes as NumPy arrays, for results files and drawings.

D detections, M side of a mask, T named classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64

from gcnet.errors import needs
from gcnet.ops.rle import encode_edges, encode_masks
from gcnet.ops.segmentations import rle_to_mask

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]
    import supervision  # pyright: ignore[reportMissingImports]


@runtime_checkable
class AnyDetections(Protocol):
    """`Found` (arrays) or `gcnet.types.Detections` (tensors). Files and drawings need no PyTorch."""

    @property
    def image_size(self) -> tuple[int, int]: ...

    def arrays(self) -> Found: ...

    def on_cpu(self) -> AnyDetections: ...


@dataclass(frozen=True)
class Found:
    """The detections of one image, best first, in pixels of the original image.

    The fields are those of `gcnet.types.Detections`: `image_size` is (height, width), and each mask lies over
    its frame. `edges` are those of the masks, as `gcnet.ops.rle.mask_edges` finds them, if a GPU has done so.
    """

    boxes: Float[np.ndarray, "D 4"]
    scores: Float[np.ndarray, " D"]
    labels: Int64[np.ndarray, " D"]
    mask_probs: Float[np.ndarray, "D M M"] | None
    image_size: tuple[int, int]
    frames: Float[np.ndarray, "D 4"]
    edges: Sequence[Int64[np.ndarray, " _E"]] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def to_dataframe(self, class_names: Sequence[str] = ()) -> pandas.DataFrame:
        """A pandas table with one row for each detection.

        Its columns are label, class_name (if `class_names` are given), score, x1, y1, x2 and y2. Raises
        GCNetError if pandas is not installed.
        """
        frame = needs("pandas").DataFrame
        named = {"class_name": [class_names[label] for label in self.labels]} if class_names else {}
        corners = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True))
        return frame({"label": self.labels, **named, "score": self.scores, **corners})

    def to_supervision(self, class_names: Sequence[str] = ()) -> supervision.Detections:
        """Roboflow's `supervision.Detections`, with full-size masks (D * H * W bytes).

        Raises GCNetError if supervision is not installed.
        """
        detections = needs("supervision").Detections
        masks = None
        if self.mask_probs is not None:
            size = list(self.image_size)
            drawn = [rle_to_mask({"size": size, "counts": one}) for one in self.encoded() or ()]
            masks = np.array(drawn, bool).reshape(len(self), *self.image_size)
        data: dict[str, Any] = {}
        if class_names:
            data["class_name"] = np.array([class_names[label] for label in self.labels])
        return detections(self.boxes, masks, self.scores, self.labels, data=data)

    def __getitem__(self, keep: Any) -> Found:
        """The detections that a number, slice, boolean mask or index array selects."""
        keep = [keep] if isinstance(keep, int | np.integer) else keep
        probs = None if self.mask_probs is None else self.mask_probs[keep]
        boxes, scores, labels, frames = (
            array[keep] for array in (self.boxes, self.scores, self.labels, self.frames)
        )
        edges = self.edges and [self.edges[index] for index in np.arange(len(self))[keep]]
        return Found(boxes, scores, labels, probs, self.image_size, frames, edges)

    def encoded(self) -> list[bytes] | None:
        """The compressed counts of COCO's RLE of each mask; None without masks."""
        if self.mask_probs is None:
            return None
        if self.edges is not None:
            return encode_edges(self.edges, self.image_size)
        return encode_masks(self.mask_probs, self.frames, self.image_size)

    def on_cpu(self) -> Found:
        """Itself, as `Detections.on_cpu` gives them where the arrays are."""
        return self

    def arrays(self) -> Found:
        """Itself, as `Detections.arrays` gives a `Found`."""
        return self


@dataclass(frozen=True)
class Classified:
    """The most probable classes of one image, best first, as in `gcnet.types.Classification`."""

    labels: Int64[np.ndarray, " T"]
    probabilities: Float[np.ndarray, " T"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)
