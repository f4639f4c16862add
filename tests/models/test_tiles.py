"""Tiles over an image, and a detector that sees them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import gcnet
from gcnet.errors import GCNetError
from gcnet.models.tiles import Tiled, Tiles


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
    torch.manual_seed(0)
    return gcnet.create_model("mask_rcnn_tiny_gc4", weights=None, num_classes=3).eval()


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


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
