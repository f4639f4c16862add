"""A model that finds the same two objects in every image, without PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from gcnet.deploy.runtime import Details, ExportedDetector
from gcnet.found import Found


@dataclass(frozen=True)
class Pixels:
    images: UInt8[np.ndarray, "H W 3"]


class Finds(ExportedDetector):
    """A ring in two parts, with a score of 0.9, and a star of 0.4."""

    def __init__(self, *, masks: bool = True) -> None:
        super().__init__(Details("two", ("ring", "star"), (64, 64), masks), lambda images: [], "f")
        self.calls = 0

    def prepare(self, image: Any) -> Any:
        return Pixels(image)

    def predict(self, prepared: Any, *, score_threshold: float = 0.05) -> list[Found]:
        self.calls += 1
        boxes = np.array([[2, 3, 12, 9], [8, 8, 20, 24]], np.float32)
        probs = np.ones((2, 28, 28), np.float32)
        probs[0, :, 12:16] = 0
        scores, labels = np.array([0.9, 0.4], np.float32), np.array([0, 1])
        size = prepared.images.shape[:2]
        found = Found(boxes, scores, labels, probs if self.details.masks else None, size, boxes)
        return [found[found.scores > score_threshold]]


def write_photos(folder: Path, count: int) -> Path:
    """JPEGs of 32 x 40 pixels."""
    folder.mkdir(parents=True)
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (40, 32, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{number:03}.jpg"), image)
    return folder


def listed(folder: Path) -> list[str]:
    """The files in a folder, but hidden ones."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))
