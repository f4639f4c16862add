"""Detections as COCO results, and JSON files that are either whole or not there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcnet.errors import GCNetError
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


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, made if need be. Raises GCNetError if no file can be written in it."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise GCNetError(
            f"cannot write in {folder}: {error.strerror}; choose another output folder"
        ) from None
    return folder


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as JSON, a list with one entry a line. A crash leaves the old file or the new one."""
    if isinstance(value, list):
        text = "[\n" + ",\n".join(json.dumps(entry, allow_nan=False) for entry in value) + "\n]\n"
    else:
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file through a temporary one beside it: written, synchronised, renamed.

    Raises GCNetError where the disk does not take it (full, read-only); the old file is then unharmed.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise GCNetError(
            f"cannot write {path}: {error.strerror}; free space or choose another folder"
        ) from None
    finally:
        part.unlink(missing_ok=True)
