"""Detections in COCO's results format.

N images, D detections.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from gcnet.found import AnyDetections


@dataclass(frozen=True)
class ImageResults:
    """The detections of one image: boxes x, y, width, height, and masks as the counts of compressed RLEs.

    `counts` is none where the detector has no mask heads.
    """

    image_id: int | str
    size: tuple[int, int]
    boxes: Float[np.ndarray, "D 4"]
    scores: Float[np.ndarray, " D"]
    category_ids: Int64[np.ndarray, " D"]
    counts: list[bytes] | None

    @classmethod
    def of(cls, detections: AnyDetections, image_id: int | str, category_ids: Sequence[int]) -> ImageResults:
        """`category_ids[label]` is the category of a label; boxes are rounded to 1/1000 pixel."""
        found = detections.arrays()
        x1, y1, x2, y2 = found.boxes.astype(np.float64).T
        return cls(
            image_id,
            found.image_size,
            np.stack([x1, y1, x2 - x1, y2 - y1], 1).round(3),
            found.scores.astype(np.float64).round(7),
            np.asarray(category_ids, np.int64)[found.labels],
            found.encoded(),
        )

    @classmethod
    def from_json(cls, image_id: int | str, value: dict[str, Any]) -> ImageResults:
        """The inverse of `as_json`, to the last digit."""
        counts = value["counts"]
        return cls(
            image_id,
            (value["size"][0], value["size"][1]),
            np.array(value["boxes"], np.float64).reshape(-1, 4),
            np.array(value["scores"], np.float64),
            np.array(value["category_ids"], np.int64),
            None if counts is None else [text.encode("ascii") for text in counts],
        )

    def as_json(self) -> dict[str, Any]:
        """All except the image's id, as plain values."""
        return {
            "size": list(self.size),
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "category_ids": self.category_ids.tolist(),
            "counts": None if self.counts is None else [counts.decode("ascii") for counts in self.counts],
        }

    def __len__(self) -> int:
        return len(self.scores)

    def entries(self) -> list[dict[str, Any]]:
        """The detections in COCO's results format: plain values, `counts` as text."""
        columns = (self.category_ids.tolist(), self.boxes.tolist(), self.scores.tolist())
        entries = [
            {"image_id": self.image_id, "category_id": category_id, "bbox": box, "score": score}
            for category_id, box, score in zip(*columns, strict=True)
        ]
        for entry, counts in zip(entries, self.counts or (), strict=False):
            entry["segmentation"] = {"size": list(self.size), "counts": counts.decode("ascii")}
        return entries


class CocoResults(Sequence[dict[str, Any]]):
    """Detections of many images in COCO's results format.

    Kept are columns and run-length encodings, about 300 bytes a detection; entries are made when asked for.
    """

    def __init__(self, images: Iterable[ImageResults]) -> None:
        self.images = list(images)
        self._ends = list(accumulate(map(len, self.images)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        places = range(len(self))[index]
        if isinstance(places, range):  # of a slice
            return [self[place] for place in places]
        image = bisect_right(self._ends, places)
        return self.images[image].entries()[places - self._ends[image]]

    def __iter__(self) -> Any:
        for image in self.images:
            yield from image.entries()
