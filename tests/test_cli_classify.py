"""The commands with a classifier: train, eval, predict, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent / "data"))
from image_folders import write_folders

from gcnet.arguments import parse_train
from gcnet.cli import main
from gcnet.data import context_classes
from gcnet.engine.recipe import ClassificationRecipe
from gcnet.zoo.catalog import find

TINY = "resnet_tiny_gc4"
QUICK = "--epochs 2 --batch-size 6 --workers 0 --accelerator cpu --image-size [36,32] --mixup 0.2"


def test_train_eval_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_folders(Path("photos"), train=4, valid=2)
    assert main(["train", TINY, "--data", "photos", "--out", "run", *QUICK.split()]) == 0
    out = capsys.readouterr().out
    assert "classes: all 3 are new: blue, green, red" in out
    assert "top1" in out
    assert "gcnet predict run/best.safetensors" in out
    written = yaml.safe_load(Path("run/recipe.yaml").read_text())
    assert (written["mixup"], written["label_smoothing"], written["model"]) == (0.2, 0.1, TINY)
    options, recipe = parse_train(["--config", "run/recipe.yaml"])
    assert isinstance(recipe, ClassificationRecipe)
    assert (recipe.mixup, options.class_names) == (0.2, ["blue", "green", "red"])

    assert (
        main(["eval", "run", "--data", "photos", "--out", "scores", "--workers", "0", "--device", "cpu"]) == 0
    )
    assert "6 images: top-1" in capsys.readouterr().out
    assert json.loads(Path("scores/metrics.json").read_text())["images"] == 6
    assert len(json.loads(Path("scores/results.json").read_text())) == 6

    words = ["predict", "run/last.safetensors", "photos/val/red", "--out", "found", "--device", "cpu"]
    assert main([*words, "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "photos/val/red/0.png: " in out
    assert "2 images: found/results.json and found/overview.jpg" in out
    assert {path.name for path in Path("found").iterdir()} == {"results.json", "overview.jpg"}
    Path("broken.png").write_bytes(b"no image")
    assert main([*words, "broken.png"]) == 2
    assert "broken.png" in capsys.readouterr().err

    assert main(["attention", "run", "photos/val/red/0.png"]) == 2
    assert "is an image classifier" in capsys.readouterr().err


def test_data_that_is_not_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_folders(Path("photos"), train=1, valid=1)
    shutil.rmtree("photos/val/red")
    assert main(["train", TINY, "--data", "photos"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("gcnet: error: photos/val has no folder for class 'red'")
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_options_of_the_kind() -> None:
    _, recipe = parse_train([TINY, "--data", "x", "--label-smoothing", "0"])
    assert isinstance(recipe, ClassificationRecipe)
    assert recipe.label_smoothing == 0
    assert find(TINY).recipe.epochs == recipe.epochs


def test_the_puzzle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    real = context_classes.write_context_classes
    monkeypatch.setattr(
        context_classes,
        "write_context_classes",
        lambda folder, *, seed: real(folder, train=3, valid=3, seed=seed),
    )
    assert main(["demo", "--puzzle-only", str(tmp_path / "puzzle")]) == 0
    assert {path.name for path in (tmp_path / "puzzle" / "train").iterdir()} <= {*context_classes.CLASS_NAMES}
