"""The real detector, data and evaluation: training learns, and resumes exactly where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from engine_fakes import press_ctrl_c
from safetensors.torch import load_file

from gcnet.cli import main
from gcnet.data.load import load_splits
from gcnet.engine.loggers import read_metrics
from gcnet.engine.train import train
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.models.detector import Detector
from gcnet.recipe import Recipe
from gcnet.weights.catalog import find
from gcnet.weights.load import load_model

RECIPE = Recipe(
    epochs=2,
    batch_size=2,
    lr=1e-3,
    lr_batch_size=0,
    optimizer="adamw",
    warmup_iterations=1,
    steps=(),
    scale_jitter=(0.8, 1.0),
    color_jitter=0.2,
    image_size=(96, 96),
    validate_every=2,
    workers=1,
    accelerator="cpu",
)
TOTAL = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_context_shapes(tmp_path_factory.mktemp("shapes"), train=4, valid=4, seed=0, size=96)
    return cut_every_other(data)


def cut_every_other(data: Path) -> Path:
    """Makes the validation images of two shapes: padded together they would not be what they are alone."""
    path = data / "valid" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    for entry in content["images"][::2]:
        entry["height"] = 64
        file = str(path.parent / entry["file_name"])
        cv2.imwrite(file, cv2.imread(file)[:64])
    low = {entry["id"] for entry in content["images"][::2]}
    content["annotations"] = [
        entry
        for entry in content["annotations"]
        if entry["image_id"] not in low or entry["bbox"][1] + entry["bbox"][3] <= 64
    ]
    path.write_text(json.dumps(content))
    return data


@pytest.fixture
def run(data: Path) -> Callable[..., Detector]:
    def run(out: Path, *, seed: int = 0, interrupt_at: int | None = None, resume: bool = False) -> Detector:
        splits = load_splits(data)
        torch.manual_seed(seed)
        spec = find("mask_rcnn_tiny_gc4").spec
        detector = Detector(replace(spec, class_names=splits["train"].class_names))
        press_ctrl_c(detector, interrupt_at)
        train(detector, splits["train"], splits["valid"], RECIPE, out, resume=resume)
        return detector

    return run


def test_an_interrupted_run_ends_as_an_unbroken_one(
    data: Path, tmp_path: Path, run: Callable[..., Detector]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(broken, interrupt_at=1)  # in the middle of an epoch
    run(broken, seed=5, resume=True)
    one, other = (load_file(out / "last.safetensors") for out in (whole, broken))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)
    rows = read_metrics(whole / "metrics.csv")
    assert rows[-1]["iteration"] == TOTAL
    detector = load_model(whole / "best.safetensors")
    assert detector.spec.image_size == (96, 96)  # predicts at the size it was trained at

    assert (
        main(["eval", str(whole), "--data", str(data), "--workers", "0", "--out", str(tmp_path / "eval")])
        == 0
    )
    for name in ("metrics.json", "results.json"):  # to the last digit
        assert (tmp_path / "eval" / name).read_text() == (whole / name).read_text()
