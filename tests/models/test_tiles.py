"""Tiles over an image, and a detector that sees them."""

from __future__ import annotations

import copy
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

import gcnet
from gcnet.errors import GCNetError
from gcnet.lab.context_shapes import CLASS_NAMES, write_context_shapes
from gcnet.models.tiled import Tiled
from gcnet.models.tiles import Tiles
from lively import lively_detector


@pytest.mark.parametrize("size", [(2000, 3000), (1024, 1025), (100, 5000), (1500, 1100)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_tiles_cover_the_image_and_overlap(size, overlap):
    views = Tiles(1024, overlap).views(size)
    assert (views[0].right, views[0].bottom) == (size[1], size[0])
    covered = np.zeros(size, bool)
    for view in views[1:]:
        assert (view.bottom - view.top, view.right - view.left) == (min(1024, size[0]), min(1024, size[1]))
        covered[view.top : view.bottom, view.left : view.right] = True
    assert covered.all()
    lefts = sorted({view.left for view in views[1:]})
    assert all(b - a <= 1024 * (1 - overlap) + 1 for a, b in pairwise(lefts))


@pytest.mark.parametrize(("side", "overlap"), [(31, 0.2), (64, -0.1), (64, 0.9), (64, float("nan"))])
def test_tiles_that_make_no_sense_are_refused(side, overlap):
    with pytest.raises(GCNetError, match=r"tile of|overlap of"):
        Tiles(side, overlap)


@pytest.fixture(scope="module")
def detector():
    model = lively_detector(None, class_names=CLASS_NAMES).eval()
    model.limit_detections(20)  # each is compared with those of other views
    return model


def test_an_image_no_larger_than_a_tile_is_seen_as_without_tiles(detector, image):
    tiled = Tiled(detector, Tiles(256))
    (ours,) = tiled.predict(tiled.prepare(image[:256, :256]), score_threshold=0.0)
    (plain,) = detector.predict_images(image[:256, :256], score_threshold=0.0)
    assert len(plain)
    for name in ("boxes", "scores", "labels", "mask_probs"):
        assert torch.equal(getattr(ours, name), getattr(plain, name))


def test_batches_of_tiles_give_what_single_ones_give(detector, image):
    wide = image[:160]
    one, four = (
        Tiled(detector, Tiles(160, 0.2), size).predict(Tiled(detector, Tiles(160)).prepare(wide))[0]
        for size in (1, 4)
    )
    assert isinstance(one, gcnet.Detections)
    assert one.image_size == (160, 400)
    assert len(one) == len(four) > 0
    torch.testing.assert_close(one.boxes, four.boxes, atol=0.01, rtol=0)


def test_predict_and_evaluate_take_tiles(detector, tmp_path):
    data = write_context_shapes(tmp_path / "data", train=1, valid=2, size=128)
    file = sorted((data / "valid").glob("*.png"))[0]
    model = copy.deepcopy(detector)
    tiled = Tiled(model, Tiles(96, 0.3))
    (alone,) = tiled.predict(tiled.prepare(file), score_threshold=0.34)
    assert len(alone)
    words = {"tile": 96, "overlap": 0.3, "progress": False}
    (held,) = gcnet.predict(model, file, score_threshold=0.34, **words).found
    assert torch.equal(held.boxes, alone.boxes)
    assert held.image_size == (128, 128)
    _, results = gcnet.evaluate(model, data, score_threshold=0.34, out=tmp_path / "e", workers=0, **words)
    scores = [entry["score"] for entry in results if entry["image_id"] == 1]
    assert scores == pytest.approx(alone.scores.tolist(), abs=1e-6)
    with pytest.raises(GCNetError, match="tile, overlap differs"):
        gcnet.evaluate(model, data, score_threshold=0.34, out=tmp_path / "e", progress=False)


def test_a_classifier_takes_no_tiles(tmp_path, image):
    cv2.imwrite(str(tmp_path / "a.png"), image)
    with pytest.raises(GCNetError, match="tiles, flip and scales are for detectors"):
        gcnet.predict(gcnet.create_model("resnet_tiny_gc4", weights=None), tmp_path / "a.png", tile=64)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
