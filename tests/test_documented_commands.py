"""Every `gcnet` command of the documents runs, page by page, in a folder that holds what the pages speak of.

What is large is small here: models are the tiny ones under the names of the pages, data sets hold six images,
a training takes an epoch, the runs of a study are made here and not by programs of their own, and a service
ends when it has answered once. The words of the commands are those of the pages, and `SMALLER` after them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import jaxtyping
import numpy as np
import pytest
import requests
import torch

import gcnet.engine.train
import gcnet.lab.ablate
import gcnet.lab.curve
import gcnet.lab.demo
import gcnet.lab.runs
from gcnet.cli import main
from gcnet.data.load import load_splits
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.models.detector import Detector
from gcnet.models.spec import ContextSpec
from gcnet.weights import catalog
from gcnet.weights.fetch import store
from gcnet.weights.files import save_model
from test_documents import PAGES, commands_of

TESTS = Path(__file__).parent
sys.path += [str(TESTS / "data"), str(TESTS / "weights")]

from foreign_files import as_mmdet  # noqa: E402
from image_folders import write_folders  # noqa: E402

# Options that make a command small: the last of two counts.
SMALLER = {
    "ablate": ["--seeds", "1"],
    "benchmark": ["--size", "64x96", "--repeats", "2"],
    "curve": ["--seeds", "1"],
    "serve": ["--port", "0"],
}
# Torchvision's Mask R-CNN is of the published size alone, and takes minutes; tests/lab compares it with ours.
WITHOUT = " --against torchvision"
NEEDS = {"video": ("trackers", "av"), "serve": ("fastapi", "uvicorn")}  # extras
TINY = "mask_rcnn_tiny_gc4"


def run(command: str, folder: Path) -> None:
    """Runs a line of a page as a shell would, and fails unless its exit code is 0."""
    words = shlex.split(command.replace(WITHOUT, ""), comments=True)[1:]
    words, target = (words[:-2], words[-1]) if ">" in words else (words, None)
    words += SMALLER.get(words[0], [])
    for option in ("--out",) if "--resume" not in words else ():
        if option in words:  # made by a command before, or by `things`
            shutil.rmtree(folder / words[words.index(option) + 1], ignore_errors=True)
    said, serves = io.StringIO(), words[0] == "serve"
    with contextlib.redirect_stdout(said), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_once, said, folder / "photo.jpg") if serves else None
        try:
            code = main(words)
        except SystemExit as end:  # of --help, and of a service that is ended
            code = end.code
    assert code == 128 + signal.SIGTERM if serves else code in (0, None), (command, code)
    if asked is not None:
        assert asked.result()["width"]
    if target is not None:
        (folder / target).write_text(said.getvalue())


def ask_once(said: io.StringIO, photo: Path) -> dict[str, Any]:
    """What the service that says its address answers to a photo. It is ended then, as an operator does it."""
    until = time.monotonic() + 120
    while not (address := re.search(r" at (http://\S+) until", said.getvalue())):
        assert time.monotonic() < until, "the service does not begin"
        time.sleep(0.1)
    try:
        return requests.post(f"{address[1]}/predict", files={"image": photo.read_bytes()}, timeout=300).json()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "gcnet " in " ".join(commands_of(page))])
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # torch.export cannot trace the checks
    _shrink(monkeypatch)
    _write_things(tmp_path, page)
    before = signal.getsignal(signal.SIGTERM)
    for command in commands_of(page):
        if command.startswith("gcnet") and all(map(find_spec, NEEDS.get(command.split()[1], ()))):
            run(command, tmp_path)
    signal.signal(signal.SIGTERM, before)


def _shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the catalog become tiny, with weights that are already fetched, and trainings short."""
    whole = gcnet.engine.train.train

    def short(model: Any, train_set: Any, valid_set: Any, recipe: Any, *args: Any, **options: Any) -> Any:
        recipe = replace(recipe, epochs=1, batch_size=2, workers=0, accelerator="cpu")
        return whole(model, train_set, valid_set, recipe, *args, **options)

    monkeypatch.setattr(gcnet.engine.train, "train", short)
    monkeypatch.setattr(gcnet.lab.demo, "train", short)
    monkeypatch.setattr(gcnet.lab.runs, "train", short)
    monkeypatch.setattr(gcnet.lab.ablate, "TRAIN_IMAGES", 2)
    monkeypatch.setattr(gcnet.lab.ablate, "VALID_IMAGES", 2)
    for study in (gcnet.lab.ablate, gcnet.lab.curve):
        monkeypatch.setattr(study, "make_runs", _make_here)
    few = gcnet.lab.demo.Settings(train_pictures=2, valid_pictures=2, epochs=1)
    monkeypatch.setattr(gcnet.lab.demo, "Settings", lambda seed: replace(few, seed=seed))
    monkeypatch.setattr(catalog, "ROWS", tuple(map(_tiny, catalog.ROWS)))
    monkeypatch.setattr(catalog, "CLASSIFIERS", tuple(map(_tiny, catalog.CLASSIFIERS)))


def _make_here(runs: Sequence[Any], start: object, *, jobs: int) -> list[Any]:
    """The runs of a study, each as its own program would make it."""
    for one in runs:
        if one.result is None:
            gcnet.lab.runs.train_run(one.folder)
    return []


def _tiny(row: Any) -> Any:
    """A row with the tiny network, and a fetched file with random weights where weights are published."""
    kind = "mask_rcnn" if isinstance(row, catalog.Row) else "resnet"
    ending = next((word for word in ("_gc4", "_gc16") if row.name.endswith(word)), "")
    tiny = catalog.find(f"{kind}_tiny{ending}").spec
    spec = replace(tiny, name=row.name, class_names=row.spec.class_names)
    if row.weights is None or kind == "resnet":
        return replace(row, spec=spec)
    path = store() / f"{row.name}.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        torch.manual_seed(0)
        torch.save({"state_dict": as_mmdet(Detector(spec))}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(row, spec=spec, weights=catalog.Weights(f"https://models.example/{path.name}", digest))


def _write_things(folder: Path, page: str) -> None:
    """What a reader of the pages has: photos with and without outlines, checkpoints, trained models."""
    shapes = write_context_shapes(folder / "boxes", train=4, valid=2, size=96)
    shutil.copytree(shapes, folder / "demo" / "data")
    if page == "docs/classification.md":
        write_folders(folder / "photos")
    else:
        shutil.copytree(shapes, folder / "photos")
    write_folders(folder / "digits")
    image = cv2.imread(str(next((shapes / "valid").glob("*.png"))))
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, image.shape[1::-1])
    for number in range(8):
        clip.write(np.roll(image, number, 1))
    clip.release()
    for place in ("photo.jpg", "new/one.jpg", "new-photos/one.jpg", "more/deep/one.jpg"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / place), image)

    torch.manual_seed(0)
    spec = catalog.find(TINY).spec
    spec = replace(spec, roi=replace(spec.roi, cls_init_std=0.2))  # no two scores are the same
    for name, class_names in (("old.pth", catalog.COCO_CLASSES), ("mine.pth", ("class 0", "class 1"))):
        torch.save({"state_dict": as_mmdet(Detector(replace(spec, class_names=class_names)))}, folder / name)
    names = load_splits(shapes)["train"].class_names
    nonlocal_blocks = replace(spec.backbone, context=ContextSpec(block="nl"))
    for run_folder in ("runs/photos", "runs/longer", "runs/mine", "demo/train", "runs/nl"):
        model = Detector(replace(spec, class_names=names))
        if run_folder == "runs/nl":
            model = Detector(replace(spec, class_names=names, backbone=nonlocal_blocks))
        (folder / run_folder).mkdir(parents=True, exist_ok=True)
        save_model(model, folder / run_folder / "best.safetensors")
    if page == "docs/serving.md":
        gcnet.export(folder / "runs" / "mine", folder / "mine.onnx")
