"""What comes after the network on a large photograph: time and memory of masks, overlay and files.

    python benchmarks/masks.py --height 4000 --width 6000

100 objects with random blobs as masks, small ones, a mixture, or each filling the photograph. Every figure is
taken in a process of its own: CPU time, since other jobs may share the machine, and the growth of the largest
resident set beyond what the process had with the photograph and the detections in it. Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gcnet.evaluation.results import ImageResults
from gcnet.files import write_json
from gcnet.ops.images import write_image
from gcnet.types import Detections
from gcnet.viz import draw_detections

SIDES = {"small": (40, 200), "mixed": (40, 3000), "filling": None}  # pixels, log-uniform
STEPS = ("RLE", "results.json", "overlay", "overlay.jpg")
NAMES = tuple(f"class {index}" for index in range(80))


def detections(kind: str, count: int, size: tuple[int, int]) -> Detections:
    """Objects of random places and sizes, with masks of one to a few blobs."""
    rng = np.random.default_rng(0)
    height, width = size
    noise = (cv2.GaussianBlur(rng.random((28, 28)), (0, 0), 3) for _ in range(count))
    probs = np.stack([(one - one.mean()) / one.std() / 4 + 0.55 for one in noise]).clip(0, 1)
    if SIDES[kind] is None:
        boxes = np.tile([0, 0, width, height], (count, 1))
    else:
        sides = np.exp(rng.uniform(*np.log(SIDES[kind]), (count, 2)))
        corner = rng.random((count, 2)) * (np.array([width, height]) - sides).clip(1)
        boxes = np.concatenate([corner, corner + sides], 1).clip(0, [width, height] * 2)
    columns = (boxes.astype(np.float32), np.linspace(1, 0.5, count, dtype=np.float32))
    labels, grids = torch.arange(count) % len(NAMES), torch.from_numpy(probs.astype(np.float32))
    return Detections(*map(torch.from_numpy, columns), labels, grids, size)


def run_step(step: str, found: Detections, image: np.ndarray, folder: Path) -> dict[str, float]:
    """CPU seconds and megabytes of one step."""
    overlay = draw_detections(image, found, NAMES) if step == "overlay.jpg" else image
    before, began = memory("VmRSS"), time.process_time()
    if step == "RLE":
        found.rles()
    elif step == "results.json":
        write_json(folder / "results.json", ImageResults.of(found, 0, range(len(NAMES))).entries())
    elif step == "overlay":
        draw_detections(image, found, NAMES)
    else:
        write_image(folder / "overlay.jpg", overlay)
    return {"seconds": time.process_time() - began, "megabytes": max(memory("VmHWM") - before, 0)}


def memory(field: str) -> float:
    """A field of this process's memory [MB]: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def photograph(size: tuple[int, int]) -> np.ndarray:
    """Smooth colours, as a photograph has them."""
    seed = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    return cv2.resize(seed, size[::-1], interpolation=cv2.INTER_CUBIC)


def main() -> None:
    """Measures each step of each kind, or one of them here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--height", type=int, default=4000)
    parser.add_argument("--width", type=int, default=6000)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--out", type=Path, help="keep the files here; without, they are removed")
    parser.add_argument("--step", choices=STEPS, help="run this step of the first kind here, and print JSON")
    options = parser.parse_args()
    size = (options.height, options.width)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.step:
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
            found = detections(options.kinds[0], options.objects, size)
            found[:1].rles()  # what is loaded at first use
            print(json.dumps(run_step(options.step, found, photograph(size), folder)))
            return
        print("| objects | step | CPU s | MB |\n| --- | --- | --- | --- |")
        for kind in options.kinds:
            for step in STEPS:
                values = in_process(kind, step, options)
                print(
                    f"| {kind} | {step} | {values['seconds']:.2f} | {values['megabytes']:.0f} |", flush=True
                )


def in_process(kind: str, step: str, options: argparse.Namespace) -> dict[str, Any]:
    """One step in a process of its own."""
    words = [sys.executable, __file__, "--kinds", kind, "--step", step]
    words += [f"--{name}={getattr(options, name)}" for name in ("height", "width", "objects")]
    words += ["--out", str(options.out / kind)] if options.out else []
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    main()
