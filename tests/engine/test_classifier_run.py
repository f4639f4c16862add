"""Classifiers go through the same engine: they learn, resume exactly, and leave the same folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))
from engine_fakes import press_ctrl_c
from image_folders import write_folders

from gcnet.data.image_folder import load_image_folders
from gcnet.engine.loggers import read_metrics
from gcnet.engine.train import TrainResult, train
from gcnet.errors import GCNetError
from gcnet.evaluation.classify import ClassMetrics
from gcnet.evaluation.evaluate import evaluate
from gcnet.models.classifier import Classifier
from gcnet.models.spec import ClassifierSpec, ContextSpec, ResNetSpec
from gcnet.recipe import ClassificationRecipe
from gcnet.weights.load import load_model

BACKBONE = ResNetSpec(
    blocks=(1, 1, 1, 1),
    stem_channels=16,
    base_channels=16,
    norm="batch",
    frozen_stages=0,
    zero_init_residual=False,
    context=ContextSpec(ratio=1 / 4),
)
RECIPE = ClassificationRecipe(
    epochs=4,
    batch_size=6,
    lr=3e-3,
    lr_batch_size=0,
    optimizer="adamw",
    warmup_iterations=2,
    mixup=0.2,
    color_jitter=0.1,
    image_size=(36, 32),
    validate_every=2,
    workers=0,
    accelerator="cpu",
)
TOTAL = 16


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Another number of threads sums in another order, which AdamW makes much of."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("photos"), train=8, valid=3)


def run(
    data: Path,
    out: Path,
    *,
    seed: int = 0,
    interrupt_at: int | None = None,
    resume: bool = False,
) -> TrainResult:
    splits = load_image_folders(data)
    torch.manual_seed(seed)
    classifier = Classifier(ClassifierSpec("small", splits["train"].class_names, BACKBONE))
    press_ctrl_c(classifier, interrupt_at)
    return train(classifier, splits["train"], splits["valid"], RECIPE, out, resume=resume)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    result = run(data, out)
    assert isinstance(result.metrics, ClassMetrics)
    assert result.metrics.top1 > 0.6  # three plain colours; chance is a third
    return out


def test_what_a_run_leaves(whole: Path, data: Path) -> None:
    names = "best.safetensors last.safetensors last.ckpt metrics.json results.json metrics.csv curves.png"
    names += " recipe.yaml versions.json tensorboard live.html"
    assert {path.name for path in whole.iterdir()} == set(names.split())
    rows = read_metrics(whole / "metrics.csv")
    assert [row["iteration"] for row in rows if row["top1"] >= 0] == [8, 16]
    assert rows[0]["loss"] > rows[-2]["loss"]
    classifier = load_model(whole / "best.safetensors")
    assert isinstance(classifier, Classifier)
    assert classifier.spec.image_size == (36, 32)  # predicts at the size it was trained at
    metrics, results = evaluate(classifier, load_image_folders(data)["valid"], workers=0)
    best = max(row["top1"] for row in rows if row["top1"] >= 0)
    assert metrics.top1 == pytest.approx(best, abs=1e-5)
    assert classifier.provenance["top1"] == metrics.top1
    assert [result["file_name"] for result in results[:2]] == ["blue/0.png", "blue/1.png"]
    assert json.loads((whole / "metrics.json").read_text())["images"] == 9


def test_an_interrupted_run_ends_as_an_unbroken_one(data: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, interrupt_at=6)
    run(data, tmp_path, seed=5, resume=True)
    one, other = (load_file(out / "last.safetensors") for out in (whole, tmp_path))
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_broken_picture_stops_the_run_with_its_name(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "photos", train=2, valid=1)
    (folder / "train" / "red" / "1.png").write_bytes(b"broken")
    with pytest.raises(GCNetError, match=r"red/1\.png is not an image"):
        run(folder, tmp_path / "run")


@pytest.mark.parametrize(
    "values",
    [{"label_smoothing": 1.0}, {"mixup": -0.1}, {"scale_jitter": (0.5, 1.2)}, {"image_size": (32, 36)}],
)
def test_recipes_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(GCNetError, match=next(iter(values))):
        ClassificationRecipe(**values)
