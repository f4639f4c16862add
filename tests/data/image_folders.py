"""Small picture sets for classification."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLORS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def write_picture(path: Path, color: tuple[int, int, int], *, seed: int = 0, size=(40, 48)) -> None:
    """A picture of `size` (height, width) in about one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-25, 26, (*size, 3))
    image = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_folders(root: Path, *, train: int = 4, valid: int = 2, classes=tuple(COLORS)) -> Path:
    """`train/red/0.png`, ..., `val/blue/1.png`: as many pictures of each class."""
    for split, count in (("train", train), ("val", valid)):
        for name in classes:
            for i in range(count):
                write_picture(root / split / name / f"{i}.png", COLORS[name], seed=i + 100 * (split == "val"))
    return root
