"""What several views found, as one: against masks that are drawn whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnet.found import Found
from gcnet.models.seams import join_views
from gcnet.models.tiles import Tiles, View
from gcnet.ops.masks import paste_masks
from gcnet.types import Detections

SIDE = 28


def seen(masks, view, size, scores=None, labels=None, least=4):
    """What an exact detector finds of H x W masks in a view: boxes, and masks on its grid."""
    boxes, grids, kept = [], [], []
    for i, mask in enumerate(masks):
        part = mask[view.top : view.bottom, view.left : view.right]
        if part.sum() < least:
            continue
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
        points = [
            (low + (np.arange(SIDE) + 0.5) / SIDE * (high - low)).astype(int)
            for low, high in ((box[1], box[3]), (box[0], box[2]))
        ]
        grids.append(part[np.ix_(*points)].astype(np.float32))
        boxes.append(box)
        kept.append(i)
    scores = np.linspace(0.9, 0.6, len(masks)) if scores is None else np.array(scores)
    labels = np.zeros(len(masks), np.int64) if labels is None else np.array(labels)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Found(
        boxes,
        scores[kept].astype(np.float32),
        labels[kept],
        np.array(grids, np.float32).reshape(-1, SIDE, SIDE),
        (view.bottom - view.top, view.right - view.left),
        boxes,
    )


def joined(masks, tiles, *, whole=True, **names):
    size = masks[0].shape
    views = tiles.views(size)[0 if whole else 1 :]
    return join_views([seen(masks, view, size, **names) for view in views], views, size)


def drawn(found):
    return Detections.of_arrays(found).masks.numpy()


def disc(size, x, y, radius):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < radius**2


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("x", "y", "radius"), [(100, 100, 12), (90, 110, 60), (150, 100, 95), (8, 196, 20)])
def test_an_object_is_found_once_wherever_tiles_cut_it(x, y, radius, whole):
    size = (200, 300)
    mask = disc(size, x, y, radius)
    found = joined([mask], Tiles(100, 0.25), whole=whole)
    assert len(found) == 1
    assert iou(drawn(found)[0], mask) > 0.95
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    np.testing.assert_allclose(found.boxes[0], [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1.0)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_objects_that_do_not_touch_stay_as_many(seed):
    rng = np.random.default_rng(seed)
    size = (240, 320)
    taken, masks = np.zeros(size, bool), []
    for _ in range(40):
        radius = rng.uniform(5, 45)
        mask = disc(size, rng.uniform(0, size[1]), rng.uniform(0, size[0]), radius)
        grown = disc(size, *np.argwhere(mask).mean(0)[::-1], radius + 6) if mask.sum() > 60 else None
        if grown is not None and not (grown & taken).any():
            taken |= mask
            masks.append(mask)
    found = joined(masks, Tiles(96, 0.3), least=40)  # a strip of a row or two would be found by no detector
    assert len(found) == len(masks)
    pictures = drawn(found)
    assert all(max(iou(picture, mask) for picture in pictures) > 0.8 for mask in masks)


def test_a_long_object_is_joined_over_many_tiles_into_a_sharp_mask():
    size = (120, 900)
    rows, columns = np.mgrid[: size[0], : size[1]]
    wave = np.abs(rows - 60 - 30 * np.sin(columns / 40)) < 8
    found = joined([wave], Tiles(120, 0.2), whole=False)
    assert len(found) == 1
    assert found.mask_probs.shape[1] > 4 * SIDE
    assert iou(drawn(found)[0], wave) > 0.85


def test_other_masks_are_the_same_when_a_joined_one_makes_all_finer():
    size = (120, 500)
    small = disc(size, 30, 60, 17.3)
    alone = joined([small], Tiles(120, 0.2), whole=False)
    rows = np.abs(np.mgrid[: size[0], : size[1]][0] - 20) < 9
    both = joined([small & ~rows, rows], Tiles(120, 0.2), whole=False)
    assert alone.mask_probs.shape[1] == SIDE < both.mask_probs.shape[1]
    assert iou(drawn(both[both.boxes[:, 2] < 100])[0], small & ~rows) > 0.93
    assert (drawn(alone)[0] ^ drawn(both[both.boxes[:, 2] < 100])[0])[40:].sum() <= 2


def test_two_classes_never_become_one():
    size = (100, 260)
    bar = np.abs(np.mgrid[: size[0], : size[1]][0] - 50) < 10
    found = joined([bar, bar], Tiles(100, 0.2), labels=[0, 1])
    assert sorted(found.labels.tolist()) == [0, 1]


def test_small_objects_before_a_large_one_of_their_class_stay():
    size = (200, 200)
    large = np.ones(size, bool)
    large[:2] = large[-2:] = large[:, :2] = large[:, -2:] = False
    small = [disc(size, x, y, 9) for x in (30, 75, 125, 170) for y in (30, 75, 125, 170)]
    views = Tiles(100, 0.2).views(size)
    parts = [seen([large], views[0], size, scores=[0.95])]
    parts += [seen(small, view, size, scores=[0.8] * 16) for view in views[1:]]
    found = join_views(parts, views, size)
    assert len(found) == 17


def test_a_tile_is_believed_on_what_it_sees_whole():
    size = (200, 200)
    small = [disc(size, 25, 25, 9), disc(size, 55, 25, 9)]
    blurred = np.zeros(size, bool)
    blurred[12:40, 12:68] = True
    elsewhere = disc(size, 150, 150, 12)
    views = Tiles(100, 0.2).views(size)
    parts = [seen([blurred, elsewhere], views[0], size, scores=[0.99, 0.7])]
    parts += [seen(small, view, size, scores=[0.8, 0.8]) for view in views[1:]]
    found = join_views(parts, views, size)
    assert found.scores.tolist() == pytest.approx([0.8, 0.8, 0.7])
    assert all(max(iou(picture, mask) for mask in [*small, elsewhere]) > 0.9 for picture in drawn(found))


def test_a_half_goes_where_a_whole_covers_it_and_lends_its_score():
    size = (100, 200)
    mask = disc(size, 100, 50, 40)
    views = Tiles(100, 0.2).views(size)
    parts = [seen([mask], views[0], size, scores=[0.6]), *(seen([mask], v, size) for v in views[1:])]
    found = join_views(parts, views, size)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert iou(drawn(found)[0], mask) > 0.95


def test_a_large_object_does_not_go_into_a_small_one_that_lies_in_its_part():
    size = (100, 180)
    large, small = np.zeros(size, bool), np.zeros(size, bool)
    large[10:90, 5:95] = True
    small[20:80, 84:96] = True
    views = [View(0, 0, 95, 100), View(80, 0, 180, 100)]
    found = join_views([seen([large], views[0], size), seen([small], views[1], size)], views, size)
    assert len(found) == 2


def test_boxes_without_masks_are_joined_by_themselves():
    size = (100, 300)
    bar = np.abs(np.mgrid[: size[0], : size[1]][0] - 50) < 10
    views = Tiles(100, 0.2).views(size)[1:]
    parts = []
    for view in views:
        one = seen([bar], view, size)
        parts.append(Found(one.boxes, one.scores, one.labels, None, one.image_size, one.frames))
    found = join_views(parts, views, size)
    assert found.mask_probs is None
    assert found.boxes.tolist() == [[0, 41, 300, 60]]


def test_nothing_found_is_nothing():
    size = (100, 300)
    assert len(joined([np.zeros(size, bool)], Tiles(100, 0.2))) == 0


def test_masks_of_many_objects_do_not_grow_beyond_what_is_allowed(monkeypatch):
    monkeypatch.setattr("gcnet.models.seams.MASK_BYTES", 4 * 2 * (2 * 29) ** 2)
    size = (120, 900)
    bar = np.abs(np.mgrid[: size[0], : size[1]][0] - 60) < 9
    found = joined([bar, disc(size, 300, 20, 15)], Tiles(120, 0.2), whole=False)
    assert len(found) == 2
    assert found.mask_probs.shape[1] == 2 * 29 - 1


def test_pasted_and_encoded_masks_of_a_joined_object_agree():
    size = (120, 500)
    found = joined([disc(size, 250, 60, 55)], Tiles(120, 0.2), whole=False)
    pasted = paste_masks(torch.from_numpy(found.mask_probs), torch.from_numpy(found.frames), size)
    from pycocotools import mask as coco_mask

    (rle,) = Detections.of_arrays(found).rles()
    assert (coco_mask.decode(rle) != pasted[0].numpy()).sum() == 0
