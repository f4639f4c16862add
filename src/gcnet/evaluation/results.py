"""Detections as COCO results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcnet.types import Detections


def coco_results(
    detections: Detections, image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """One entry a detection, best first, as COCO's results format has it.

    `bbox` is x, y, width, height in pixels of the original image, rounded to 1/1000 pixel; `segmentation` is
    a compressed RLE whose counts are text; `category_id` is `category_ids[label]`.
    """
    # Masks are drawn on the CPU: they are small matrix products, and one transfer replaces one a mask.
    detections = detections.to("cpu")
    columns = (detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist())
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 7),
            "segmentation": rle,
        }
        for (x1, y1, x2, y2), score, label, rle in zip(*columns, detections.rles(), strict=True)
    ]
