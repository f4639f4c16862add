"""SIGKILLs `predict`, `eval` and `convert` at random moments and calls them again.

    python tests/check_kills.py [KILLS] [SEED]

What the second call writes must be what an unbroken one writes, every file under its final name must be whole
at any moment, and an image that was done before the kill must not be looked at again. `tests/engine` has the
same for training. The model is the tiny detector, the images are generated.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import load_file

from gcnet.api import evaluate, predict
from gcnet.cli import main as gcnet
from gcnet.journal import NAME
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.weights.create import create_model
from gcnet.weights.files import save_model

IMAGES = 12


def quiet(work: Callable[[Path], object], out: Path) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    work(out)


def start(work: Callable[[Path], object], out: Path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=quiet, args=(work, out))
    process.start()
    return process  # type: ignore[return-value]


def is_whole(path: Path) -> bool:
    """Whether a file is what its name says; temporary files and journals may be anything."""
    if path.name.startswith(".") or path.name == NAME:
        return True
    if path.suffix == ".json":
        return json.loads(path.read_bytes()) is not None
    if path.suffix in (".jpg", ".png"):
        return cv2.imread(str(path)) is not None
    return path.suffix != ".safetensors" or bool(load_file(path))


def lines(out: Path) -> int:
    journal = out / NAME
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def contents(out: Path) -> dict[str, Any]:
    """Every file's bytes; of a model file, whose header has no fixed order, its tensors."""
    return {
        path.name: tensors(path) if path.suffix == ".safetensors" else path.read_bytes()
        for path in sorted(out.iterdir())
        if not path.name.startswith(".")
    }


def tensors(path: Path) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in sorted(load_file(path).items())}


def main(kills: int, seed: int) -> int:
    torch.set_num_threads(1)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = write_context_shapes(root / "data", train=2, valid=IMAGES, seed=0, size=96)
        torch.manual_seed(0)
        model = root / "tiny.safetensors"
        names = json.loads((data / "valid" / "_annotations.coco.json").read_bytes())["categories"]
        save_model(create_model("mask_rcnn_tiny_gc4", class_names=tuple(one["name"] for one in names)), model)
        works: dict[str, Callable[[Path], object]] = {
            "predict": lambda out: predict(
                model, data / "valid", out=out, score_threshold=0.01, progress=False
            ),
            "eval": lambda out: evaluate(
                model, data, out=out, workers=0, score_threshold=0.01, progress=False
            ),
            "convert": lambda out: (
                out.mkdir(exist_ok=True),
                gcnet(["convert", str(model), str(out / "x.safetensors")]),
            ),
        }
        failed = 0
        for name, work in works.items():
            whole = root / f"{name}-whole"
            began = time.monotonic()
            start(work, whole).join()
            duration = time.monotonic() - began
            expected = contents(whole)
            halves = lost = different = kept = 0
            for number in range(kills):
                out = root / f"{name}-{number}"
                process = start(work, out)
                time.sleep(chance.uniform(0.0, duration))
                process.kill()
                process.join()
                if out.exists():
                    halves += sum(not is_whole(path) for path in out.iterdir())
                before = lines(out)
                again = start(work, out)
                while again.is_alive() and before:
                    lost += (out / NAME).exists() and lines(out) < before - 1  # a torn line may go
                    time.sleep(0.05)
                again.join()
                kept += max(before - 1, 0)
                different += contents(out) != expected
            print(
                f"{name}: {kills} kills: {halves} half files, {lost} lost, {different} other results; ",
                end="",
            )
            print(f"{kept} images were not looked at again", flush=True)
            failed += halves + lost + different
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*(map(int, [*sys.argv[1:], *("30", "0")[len(sys.argv) - 1 :]]))))
