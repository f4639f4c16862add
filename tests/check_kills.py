"""SIGKILLs commands at random moments and calls them again: nothing is half written, lost or different.

    python tests/check_kills.py [KILLS] [SEED] [NAME ...]

KILLS of each of `train`, `predict`, `eval`, `convert` and `download`, or of each NAME. At any moment every
file under its final name is whole; the second call goes on from what was done, and comes to what an unbroken
one comes to: the same tensors, scores, rows and pictures. The model is the tiny detector, the images are
generated, the download comes slowly from a server in this process.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import torch
import yaml
from safetensors.torch import load_file

from gcnet import evaluate, predict
from gcnet.cli import main as gcnet
from gcnet.data.load import load_splits
from gcnet.engine.checkpoint import read_checkpoint
from gcnet.engine.train import train
from gcnet.journal import NAME as JOURNAL
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.models.detector import Detector
from gcnet.recipe import Recipe
from gcnet.weights.catalog import Weights, find
from gcnet.weights.create import create_model
from gcnet.weights.fetch import fetch
from gcnet.weights.files import save_model

IMAGES = 12
TIMES = {"seconds", "memory_gb"}  # columns of metrics.csv
OWN = (
    "recipe.yaml",
    "versions.json",
    "curves.png",
    "live.html",
    "last.ckpt",
    "tensorboard",
    ".written.jsonl",
)
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
SLOW = 0.01  # seconds between pieces of the download


@dataclass(frozen=True)
class Work:
    """`do` writes in a folder; `done` counts what of it is finished there, and may only grow."""

    do: Callable[[Path], object]
    done: Callable[[Path], int]


def works(root: Path) -> dict[str, Work]:
    data = write_context_shapes(root / "data", train=IMAGES, valid=IMAGES, seed=0, size=96)
    splits = load_splits(data)
    names = splits["train"].class_names
    few = replace(splits["valid"], records=splits["valid"].records[:2])
    torch.manual_seed(0)
    model = root / "tiny.safetensors"
    save_model(create_model("mask_rcnn_tiny_gc4", class_names=names), model)

    def train_it(out: Path) -> None:
        torch.manual_seed(0)
        spec = replace(find("mask_rcnn_tiny_gc4").spec, class_names=names)
        train(Detector(spec), splits["train"], few, RECIPE, out, resume="auto")

    def convert(out: Path) -> None:
        out.mkdir(exist_ok=True)
        gcnet(["convert", str(model), str(out / "x.safetensors")])

    published = serve(model.read_bytes())

    def download(out: Path) -> None:
        os.environ["GCNET_HOME"] = str(out)
        fetch(published)

    options: dict[str, Any] = {"score_threshold": 0.01, "progress": False}
    return {
        "train": Work(train_it, iteration),
        "predict": Work(lambda out: predict(model, data / "valid", out=out, **options), lines),
        "eval": Work(lambda out: evaluate(model, data, out=out, workers=0, **options), lines),
        "convert": Work(convert, lambda out: int((out / "x.safetensors").exists())),
        "download": Work(download, fetched),
    }


def serve(body: bytes) -> Weights:
    """A server in a thread that sends `body` in pieces, from where it is asked to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            size = len(body) // 100
            for place in range(start, len(body), size):
                time.sleep(SLOW)
                self.wfile.write(body[place : place + size])

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # whoever asked was killed
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.sha256(body).hexdigest()
    return Weights(f"http://127.0.0.1:{server.server_address[1]}/tiny-{digest[:8]}.pth", digest)


# How far a folder is -----------------------------------------------------------------------------------


def iteration(out: Path) -> int:
    """Of the last checkpoint, and one more: it is there from the beginning."""
    path = out / "last.ckpt"
    return read_checkpoint(path)["iteration"] + 1 if path.exists() else 0


def lines(out: Path) -> int:
    """Images that a journal names, without one that may be torn off."""
    journal = out / JOURNAL
    return max(journal.read_bytes().count(b"\n") - 1, 0) if journal.exists() else 0


def fetched(out: Path) -> int:
    """Bytes of the file, whole or not yet."""
    return max((path.stat().st_size for path in (out / "weights").glob("tiny-*")), default=0)


def is_whole(path: Path) -> bool:
    """Whether a file is what its name says; journals and what is fetched may be anything yet."""
    if path.name.startswith(".") or path.name == JOURNAL or path.suffix == ".part":
        return True
    if path.suffix == ".json":
        return json.loads(path.read_bytes()) is not None
    if path.suffix == ".yaml":
        return isinstance(yaml.safe_load(path.read_bytes()), dict)
    if path.suffix in (".jpg", ".png"):
        return cv2.imread(str(path)) is not None
    if path.suffix == ".ckpt":
        return bool(read_checkpoint(path))
    if path.suffix == ".pth":  # what was fetched has its hash in its name
        return hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.partition("-")[2])
    return path.suffix != ".safetensors" or bool(load_file(path))


def contents(out: Path) -> dict[str, Any]:
    """The results in a folder: bytes, tensors of model files, rows of metrics.csv without times."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if not path.is_file() or path.name.endswith(".lock") or path.relative_to(out).parts[0] in OWN:
            continue
        if path.suffix == ".safetensors":  # its header has no fixed order
            found[path.name] = {name: one.numpy().tobytes() for name, one in sorted(load_file(path).items())}
        elif path.suffix == ".csv":
            with open(path, newline="") as file:
                found[path.name] = [
                    {key: value for key, value in row.items() if key not in TIMES}
                    for row in csv.DictReader(file)
                ]
        else:
            found[path.name] = path.read_bytes()
    return found


# Killing -----------------------------------------------------------------------------------------------


def start(work: Callable[[Path], object], out: Path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=_quiet, args=(work, out))
    process.start()
    return process  # type: ignore[return-value]


def _quiet(work: Callable[[Path], object], out: Path) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    work(out)


def check(name: str, work: Work, root: Path, kills: int, chance: random.Random) -> int:
    """Kills `work` so often; prints and returns what went wrong."""
    whole = root / f"{name}-whole"
    began = time.monotonic()
    start(work.do, whole).join()
    duration = time.monotonic() - began
    expected = contents(whole)
    halves = lost = different = kept = 0
    for number in range(kills):
        out = root / f"{name}-{number}"
        process = start(work.do, out)
        time.sleep(chance.uniform(0.0, duration))
        process.kill()
        process.join()
        halves += sum(not is_whole(path) for path in out.rglob("*") if path.is_file())
        before = work.done(out)
        again, least = start(work.do, out), before
        while again.is_alive() and before:
            now = work.done(out)
            least = min(least, now or least)  # a journal goes when all is written
            time.sleep(0.05)
        again.join()
        lost += least < before
        kept += before
        if again.exitcode or contents(out) != expected:
            different += 1
            print(f"{name} {number}: {again.exitcode}, {sorted(contents(out))}, not {sorted(expected)}")
    found = f"{halves} half files, {lost} lost, {different} other results"
    print(f"{name}: {kills} kills in {duration:.1f} s each: {found}; {kept} were not done again", flush=True)
    return halves + lost + different


def main(kills: int = 20, seed: int = 0, *names: str) -> int:
    torch.set_num_threads(1)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        every = works(root)
        failed = sum(check(name, every[name], root, kills, chance) for name in names or every)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3]), *sys.argv[3:]))
