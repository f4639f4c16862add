"""Overlays show what they are given, leave the input alone, and cope with the extremes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gcnet.data.dataset import ImageRecord, Instance
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import segmentation_to_rle
from gcnet.types import Detections, Targets
from gcnet.viz import class_colors, draw_detections, draw_targets
from gcnet.viz.objects import draw_frames, draw_names, place_names

NAMES = ("cat", "a rather long name")
SQUARE = np.array([[20.0, 20.0], [60.0, 20.0], [60.0, 60.0], [20.0, 60.0]])


def detections(boxes: list[list[float]], size: tuple[int, int]) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.linspace(0.9, 0.3, count),
        labels=torch.arange(count) % 2,
        mask_probs=torch.ones(count, 28, 28),
        image_size=size,
    )


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(-1)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_mask_box_and_name_show_on_any_background(level: int) -> None:
    image = np.full((120, 160, 3), level, np.uint8)
    drawn = draw_detections(image, detections([[30.0, 40.0, 90.0, 100.0]], (120, 160)), NAMES)
    assert (image == level).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert changed(image, drawn)[45:95, 35:85].all()  # tinted
    contrast = np.abs(drawn[40:100, 28:33].astype(int) - level).max(-1)
    assert (contrast.max(1) > 60).all()  # the frame
    above = drawn[24:39, 30:60]
    assert np.ptp(above.astype(int), axis=(0, 1)).max() > 100  # the name on its plate
    assert not changed(image, drawn)[110:].any()


def test_colors_are_rgb() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    drawn = draw_detections(image, detections([[50.0, 50.0, 150.0, 150.0]], (200, 200)), NAMES)
    tint = drawn[100, 100].astype(float)
    assert np.allclose(tint / tint.max(), class_colors(2)[0] / class_colors(2)[0].max(), atol=0.03)
    frame = drawn[100, 40:60].max(0).astype(float)
    assert np.allclose(frame, class_colors(2)[0], atol=30)


def test_score_threshold_hides_the_rest() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    found = detections([[10.0, 40.0, 60.0, 90.0], [120.0, 40.0, 180.0, 90.0]], (100, 200))
    assert not changed(image, draw_detections(image, found, NAMES, 0.5))[:, 115:].any()
    assert changed(image, draw_detections(image, found, NAMES, 0.2))[45:85, 125:175].all()


@pytest.mark.parametrize("size", [(1, 1), (8, 5), (64, 48), (700, 1900)])
def test_no_detections_leave_the_picture_as_it_is(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert np.array_equal(draw_detections(image, detections([], size), NAMES), image)


@pytest.mark.parametrize("shape", [(5, 7, 3), (40, 30), (40, 30, 1)])
def test_tiny_and_gray_images(shape: tuple[int, ...]) -> None:
    image = np.full(shape, 90, np.uint8)
    height, width = shape[:2]
    boxes = [[0.0, 0.0, float(width), float(height)], [-5.0, -5.0, 2.0, 2.0], [1.0, 1.0, 1.2, 1.3]]
    drawn = draw_detections(image, detections(boxes, (height, width)), NAMES)
    assert drawn.shape == (height, width, 3)
    larger = draw_detections(image, detections(boxes, (height, width)), NAMES, enlarge=3)
    assert larger.shape == (3 * height, 3 * width, 3)


def test_box_without_area_or_outside_is_no_error() -> None:
    boxes = [[10.0, 10.0, 10.0, 10.0], [500.0, 500.0, 600.0, 600.0], [30.0, 30.0, 20.0, 20.0]]
    draw_detections(np.zeros((50, 50, 3), np.uint8), detections(boxes, (50, 50)), NAMES)


def test_many_objects_on_a_large_image_need_little_memory() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    image = np.zeros((2000, 3000, 3), np.uint8)
    corners = np.random.default_rng(0).uniform(0, 1900, (60, 2))
    boxes = np.concatenate([corners, corners + 90], 1).tolist()
    tracemalloc.start()
    draw_detections(image, detections(boxes, (2000, 3000)), NAMES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * image.nbytes  # sixty full masks would be twenty times the image


def test_label_without_a_name_is_drawn_with_its_number() -> None:
    found = detections([[10.0, 10.0, 40.0, 40.0], [20.0, 20.0, 50.0, 50.0]], (64, 64))
    draw_detections(np.zeros((64, 64, 3), np.uint8), found, ("only one",))


def test_wrong_images_are_refused() -> None:
    found = detections([], (50, 50))
    with pytest.raises(GCNetError, match="uint8"):
        draw_detections(np.zeros((50, 50, 3), np.float32), found, NAMES)
    with pytest.raises(GCNetError, match="that was predicted"):
        draw_detections(np.zeros((60, 50, 3), np.uint8), found, NAMES)


@pytest.mark.parametrize("as_rle", [False, True])
@pytest.mark.parametrize("enlarge", [1, 2])
def test_targets_of_both_kinds_are_drawn_where_they_are(as_rle: bool, enlarge: int) -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    segmentation = segmentation_to_rle([SQUARE], 80, 100) if as_rle else [SQUARE]
    box = (20.0, 20.0, 60.0, 60.0)
    instance = Instance(id=1, label=1, box=box, segmentation=segmentation, area=1600.0, crowd=as_rle)
    item = ImageRecord(id=1, path=Path("x.png"), width=100, height=80, instances=(instance,))
    targets = Targets(torch.tensor([box]), torch.tensor([1]), [segmentation])
    for drawn in (
        draw_targets(image, item, NAMES, enlarge=enlarge),
        draw_targets(image, targets, NAMES, enlarge=enlarge),
    ):
        assert drawn.shape == (80 * enlarge, 100 * enlarge, 3)
        tinted = drawn.any(-1)
        assert tinted[25 * enlarge : 55 * enlarge, 25 * enlarge : 55 * enlarge].all()
        assert not tinted[65 * enlarge :].any()


def test_what_is_not_learnt_is_named_so() -> None:
    plain, crowd, ignored = (
        Instance(id=1, label=0, box=(20, 40, 60, 60), segmentation=[], area=800.0, crowd=crowd, ignore=ignore)
        for crowd, ignore in ((False, False), (True, False), (False, True))
    )
    image = np.zeros((80, 200, 3), np.uint8)
    widths = []
    for instance in (plain, crowd, ignored):
        item = ImageRecord(id=1, path=Path("x.png"), width=200, height=80, instances=(instance,))
        widths.append(np.flatnonzero(draw_targets(image, item, NAMES).any((0, 2)))[-1])
    assert widths[0] < widths[1] < widths[2]


def test_picture_without_objects_is_drawn_bare() -> None:
    image = np.full((20, 30, 3), 7, np.uint8)
    item = ImageRecord(id=1, path=Path("x.png"), width=30, height=20, instances=())
    assert np.array_equal(draw_targets(image, item, NAMES), image)


# Frames and names --------------------------------------------------------------------------------------

FRAME = (1000, 600)


def placed(wanted: list[list[int]], sizes: list[list[int]] | None = None) -> np.ndarray:
    return place_names(np.array(wanted), np.array(sizes or [[100, 20]] * len(wanted)), FRAME)


def overlaps(places: np.ndarray, size: tuple[int, int] = (100, 20)) -> bool:
    apart = (np.abs(places[:, None] - places[None]) >= size).any(-1)
    return not apart[~np.eye(len(places), dtype=bool)].all()


def test_names_that_are_apart_stay() -> None:
    wanted = [[10, 10], [200, 10], [10, 40], [890, 570]]
    assert placed(wanted).tolist() == wanted


def test_names_come_into_the_frame() -> None:
    assert placed([[-30, -10], [950, 590], [400, -20]]).tolist() == [[0, 0], [900, 580], [400, 0]]
    assert placed([[50, 50]], [[1200, 700]]).tolist() == [[0, 0]]  # none that is larger: it begins there


def test_the_one_in_front_has_its_place() -> None:
    places = placed([[300, 300], [320, 305]])
    assert places[1].tolist() == [320, 305]
    assert not overlaps(places)
    assert np.abs(places[0] - [300, 300]).max() <= 40


def test_many_at_one_place_are_all_readable() -> None:
    places = placed([[500, 300]] * 40)
    assert not overlaps(places)
    assert placed([[0, 0]] * 500).shape == (500, 2)  # without room for all


@pytest.mark.parametrize("text", ["", "naïve", "Ω", "a b", "\udcff"])
def test_any_text_is_written(text: str) -> None:
    canvas = np.zeros((60, 200, 3), np.uint8)
    draw_names(canvas, np.array([[20, 40]]), [text], np.array([[0, 0, 250]], np.uint8))
    assert (canvas[40, 22:24] == [0, 0, 250]).all()  # the plate
    assert (canvas[:, :, 0] > 200).any() == bool(text)  # white on blue


def test_frames_of_those_in_front_are_on_top() -> None:
    canvas = np.zeros((50, 50, 3), np.uint8)
    boxes = np.array([[10, 10, 40, 40], [10, 10, 30, 30]])
    draw_frames(canvas, boxes, np.array([[255, 0, 0], [0, 255, 0]], np.uint8))
    assert canvas[10, 20].tolist() == [0, 255, 0]
    assert canvas[10, 35].tolist() == [255, 0, 0]
    assert canvas[9, 35].tolist() == canvas[11, 35].tolist() == [20, 20, 20]
    assert canvas[13, 35].tolist() == [0, 0, 0]
