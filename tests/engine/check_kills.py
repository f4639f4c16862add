"""SIGKILLs a run at random moments and resumes it: the result must be that of an unbroken run.

    python tests/engine/check_kills.py [KILLS] [SEED]

Every run is the tiny detector on generated images, with a checkpoint after each iteration, so that many
kills come while files are written. Prints how many runs ended with the same weights, with the same
metrics.csv (but for times and memory), and with temporary files left.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from gcnet.data.load import load_splits
from gcnet.engine.train import train
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.models.detector import Detector
from gcnet.recipe import Recipe
from gcnet.weights.catalog import find

RECIPE = Recipe(
    epochs=3,
    batch_size=2,
    lr=1e-3,
    lr_batch_size=0,
    warmup_iterations=1,
    image_size=(96, 96),
    checkpoint_every=0,
    workers=1,
    accelerator="cpu",
)
TIMES = {"seconds", "memory_gb"}


def run(data: Path, out: Path) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    splits = load_splits(data)
    torch.manual_seed(0)
    spec = replace(find("mask_rcnn_tiny_gc4").spec, class_names=splits["train"].class_names)
    train(Detector(spec), splits["train"], splits["valid"], RECIPE, out, resume="auto")


def start(data: Path, out: Path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=run, args=(data, out))
    process.start()
    return process  # type: ignore[return-value]


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def main(kills: int, seed: int) -> int:
    torch.set_num_threads(1)
    chance = random.Random(seed)
    equal = same_rows = leftovers = 0
    with tempfile.TemporaryDirectory() as folder:
        data = write_context_shapes(Path(folder) / "data", train=12, valid=2, seed=0, size=96)
        whole = Path(folder) / "whole"
        began = time.monotonic()
        start(data, whole).join()
        duration = time.monotonic() - began
        expected = load_file(whole / "last.safetensors")
        for number in range(kills):
            out = Path(folder) / f"run{number}"
            process = start(data, out)
            time.sleep(chance.uniform(0.0, duration))
            process.kill()
            process.join()
            start(data, out).join()
            found = load_file(out / "last.safetensors")
            equal += found.keys() == expected.keys() and all(
                torch.equal(found[n], expected[n]) for n in found
            )
            same_rows += rows(out) == rows(whole)
            leftovers += any(out.glob(".*"))
    print(f"{kills} kills: weights equal {equal}, metrics.csv equal {same_rows}, leftovers {leftovers}")
    return 0 if (equal, same_rows, leftovers) == (kills, kills, 0) else 1


if __name__ == "__main__":
    sys.exit(main(*(map(int, [*sys.argv[1:], *("20", "0")[len(sys.argv) - 1 :]]))))
