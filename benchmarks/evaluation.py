"""COCO's AP of boxes and masks at COCO's size: our evaluator beside pycocotools, time and memory of each.

    python benchmarks/evaluation.py --images 5000 --out runs/evaluation

Data set and detections are simulated: 640 x 480 pictures with 7.2 objects each on average, as polygons, in 80
classes and of sizes as COCO's; 100 detections an image, of which some are objects moved and deformed and most
find nothing. Each scorer runs in a process of its own and starts from the same two
files; what reading the detections takes is not counted. Times are CPU time of the process, all threads, since
other jobs may share the machine; memory is the largest resident set. The first figure is our encoding
of the masks as RLE, from 28 x 28 probabilities.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HEIGHT, WIDTH = 480, 640
CLASSES = 80
OBJECTS = 7.2  # an image, on average
FOUND = 100  # detections an image
SIDES = np.log(12), np.log(400)  # of objects: 40 % small, 36 % medium, 24 % large
PARTS = ("simulate", "gcnet", "pycocotools")
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def outline(rng: np.random.Generator) -> np.ndarray:
    """A closed, smooth, bumpy outline: (P, 2) x and y in [0, 1]."""
    angles = np.linspace(0, 2 * np.pi, int(rng.integers(10, 60)), endpoint=False)
    radius = 1 + sum(rng.normal(0, 0.25 / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(1, 6))
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * np.maximum(radius, 0.2)[:, None]
    low, high = points.min(0), points.max(0)
    return (points - low) / (high - low)


def annotate(rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
    """The objects of an image: class and polygon (P, 2) in pixels."""
    objects = []
    for _ in range(max(int(rng.poisson(OBJECTS)), 1)):
        side = np.exp(rng.uniform(*SIDES))
        size = np.minimum(side * np.exp(rng.normal(0, 0.35) * np.array([1, -1])), [WIDTH, HEIGHT])
        corner = rng.uniform(0, 1, 2) * (np.array([WIDTH, HEIGHT]) - size)
        objects.append((int(CLASSES * rng.random() ** 2), (corner + outline(rng) * size).round(2)))
    return objects


def detect(objects: list[tuple[int, np.ndarray]], rng: np.random.Generator) -> Any:
    """Detections of an image, best first, as a model would give them."""
    import torch

    from gcnet.ops.mask_targets import crop_segmentations
    from gcnet.types import Detections

    polygons = [polygon for _, polygon in objects]
    first = np.arange(FOUND) < len(objects)  # these find an object each
    index = rng.integers(len(objects), size=FOUND)
    index[: len(objects)] = np.arange(len(objects))
    bounds = np.array([[*p.min(0), *p.max(0)] for p in polygons])[index]
    sides = np.tile(bounds[:, 2:] - bounds[:, :2], 2)
    noise = np.where(first, 0.03, 0.25)[:, None]
    boxes = bounds + rng.normal(0, 1, (FOUND, 4)) * noise * sides
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
    boxes = boxes.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)
    crops = crop_segmentations([[p] for p in polygons], index, boxes).astype(np.float32)
    probs = np.stack([cv2.GaussianBlur(crop, (0, 0), 1.5) for crop in crops])
    probs = (probs + rng.normal(0, 0.08, probs.shape)).clip(0, 1).astype(np.float32)
    labels = np.array([label for label, _ in objects])[index]
    wrong = rng.random(FOUND) < np.where(first, 0.15, 0.8)
    labels = np.where(wrong, rng.integers(CLASSES, size=FOUND), labels)
    scores = np.exp(-rng.exponential(1, FOUND) * np.where(first, 0.5, 2.5)).clip(0.05, 1).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    columns = (boxes[order], scores[order], labels[order], probs[order])
    return Detections(*(torch.from_numpy(column) for column in columns), (HEIGHT, WIDTH))


def simulate(folder: Path, images: int) -> dict[str, float]:
    """Writes `annotations.json` and `results.json`; what encoding the results took."""
    from gcnet.evaluation.results import ImageResults

    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    content: dict[str, Any] = {"images": [], "annotations": entries}
    content["categories"] = [{"id": id, "name": f"class {id}"} for id in range(1, CLASSES + 1)]
    encoding, counts = 0.0, 0
    with open(folder / "results.json", "w") as file:
        for image in range(1, images + 1):
            objects = annotate(rng)
            (folder / "images" / f"{image}.jpg").touch()  # never opened
            size = {"height": HEIGHT, "width": WIDTH}
            content["images"].append({"id": image, "file_name": f"{image}.jpg", **size})
            for label, polygon in objects:
                entries.append(annotation(len(entries) + 1, image, label, polygon))
            detections = detect(objects, rng)
            began = time.process_time()
            found = ImageResults.of(detections, image, range(1, CLASSES + 1)).entries()
            encoding += time.process_time() - began
            counts += sum(len(entry["segmentation"]["counts"]) for entry in found)
            file.write("[" if image == 1 else ",\n")
            file.write(",\n".join(map(json.dumps, found)))
        file.write("]\n")
    (folder / "annotations.json").write_text(json.dumps(content))
    return {"objects": len(entries), "encoding": encoding, "bytes of RLE": counts}


def annotation(id: int, image: int, label: int, polygon: np.ndarray) -> dict[str, Any]:
    """An object as COCO's files have it."""
    (x1, y1), (x2, y2) = polygon.min(0).tolist(), polygon.max(0).tolist()
    x, y = polygon.T
    area = abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
    return {
        "id": id,
        "image_id": image,
        "category_id": label + 1,
        "iscrowd": int(id % 100 == 0),
        "area": round(area, 2),
        "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
        "segmentation": [polygon.ravel().tolist()],
    }


def score_with_gcnet(folder: Path) -> dict[str, Any]:
    """Seconds, memory, and the figures of boxes and masks."""
    from gcnet.data.readers.coco import CocoDataset
    from gcnet.evaluation.coco_ap import CocoEvaluator

    imports = memory("VmRSS")
    dataset = CocoDataset.load(folder / "annotations.json", folder / "images")
    found = list(read_results(folder / "results.json"))
    began = time.process_time()
    evaluator = CocoEvaluator(dataset, found)
    held = memory("VmRSS")
    metrics = evaluator.compute()
    seconds = time.process_time() - began
    return {"seconds": seconds, "imports": imports, "held": held, "box": metrics.box, "mask": metrics.mask}


def read_results(file: Path) -> Iterator[Any]:
    """The results of one image after the other, as they come from a model."""
    from gcnet.evaluation.results import ImageResults

    with open(file) as lines:
        entries = (json.loads(line.strip("[],\n")) for line in lines if "image_id" in line)
        for image_id, found in itertools.groupby(entries, lambda entry: entry["image_id"]):
            columns = [(e["bbox"], e["score"], e["category_id"], e["segmentation"]["counts"]) for e in found]
            boxes, scores, categories, counts = zip(*columns, strict=True)
            yield ImageResults(
                image_id,
                (HEIGHT, WIDTH),
                np.array(boxes, np.float64),
                np.array(scores, np.float64),
                np.array(categories, np.int64),
                [text.encode() for text in counts],
            )


def score_with_pycocotools(folder: Path) -> dict[str, Any]:
    """The same by pycocotools, as its users do it: one file of results, scored twice."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    figures: dict[str, Any] = {"imports": memory("VmRSS")}
    with contextlib.redirect_stdout(io.StringIO()):
        began = time.process_time()
        truth = COCO(str(folder / "annotations.json"))
        figures["seconds"] = time.process_time() - began
        results = json.loads((folder / "results.json").read_bytes())
        figures["held"] = memory("VmRSS")
        for name, kind, other in (("box", "bbox", "segmentation"), ("mask", "segm", "bbox")):
            # With boxes in them, masks would be called small or large by the area of the box.
            entries = [{k: v for k, v in entry.items() if k != other} for entry in results]
            began = time.process_time()
            evaluation = COCOeval(truth, truth.loadRes(entries), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            figures["seconds"] += time.process_time() - began
            figures[name] = dict(zip(NAMES, evaluation.stats.tolist(), strict=True))
    return figures


def memory(field: str) -> float:
    """A field of this process's memory [MB]: VmRSS now, VmHWM at most. Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def run_part(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """One part in a process of its own."""
    words = [sys.executable, __file__, "--part", part]
    words += ["--images", str(options.images), "--out", str(options.out)]
    print(f"{part} ...", file=sys.stderr)
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)


def report(found: dict[str, dict[str, Any]], images: int) -> str:
    """A table, and how the two scorers compare."""
    simulated, ours, theirs = (found[part] for part in PARTS)
    masks = images * FOUND
    lines = [
        f"{images} images, {simulated['objects']} objects, {masks} detections",
        f"encoding: {simulated['encoding']:.1f} s, {simulated['encoding'] / masks * 1e6:.0f} us a mask, "
        f"{simulated['bytes of RLE'] / 1e6:.0f} MB of RLE",
        "| | scoring, s | libraries, MB | with the results, MB | at most, MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in (("gcnet", ours), ("pycocotools", theirs)):
        megabytes = " | ".join(f"{one[field]:.0f}" for field in ("imports", "held", "peak"))
        lines.append(f"| {name} | {one['seconds']:.1f} | {megabytes} |")
    largest = max(abs(ours[kind][name] - theirs[kind][name]) for kind in ("box", "mask") for name in NAMES)
    lines.append(
        f"scoring: 1/{theirs['seconds'] / ours['seconds']:.1f} of pycocotools' time; "
        f"box AP {ours['box']['AP']:.4f}, mask AP {ours['mask']['AP']:.4f}, "
        f"largest difference of the 24 figures {largest:.1e}"
    )
    return "\n".join(lines)


def main() -> None:
    """Runs the parts one after the other, or one of them here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=500, help="500; COCO's validation set has 5000")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation"), help="for the simulated files")
    parser.add_argument("--keep", action="store_true", help="use the files of an earlier run")
    parser.add_argument("--part", choices=PARTS, help="run this part only, in this process, and print JSON")
    options = parser.parse_args()
    if options.part:
        folder = options.out
        run = {
            "simulate": lambda: simulate(folder, options.images),
            "gcnet": lambda: score_with_gcnet(folder),
            "pycocotools": lambda: score_with_pycocotools(folder),
        }
        print(json.dumps(run[options.part]() | {"peak": memory("VmHWM")}))
        return
    found = {}
    for part in PARTS:
        file = options.out / f"{part}.json"
        if not (options.keep and part != "gcnet" and file.is_file()):
            found[part] = run_part(part, options)
            file.write_text(json.dumps(found[part]) + "\n")
        found[part] = json.loads(file.read_text())
    print(report(found, options.images))


if __name__ == "__main__":
    main()
