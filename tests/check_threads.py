"""Eight threads share a detector: what they find is what one thread finds, bit for bit.

    python tests/check_threads.py [IMAGES]

As a model is after loading, left in training mode, and as `optimize()` makes it. The detector is the tiny
one, the images are generated.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gcnet.lab.context_shapes import write_context_shapes
from gcnet.models.detector import Detector
from gcnet.ops.decode import read_image
from gcnet.weights.catalog import find as find_row

THREADS, SIZE = 8, 96


def find(detector: Detector, image: np.ndarray) -> tuple[bytes, ...]:
    """The bytes of all that is found, masks included."""
    (found,) = detector.predict_images([image], score_threshold=0.01)
    return tuple(part.tobytes() for part in vars(found.arrays()).values() if isinstance(part, np.ndarray))


def main(count: int = 1000) -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = write_context_shapes(Path(folder), train=count, valid=1, seed=0, size=SIZE)
        images = [read_image(path) for path in sorted((data / "train").glob("*.png"))]
    torch.manual_seed(0)
    plain = Detector(replace(find_row("mask_rcnn_tiny_gc4").spec, image_size=(SIZE, SIZE)))
    kinds = {
        "as loaded": plain.eval(),
        "optimize()": plain.optimize(),
        "in training mode": copy.deepcopy(plain).train(),
    }
    failed = 0
    for name, detector in kinds.items():
        one = [find(detector, image) for image in images]
        with ThreadPoolExecutor(THREADS) as pool:
            several = list(pool.map(lambda image, detector=detector: find(detector, image), images))
        different = sum(a != b for a, b in zip(one, several, strict=True))
        objects = sum(len(parts[0]) > 0 for parts in one)
        print(f"{name}: {different} of {len(images)} images differ; objects in {objects}", flush=True)
        failed += different
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
