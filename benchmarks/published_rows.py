"""Images a second and memory of the published models, beside what mmdetection published for a V100.

    python benchmarks/published_rows.py --device cuda --precision fp32 tf32 fp16 bf16 --batch 1 8
    python benchmarks/published_rows.py --rows mask_rcnn_r50 mask_rcnn_r50_gc4 --end-to-end

Models of one family (same backbone and head, with and without blocks) are timed in turn, so that their ratio
can be trusted. A run goes from uint8 pixels on the device to full-size masks there; with `--end-to-end` from
a picture in memory, resized on the CPU, to run-length encodings. Memory is the most that PyTorch allocates on
a GPU, weights included. tf32 is fp32 with TensorFloat-32 products. Published: inference images/s at batch 1.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from gcnet.device import choose_device
from gcnet.evaluation.results import ImageResults
from gcnet.files import write_json
from gcnet.lab.benchmark import Run, describe_machine, peak_bytes, spread, time_in_turn
from gcnet.lab.subjects import busy_detector, inference, random_batch
from gcnet.models.detector import Detector
from gcnet.weights.catalog import ROWS, Row, find_detector


def main() -> None:
    """Measures family by family; what is done is written after each."""
    options = parse()
    device = choose_device(options.device)
    rows = [find_detector(name) for name in options.rows] if options.rows else published()
    table = Table("model", "precision", "batch", "ms", "+-", "images/s", "over plain", "MB", "V100 images/s")
    report = {"machine": describe_machine(device), "rows": []}
    settings = itertools.product(options.precision, options.batch)
    for (precision, batch), family in itertools.product(settings, families(rows)):
        for record in measure(family, precision, batch, device, options):
            report["rows"].append(record)
            table.add_row(*cells(record))
            write_json(options.out, report)
    Console(width=140).print(table)
    print(", ".join(f"{key}: {value}" for key, value in report["machine"].items()), "->", options.out)


def measure(
    family: list[Row], precision: str, batch: int, device: str, options: argparse.Namespace
) -> list[dict]:
    """One record for each row; the first of a family is the plain one."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    width = "fp32" if precision == "tf32" else precision
    runs: dict[str, Run] = {}
    memory = {}
    for row in family:
        detector = busy_detector(row.name).to(device)
        fast = detector.optimize(precision=width, compiled=options.compile)
        del detector
        runs[row.name] = end_to_end(fast, batch) if options.end_to_end else from_pixels(fast, batch)
        runs[row.name]()
        peak = peak_bytes(runs[row.name], device) or 0
        weights = sum(tensor.nbytes for tensor in [*fast.parameters(), *fast.buffers()])
        memory[row.name] = (peak + weights) // 2**20
    times = time_in_turn(runs, repeats=options.repeats, warmup=5, device=device)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    first = medians[family[0].name]
    plain = family[0].spec.backbone.context is None
    return [
        {
            "model": row.name,
            "precision": precision,
            "batch": batch,
            "median_s": medians[row.name],
            "spread": spread(times[row.name]),
            "images_per_s": batch / medians[row.name],
            "over_plain": medians[row.name] / first if plain else None,
            "memory_mb": memory[row.name],
            "published_v100": row.fps,
        }
        for row in family
    ]


def from_pixels(detector: Detector, images: int) -> Run:
    """From a batch on the device to masks on the device."""
    return inference(detector, random_batch(images, (800, 1216)).to(detector.mean.device))


def end_to_end(detector: Detector, images: int) -> Run:
    """From pictures in memory to what goes into results.json, one picture after the other."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(images)]

    def run() -> None:
        for found in detector.predict_images(pictures):
            ImageResults.of(found, 0, range(80)).entries()

    return run


def published() -> list[Row]:
    """The rows with a published speed or memory, and those of their families."""
    return [row for row in ROWS if row.weights is not None and row.box_ap is not None]


def families(rows: list[Row]) -> list[list[Row]]:
    """Rows that differ in their context blocks alone, the plain one first."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.name.removesuffix("_gc4").removesuffix("_gc16"), []).append(row)
    return [
        sorted(family, key=lambda row: row.spec.backbone.context is not None) for family in grouped.values()
    ]


def cells(record: dict) -> list[str]:
    """A row of the table."""
    return [
        record["model"],
        record["precision"],
        str(record["batch"]),
        f"{record['median_s'] * 1e3:.1f}",
        f"{record['spread']:.0%}",
        f"{record['images_per_s']:.1f}",
        f"{record['over_plain']:.3f}" if record["over_plain"] else "",
        str(record["memory_mb"]),
        "" if record["published_v100"] is None else str(record["published_v100"]),
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=[], help="names (all published rows)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=["fp32", "tf32", "fp16", "bf16"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--end-to-end", action="store_true", help="picture in, encoded masks out")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("published_rows.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
