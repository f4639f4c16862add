"""The demo from end to end, with next to nothing to train on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from gcnet.errors import GCNetError
from gcnet.lab.demo import Settings, run_demo

SMALL = Settings(seed=3, train_pictures=8, valid_pictures=3, epochs=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run_demo(folder, SMALL, compare=True)
    return folder


def test_leaves_data_models_and_pictures(demo: Path) -> None:
    assert (demo / "data" / "train" / "_annotations.coco.json").exists()
    assert (demo / "train" / "last.safetensors").exists()
    assert (demo / "train-plain" / "last.safetensors").exists()
    for name in ("predictions.png", "attention.png"):
        picture = cv2.imread(str(demo / name))
        assert picture is not None
        assert min(picture.shape[:2]) > 300


def test_called_again_it_scores_and_draws_without_training_anew(
    demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = (demo / "train" / "last.ckpt").stat().st_mtime_ns
    (demo / "attention.png").unlink()
    _, plain = run_demo(demo, SMALL)
    assert (demo / "train" / "last.ckpt").stat().st_mtime_ns == model
    assert (demo / "attention.png").exists()
    assert plain is None
    assert json.loads((demo / "train" / "metrics.json").read_text())["images"] == 3
    printed = capsys.readouterr().out
    assert "box AP50" in printed
    assert "gcnet predict" in printed


def test_folder_of_another_demo_is_left_alone(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="other settings"):
        run_demo(demo, replace(SMALL, seed=4))
    (tmp_path / "data").mkdir()
    with pytest.raises(GCNetError, match="data would be replaced"):
        run_demo(tmp_path, SMALL)


def test_unknown_model_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="did you mean"):
        run_demo(tmp_path / "out", Settings(model="mask_rcnn_tiny_gc44"))
    assert not (tmp_path / "out").exists()
