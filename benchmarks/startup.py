"""Where the time of `gcnet predict MODEL PHOTO` goes, from the start of Python to the overlay on disk.

    python benchmarks/startup.py

The model is a ResNet-50 with blocks and random weights, the photo 640 x 480. Each run is a process of its
own. Shown are the medians of wall and CPU time by part, and the prediction after the first one beside it.
What an earlier part has imported costs a later one nothing: their order is that of the command.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PARTS = ("python and help", "torch", "OpenCV", "gcnet", "load", "optimize", "first", "second", "overlay")


def run_once(folder: Path) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of each part, in this process."""
    spent: dict[str, tuple[float, float]] = {}

    def part(name: str, run: Callable[[], object]) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        spent[name] = (time.perf_counter() - wall, time.process_time() - cpu)
        return result

    import gcnet.cli

    gcnet.cli._overview()
    spent["python and help"] = (time.process_time(), time.process_time())

    def import_ours() -> None:
        import gcnet.prediction.files
        import gcnet.weights.load  # noqa: F401

    gc.disable()  # as `gcnet.weights.start.load_trained` does
    part("torch", lambda: __import__("torch"))
    part("OpenCV", lambda: __import__("cv2"))
    part("gcnet", import_ours)
    gc.freeze()
    gc.enable()
    from gcnet.ops.images import read_image, write_image
    from gcnet.weights.load import load_model

    detector = part("load", lambda: load_model(folder / "model.safetensors"))
    detector = part("optimize", detector.optimize)
    image = read_image(folder / "photo.jpg")
    found = part("first", lambda: detector.predict_images(image, score_threshold=0.5))
    part("second", lambda: detector.predict_images(image, score_threshold=0.5))

    def draw() -> None:
        from gcnet.viz import draw_detections

        names = detector.spec.class_names
        write_image(folder / "overlay.jpg", draw_detections(image, found[0][:10], names))

    part("overlay", draw)
    return spent


def prepare(folder: Path, name: str) -> None:
    """Writes the model and the photo."""
    import cv2
    import numpy as np
    import torch

    from gcnet.weights.create import create_model
    from gcnet.weights.files import save_model

    torch.manual_seed(0)
    save_model(create_model(name), folder / "model.safetensors")
    seed = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "photo.jpg"), cv2.resize(seed, (640, 480), interpolation=cv2.INTER_CUBIC))


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mask_rcnn_r50_gc4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="run once here, and print JSON")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(run_once(options.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, options.model)
        words = [sys.executable, __file__, "--folder", temporary]
        runs = []
        for _ in range(options.repeats + 1):  # the first one reads files into the system's cache
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
            runs.append(json.loads(done))
    report(runs[1:])


def report(runs: list[dict[str, tuple[float, float]]]) -> None:
    """Prints the table, and what the target is about."""
    medians = {
        part: [statistics.median(run[part][clock] for run in runs) for clock in (0, 1)] for part in PARTS
    }
    print("| part | wall s | CPU s |\n| --- | --- | --- |")
    for part, (wall, cpu) in medians.items():
        print(f"| {part} | {wall:.2f} | {cpu:.2f} |")
    before = [sum(medians[part][clock] for part in PARTS[:6]) for clock in (0, 1)]
    shares = [value / medians["first"][clock] for clock, value in enumerate(before)]
    print(
        f"imports and load: {before[0]:.2f} s wall, {before[1]:.2f} s CPU: "
        f"{shares[0]:.2f} and {shares[1]:.2f} of the first prediction"
    )


if __name__ == "__main__":
    main()
