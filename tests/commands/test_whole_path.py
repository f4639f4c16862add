"""`gcnet train`, `eval` and `predict` one after the other, each on what the one before left."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from image_folders import write_folders

from gcnet.cli import main
from gcnet.commands.train import parse_train
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.recipe import ClassificationRecipe
from gcnet.weights.catalog import find

TINY = "mask_rcnn_tiny_gc4"
CLASSIFIER = "resnet_tiny_gc4"
QUICK = "--epochs 2 --batch-size 6 --workers 0 --accelerator cpu --image-size [36,32] --mixup 0.2"


def test_a_detector(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_context_shapes("shapes", train=4, valid=2, size=96)
    tiny = (
        "--data shapes --out run --epochs 1 --batch-size 2 --workers 0 --accelerator cpu --image-size [96,96]"
    )
    assert main(["train", TINY, *tiny.split()]) == 0
    assert {path.name for path in Path("run").iterdir()} >= {
        "best.safetensors",
        "last.safetensors",
        "recipe.yaml",
    }

    options, recipe = parse_train(["--config", "run/recipe.yaml"])
    assert (options.model, options.data, options.out) == (TINY, "shapes", "run")
    assert recipe == replace(
        find(TINY).recipe, epochs=1, batch_size=2, workers=0, accelerator="cpu", image_size=(96, 96)
    )
    assert main(["train", "--config", "run/recipe.yaml", "--out", "run"]) == 2
    assert "--resume" in capsys.readouterr().err

    words = ["--out", "scores", "--report", "report", "--workers", "0", "--device", "cpu"]
    assert main(["eval", "run", "--data", "shapes", *words]) == 0
    assert Path("scores/results.json").is_file()
    assert json.loads(Path("report/report.json").read_text())["also_trained_on"] == []
    said = capsys.readouterr().out
    assert "AP50" in said
    assert "open report/report.html" in said

    assert main(["compare", "run", "nowhere.safetensors", "--data", "shapes"]) == 2

    shutil.copytree("run", "other")  # a run on the same images, divided otherwise
    Path("other/recipe.yaml").write_text("data: shapes/train")
    entries = json.loads(Path("shapes/train/_annotations.coco.json").read_text())["images"]
    names = [entry["file_name"] for entry in entries]
    Path("other/split.json").write_text(json.dumps({"train": names, "valid": []}))
    words = ["run", "other", "--data", "shapes/train", "--out", "unfair", "--workers", "0"]
    assert main(["compare", *words, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "B was trained on 1 of these 1 images" in said
    assert "open unfair/compare.html" in said

    Path("broken.png").write_bytes(b"no image")
    words = ["predict", "run/last.safetensors", "shapes/valid", "--out", "found", "--device", "cpu"]
    assert main(words) == 0
    assert len(list(Path("found").glob("*.png"))) == 2
    assert main([*words, "broken.png"]) == 1
    assert "skipped: broken.png is not an image" in capsys.readouterr().err
    assert main(["predict", "run", "broken.png", "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert "1 of 1 images could not be read" in said.err
    assert said.out == ""
    assert main(["eval", "run", "--data", "shapes", "--split", "test"]) == 2
    assert "it has train, valid" in capsys.readouterr().err


def test_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_folders(Path("photos"), train=4, valid=2)
    assert main(["train", CLASSIFIER, "--data", "photos", "--out", "run", *QUICK.split()]) == 0
    out = capsys.readouterr().out
    assert "classes: all 3 are new: blue, green, red" in out
    assert "top1" in out
    assert "gcnet predict run/best.safetensors" in out
    written = yaml.safe_load(Path("run/recipe.yaml").read_text())
    assert (written["mixup"], written["label_smoothing"], written["model"]) == (0.2, 0.1, CLASSIFIER)
    options, recipe = parse_train(["--config", "run/recipe.yaml"])
    assert isinstance(recipe, ClassificationRecipe)
    assert (recipe.mixup, options.class_names) == (0.2, ("blue", "green", "red"))

    words = ["--out", "scores", "--report", "report", "--workers", "0", "--device", "cpu"]
    assert main(["eval", "run", "--data", "photos", *words]) == 0
    assert json.loads(Path("report/report.json").read_text())["images"] == 6
    assert "6 images: top-1" in capsys.readouterr().out
    assert json.loads(Path("scores/metrics.json").read_text())["images"] == 6
    assert len(json.loads(Path("scores/results.json").read_text())) == 6

    words = ["run", "run/last.safetensors", "--data", "photos", "--out", "both", "--workers", "0"]
    assert main(["compare", *words, "--device", "cpu"]) == 0
    assert "open both/compare.html" in capsys.readouterr().out
    assert json.loads(Path("both/compare.json").read_text())["images"] == 6

    words = ["predict", "run/last.safetensors", "photos/val/red", "--out", "found", "--device", "cpu"]
    assert main([*words, "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "photos/val/red/0.png: " in out
    assert "2 images: found/results.json and found/overview.jpg" in out
    assert {path.name for path in Path("found").glob("[!.]*")} == {"results.json", "overview.jpg"}
    Path("broken.png").write_bytes(b"no image")
    assert main([*words, "broken.png"]) == 1
    assert "skipped: broken.png is not an image" in capsys.readouterr().err

    assert main(["attention", "run", "photos/val/red/0.png"]) == 2
    assert "is an image classifier" in capsys.readouterr().err
