"""A name, a photo and nothing else: published weights are fetched, checked, kept and used.

The row is the tiny one with an address on this machine, its file as mmdetection would have written it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from gcnet.cli import main
from gcnet.weights import catalog
from gcnet.weights.catalog import Weights, find
from gcnet.weights.create import create_model
from gcnet.weights.mmdet_keys import mmdet_key

TINY = "mask_rcnn_tiny_gc4"


@pytest.fixture
def weights(file_server: Any, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """What the row says of its weights; the server has them."""
    torch.manual_seed(1)
    state = {mmdet_key(name): tensor for name, tensor in create_model(TINY).state_dict().items()}
    file = io.BytesIO()
    torch.save({"meta": {"epoch": 12}, "state_dict": state}, file)
    digest = hashlib.sha256(file.getvalue()).hexdigest()[:8]
    path = f"v2.0/gcnet/tiny/tiny-{digest}.pth"
    file_server.files[path] = file.getvalue()
    published = Weights(f"{file_server.address}/{path}", digest)
    rows = tuple(replace(row, weights=published) if row.name == TINY else row for row in catalog.ROWS)
    monkeypatch.setattr(catalog, "ROWS", rows)
    return published


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    return path


def test_predict(weights: Weights, photo: Path, home: Path, file_server: Any, capsys) -> None:
    words = ["predict", TINY, str(photo), "--score-threshold", "0.02", "--no-overlays"]
    assert main(words) == 0
    streams = capsys.readouterr()
    assert f"fetching {weights.file}" in streams.err
    assert "objects in 1 image: predictions/results.json" in streams.out
    cached = home / "weights" / weights.file
    assert cached.is_file()
    results = json.loads(Path("predictions/results.json").read_text())

    file_server.files.clear()
    assert main([*words, "--out", "again"]) == 0
    assert "fetching" not in capsys.readouterr().err
    assert main([*words, "--out", "by-hand", "--weights", str(cached)]) == 0
    assert main([*words, "--out", "by-word", "--weights", "coco"]) == 0
    assert len(file_server.asked) == 1
    assert len(results) > 0
    for folder in ("again", "by-hand", "by-word"):
        assert json.loads(Path(folder, "results.json").read_text()) == results


def test_eval(weights: Weights, photo: Path, file_server: Any, capsys) -> None:
    box = {"bbox": [10, 10, 40, 30], "area": 1200, "segmentation": [[10, 10, 50, 10, 50, 40, 10, 40]]}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, **box}
    names = find(TINY).spec.class_names
    content = {
        "images": [{"id": 1, "file_name": "photo.jpg", "width": 160, "height": 120}],
        "annotations": [annotation],
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(names)],
    }
    split = photo.parent / "data" / "valid"
    split.mkdir(parents=True)
    photo.rename(split / photo.name)
    (split / "_annotations.coco.json").write_text(json.dumps(content))
    assert main(["eval", TINY, "--data", "data", "--workers", "0"]) == 0
    assert len(file_server.asked) == 1
    assert f"runs/eval-{TINY}-valid" in capsys.readouterr().out


def test_a_mirror_by_option(
    weights: Weights, photo: Path, file_server: Any, mirror_server: Any, capsys
) -> None:
    mirror_server.files = file_server.files.copy()
    file_server.files.clear()
    words = ["predict", TINY, str(photo), "--mirror", str(photo.parent), "--mirror", mirror_server.address]
    assert main(words) == 0
    assert len(mirror_server.asked) == 1
    assert "404 Not Found; trying the next place" in capsys.readouterr().err


def test_a_missing_photo_is_known_before_anything_is_fetched(
    weights: Weights, file_server: Any, capsys
) -> None:
    assert main(["predict", TINY, "nowhere.jpg"]) == 2
    assert "nowhere.jpg does not exist" in capsys.readouterr().err
    assert file_server.asked == []


def test_from_python(weights: Weights, file_server: Any) -> None:
    torch.manual_seed(1)
    expected = create_model(TINY).state_dict()
    for _ in range(2):
        own = create_model(TINY, weights="coco").state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in own.items())
    assert len(file_server.asked) == 1


def test_offline_is_one_line_before_anything_slow(photo: Path, home: Path, file_server: Any) -> None:
    """A real row in a fresh process; the proxy of its host is a server that refuses."""
    script = (
        "import sys; from gcnet.cli import main; code = main(sys.argv[1:]);"
        "print('HEAVY') if 'torch' in sys.modules else None; sys.exit(code)"
    )
    words = [sys.executable, "-c", script, "predict", "mask_rcnn_r50_gc16", str(photo)]
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), file_server.address)
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | proxies)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    weights = find("mask_rcnn_r50_gc16").weights
    assert weights is not None
    assert f"get {weights.url} by hand and put it into {home / 'weights'}" in line
    assert not (photo.parent / "predictions").exists()
