"""Images a second that the training loader delivers, and the training steps that it can keep busy with them.

    python benchmarks/loader.py --workers 1 2

Generated photographs (JPEG, 640 x 480, eight polygons each) are read, resized to fit 1333x800, mirrored at
random, and batched with their targets, as `gcnet train` does it. Two figures stand beside each other: images
in a second of wall time, which other jobs on the machine lower, and the CPU time that an image costs a
worker, from which follows what free cores would give.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from gcnet.data.loader import Loader, train_loader
from gcnet.data.readers.coco import CocoDataset
from gcnet.recipe import Recipe

SIZE = (480, 640)
OBJECTS, POINTS = 8, 24


def main() -> None:
    """Makes the data set, measures, and prints."""
    options = parse()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder), options.pictures)
        loader = make_loader(dataset, options.batch, workers=0)
        cost = cpu_seconds(loader, options.images)
        print(
            f"an image costs {cost * 1e3:.1f} ms of CPU: {1 / cost:.1f} images/s for a worker on a free core"
        )
        for workers in options.workers:
            rate = images_a_second(make_loader(dataset, options.batch, workers), options.images)
            print(
                f"{workers} workers: {rate:.1f} images/s here and now, load {os.getloadavg()[0]:.1f}; "
                f"{workers / cost:.1f} on free cores, the limit of a step of {options.batch} images only if "
                f"that takes less than {options.batch * cost / workers * 1e3:.0f} ms"
            )


def make_loader(dataset: CocoDataset, batch: int, workers: int) -> Loader:
    """As `gcnet train` makes it."""
    return train_loader(dataset, recipe=Recipe(batch_size=batch, workers=workers), image_size=(1333, 800))


def cpu_seconds(loader: Loader, images: int) -> float:
    """CPU time of one image, in this process; the first batch is not counted."""
    batches = iter(loader)
    next(batches)
    done, began = 0, time.process_time()
    while done < images:
        done += len(next(batches)[0])
    return (time.process_time() - began) / done


def images_a_second(loader: Loader, images: int) -> float:
    """Of wall time, with nobody computing on them; what was ready before the clock started is not counted."""
    batches = iter(loader)
    for _ in range(2 * loader.num_workers + 1):
        next(batches)
    done, began = 0, time.perf_counter()
    while done < images:
        done += len(next(batches)[0])
    return done / (time.perf_counter() - began)


def make_dataset(folder: Path, pictures: int) -> CocoDataset:
    """Smooth noise with sharp shapes on it, which compresses about as photographs do."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(pictures):
        name = f"{number}.jpg"
        coarse = generator.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        for _ in range(OBJECTS):
            outline = blob(generator)
            colour = generator.integers(0, 256, 3).tolist()
            cv2.fillPoly(picture, [outline.astype(np.int32)], colour)
            corner, side = outline.min(0), np.ptp(outline, axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [*corner.tolist(), *side.tolist()],
                    "area": float(side.prod()),
                    "iscrowd": 0,
                    "segmentation": [outline.ravel().tolist()],
                }
            )
        cv2.imwrite(str(folder / "images" / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
    file = folder / "annotations.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "shape"}]})
    )
    return CocoDataset.load(file, folder / "images")


def blob(generator: np.random.Generator) -> np.ndarray:
    """A star-like outline that lies in the picture."""
    radius = generator.uniform(20, 120)
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    spokes = radius * generator.uniform(0.6, 1, POINTS)
    centre = generator.uniform(radius, np.array(SIZE[::-1]) - radius)
    return centre + spokes[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (1 and 2)")
    parser.add_argument("--batch", type=int, default=2, help="images of a step (2)")
    parser.add_argument("--images", type=int, default=100, help="to time (100)")
    parser.add_argument("--pictures", type=int, default=32, help="to generate (32)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
