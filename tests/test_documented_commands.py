"""Every `gcnet` command of the documents runs, page by page, in a folder that holds what the pages speak of.

What is large is small here: models are the tiny ones under the names of the pages, data sets hold six images,
a training takes an epoch. The words of the commands are those of the pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jaxtyping
import pytest
import torch

import gcnet.engine.train
import gcnet.lab.demo
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

# Studies start dozens of trainings, each a program of its own; the benchmark is of models of the published
# size; video needs an extra; a service does not end. Their own tests run them small.
LEFT_OUT = ("ablate", "benchmark", "video", "serve", "curve")
TINY = "mask_rcnn_tiny_gc4"


def run(command: str, folder: Path) -> None:
    """Runs a line of a page as a shell would, and fails unless its exit code is 0."""
    words = shlex.split(command, comments=True)[1:]
    words, target = (words[:-2], words[-1]) if ">" in words else (words, None)
    for option in ("--out",) if "--resume" not in words else ():
        if option in words:  # made by a command before, or by `things`
            shutil.rmtree(folder / words[words.index(option) + 1], ignore_errors=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            code = main(words)
        except SystemExit as end:  # of --help
            code = end.code
    assert code in (0, None), command
    if target is not None:
        (folder / target).write_text(said.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "gcnet " in " ".join(commands_of(page))])
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # torch.export cannot trace the checks
    _shrink(monkeypatch)
    _write_things(tmp_path, classes=page == "docs/classification.md")
    for command in commands_of(page):
        if command.startswith("gcnet") and command.split()[1] not in LEFT_OUT:
            run(command, tmp_path)


def _shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the catalog become tiny, with weights that are already fetched, and trainings short."""
    whole = gcnet.engine.train.train

    def short(model: Any, train_set: Any, valid_set: Any, recipe: Any, *args: Any, **options: Any) -> Any:
        recipe = replace(recipe, epochs=1, batch_size=2, workers=0, accelerator="cpu")
        return whole(model, train_set, valid_set, recipe, *args, **options)

    monkeypatch.setattr(gcnet.engine.train, "train", short)
    monkeypatch.setattr(gcnet.lab.demo, "train", short)
    few = gcnet.lab.demo.Settings(train_pictures=2, valid_pictures=2, epochs=1)
    monkeypatch.setattr(gcnet.lab.demo, "Settings", lambda seed: replace(few, seed=seed))
    monkeypatch.setattr(catalog, "ROWS", tuple(map(_tiny, catalog.ROWS)))
    monkeypatch.setattr(catalog, "CLASSIFIERS", tuple(map(_tiny, catalog.CLASSIFIERS)))


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


def _write_things(folder: Path, *, classes: bool) -> None:
    """What a reader of the pages has: photos with and without outlines, checkpoints, trained models."""
    shapes = write_context_shapes(folder / "boxes", train=4, valid=2, size=96)
    shutil.copytree(shapes, folder / "demo" / "data")
    if classes:
        write_folders(folder / "photos")
    else:
        shutil.copytree(shapes, folder / "photos")
    write_folders(folder / "digits")
    image = cv2.imread(str(next((shapes / "valid").glob("*.png"))))
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
