from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from gcnet.data.dataset import ImageRecord, Instance
from gcnet.data.transforms import eval_transform, jitter_colors, make_targets, train_transform
from gcnet.ops.segmentations import segmentation_to_rle

HEIGHT, WIDTH = 60, 90
BOX = (12.0, 10.0, 42.0, 50.0)


def instance(box: tuple[float, float, float, float], label: int, *, crowd: bool = False) -> Instance:
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    return Instance(0, label, box, [corners], (x2 - x1) * (y2 - y1), crowd)


@pytest.fixture
def record() -> ImageRecord:
    objects = (instance(BOX, 3), instance((0, 0, 20, 20), 1, crowd=True), instance((70, -5, 95, 30), 2))
    return ImageRecord(1, Path("a.png"), WIDTH, HEIGHT, objects)


@pytest.fixture
def image() -> np.ndarray:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[10:50, 12:42] = (200, 100, 50)
    return picture


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_eval_transform_fits_the_size(image: np.ndarray) -> None:
    assert eval_transform(image, (120, 100)).shape == (80, 120, 3)


def test_targets_leave_out_crowds_and_clip_boxes(record: ImageRecord) -> None:
    targets = make_targets(record, (HEIGHT * 2, WIDTH * 3))
    assert targets.labels.tolist() == [3, 2]
    assert targets.boxes.dtype == torch.float32
    assert targets.boxes.tolist() == [[36, 20, 126, 100], [210, 0, 270, 60]]
    assert isinstance(targets.masks[1], list)
    assert targets.masks[1][0].tolist() == [[210, -10], [285, -10], [285, 60], [210, 60]]


def test_targets_of_an_image_without_objects() -> None:
    targets = make_targets(ImageRecord(1, Path("a.png"), WIDTH, HEIGHT, ()), (HEIGHT, WIDTH), flipped=True)
    assert targets.boxes.shape == (0, 4)
    assert len(targets) == 0
    assert targets.outlines is not None
    assert len(targets.outlines) == 0


def test_outlines_come_with_the_targets(record: ImageRecord) -> None:
    """A polygon is drawn in a frame of its own size, with a pixel around it; an RLE leaves them out."""
    targets = make_targets(record, (HEIGHT * 2, WIDTH * 3), flipped=True)
    assert targets.outlines is not None
    assert targets.frames is not None
    inside = torch.zeros(56, 56, dtype=torch.uint8)
    inside[1:-1, 1:-1] = 255
    assert torch.equal(targets.outlines[0], inside)
    x1, y1, x2, y2 = targets.boxes[0].tolist()
    dx, dy = (x2 - x1) / 54, (y2 - y1) / 54
    torch.testing.assert_close(targets.frames[0], torch.tensor([x1 - dx, y1 - dy, x2 + dx, y2 + dy]))

    rle = segmentation_to_rle(record.instances[0].segmentation, HEIGHT, WIDTH)
    mixed = replace(record, instances=(*record.instances, replace(record.instances[0], segmentation=rle)))
    assert make_targets(mixed, (HEIGHT, WIDTH)).outlines is None


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_image_box_and_mask_move_together(image: np.ndarray, record: ImageRecord, flip: float) -> None:
    size = (180, 180)
    resized, targets = train_transform(image, record, image_size=size, rng=rng(), flip=flip)
    assert resized.shape == (120, 180, 3)
    x1, y1, x2, y2 = targets.boxes[0].round().int().tolist()
    mask = coco_mask.decode(segmentation_to_rle(targets.masks[0], 120, 180)).astype(bool)
    box = np.zeros_like(mask)
    box[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(mask, box)
    assert ((resized[..., 0] > 100) == box).mean() > 0.99
    assert x1 == (24 if flip == 0 else 180 - 84)


def test_scale_jitter_is_a_factor_on_the_size(image: np.ndarray, record: ImageRecord) -> None:
    sizes = set()
    for seed in range(30):
        resized, targets = train_transform(
            image, record, image_size=(180, 120), rng=rng(seed), flip=0, scale_jitter=(0.5, 1.5)
        )
        height, width = resized.shape[:2]
        sizes.add(width)
        assert 90 <= width <= 270
        np.testing.assert_allclose(targets.boxes[0, 2], BOX[2] * width / WIDTH, rtol=1e-5)
        np.testing.assert_allclose(targets.boxes[0, 3], BOX[3] * height / HEIGHT, rtol=1e-5)
    assert len(sizes) > 15


def test_the_generator_decides_everything(image: np.ndarray, record: ImageRecord) -> None:
    options = {"image_size": (180, 120), "scale_jitter": (0.5, 1.5), "color_jitter": 0.4}
    first, again, other = (
        train_transform(image, record, rng=rng(seed), **options)[0]  # type: ignore[arg-type]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_settings_do_not_shift_the_draws(image: np.ndarray, record: ImageRecord) -> None:
    """A run with colour jitter sees the same flips as one without."""
    for seed in range(8):
        plain = train_transform(image, record, image_size=(180, 120), rng=rng(seed))[1]
        coloured = train_transform(image, record, image_size=(180, 120), rng=rng(seed), color_jitter=0.5)[1]
        assert torch.equal(plain.boxes, coloured.boxes)


def test_color_jitter() -> None:
    image = np.random.default_rng(0).integers(60, 120, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(jitter_colors(image, np.ones(3)), image)
    assert jitter_colors(image, np.array([1.5, 1, 1])).mean() == pytest.approx(image.mean() * 1.5, rel=0.02)
    assert jitter_colors(image, np.array([1, 0.5, 1])).std() == pytest.approx(image.std() / 2, rel=0.1)
    grey = jitter_colors(image, np.array([1, 1, 0.0]))
    assert (grey.max(-1) == grey.min(-1)).all()
    assert jitter_colors(image, np.array([9.0, 1, 1])).max() == 255
