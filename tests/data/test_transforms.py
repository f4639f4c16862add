from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnet.data.dataset import ImageRecord, Instance
from gcnet.data.transforms import (
    Crop,
    QuarterTurn,
    Sample,
    apply,
    jitter_colors,
    mirror,
    paste,
    resize,
    train_transforms,
)
from gcnet.ops.segmentations import crop_segmentation, segmentation_to_mask, segmentation_to_rle
from gcnet.recipe import Recipe

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


def as_rles(record: ImageRecord) -> ImageRecord:
    objects = [
        replace(item, segmentation=segmentation_to_rle(item.segmentation, HEIGHT, WIDTH))
        for item in record.instances
    ]
    return replace(record, instances=tuple(objects))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made(image: np.ndarray, record: ImageRecord, *, seed: int = 0, **options: Any) -> Sample:
    """What a recipe makes of the image; it pastes from the image itself."""
    size = options.pop("image_size", (180, 120))
    sample = Sample.of(image, record)
    transforms = train_transforms(Recipe(**({"flip": 0.0} | options)), size, lambda rng: sample)
    return apply(transforms, sample, rng(seed))


def test_targets_leave_out_crowds_and_clip_boxes(image: np.ndarray, record: ImageRecord) -> None:
    targets = resize(Sample.of(image, record), (HEIGHT * 2, WIDTH * 3)).targets()
    assert targets.labels.tolist() == [3, 2]
    assert targets.boxes.dtype == torch.float32
    assert targets.boxes.tolist() == [[36, 20, 126, 100], [210, 0, 270, 60]]
    assert isinstance(targets.masks[1], list)
    assert targets.masks[1][0].tolist() == [[210, -10], [285, -10], [285, 60], [210, 60]]


def test_targets_of_an_image_without_objects(image: np.ndarray) -> None:
    targets = mirror(Sample.without_objects(image)).targets()
    assert targets.boxes.shape == (0, 4)
    assert len(targets) == 0
    assert targets.outlines is not None
    assert len(targets.outlines) == 0


def test_outlines_come_with_the_targets(image: np.ndarray, record: ImageRecord) -> None:
    """A polygon is drawn in a frame of its own size, with a pixel around it; an RLE leaves them out."""
    targets = mirror(resize(Sample.of(image, record), (HEIGHT * 2, WIDTH * 3))).targets()
    assert targets.outlines is not None
    assert targets.frames is not None
    inside = torch.zeros(56, 56, dtype=torch.uint8)
    inside[1:-1, 1:-1] = 255
    assert torch.equal(targets.outlines[0], inside)
    x1, y1, x2, y2 = targets.boxes[0].tolist()
    dx, dy = (x2 - x1) / 54, (y2 - y1) / 54
    torch.testing.assert_close(targets.frames[0], torch.tensor([x1 - dx, y1 - dy, x2 + dx, y2 + dy]))
    assert Sample.of(image, as_rles(record)).targets().outlines is None


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_image_box_and_mask_move_together(image: np.ndarray, record: ImageRecord, flip: float) -> None:
    sample = made(image, record, image_size=(180, 180), flip=flip)
    assert sample.image.shape == (120, 180, 3)
    x1, y1, x2, y2 = sample.boxes[0].round().astype(int).tolist()
    mask = segmentation_to_mask(sample.masks[0], (120, 180)).astype(bool)
    box = np.zeros_like(mask)
    box[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(mask, box)
    assert ((sample.image[..., 0] > 100) == box).mean() > 0.99
    assert x1 == (24 if flip == 0 else 180 - 84)


def test_scale_jitter_is_a_factor_on_the_size(image: np.ndarray, record: ImageRecord) -> None:
    sizes = set()
    for seed in range(30):
        sample = made(image, record, seed=seed, scale_jitter=(0.5, 1.5))
        height, width = sample.size
        sizes.add(width)
        assert 90 <= width <= 270
        np.testing.assert_allclose(sample.boxes[0, 2], BOX[2] * width / WIDTH, rtol=1e-5)
        np.testing.assert_allclose(sample.boxes[0, 3], BOX[3] * height / HEIGHT, rtol=1e-5)
    assert len(sizes) > 15


def test_settings_do_not_shift_the_draws(image: np.ndarray, record: ImageRecord) -> None:
    """A run with colour jitter sees the same flips as one without."""
    for seed in range(8):
        plain = made(image, record, seed=seed, flip=0.5)
        coloured = made(image, record, seed=seed, flip=0.5, color_jitter=0.5)
        np.testing.assert_array_equal(plain.boxes, coloured.boxes)


# Options -----------------------------------------------------------------------------------------------

ALL = {"quarter_turns": 1.0, "rotation": 30.0, "crop": 0.5, "copy_paste": 1.0}


@pytest.mark.parametrize("option", ALL)
@pytest.mark.parametrize("rle", [False, True], ids=["polygons", "rle"])
def test_options_move_image_box_and_outline_together(
    option: str, rle: bool, image: np.ndarray, record: ImageRecord
) -> None:
    """The bright rectangle of the image is where its outline and box say, also when masks are RLEs."""
    record = replace(record, instances=record.instances[:1])
    changed = 0
    for seed in range(12):
        sample = made(
            image, as_rles(record) if rle else record, seed=seed, image_size=(90, 60), **{option: ALL[option]}
        )
        bright = sample.image[..., 0] > 150
        masks = np.array([segmentation_to_mask(mask, sample.size) for mask in sample.masks], bool)
        # What is pasted hides what is below; what little stays to be seen of that is no object any more.
        assert (masks.any(0) == bright).mean() > (0.9 if option == "copy_paste" else 0.96)
        for mask, box in zip(masks, sample.boxes, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(box, seen, atol=2.5)
        changed += sample.image.shape != image.shape or (sample.image != image).any()
    assert changed > 5


def test_a_quarter_turn_loses_nothing(record: ImageRecord) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    record = replace(record, instances=record.instances[:1])
    mask = segmentation_to_mask(record.instances[0].segmentation, (HEIGHT, WIDTH))
    for seed in range(6):
        turned = QuarterTurn(1.0)(Sample.of(image, as_rles(record)), rng(seed))
        turns = next(k for k in (1, 2, 3) if np.array_equal(np.rot90(image, k), turned.image))
        np.testing.assert_array_equal(
            segmentation_to_mask(turned.masks[0], turned.size), np.rot90(mask, turns)
        )


def test_what_is_cut_off_to_a_rest_is_dropped(image: np.ndarray, record: ImageRecord) -> None:
    record = replace(record, instances=record.instances[:1])
    cuts = [Crop(0.2)(Sample.of(image, record), rng(seed)) for seed in range(40)]
    assert all(len(cut.labels) == 1 for cut in cuts)  # or the sample would be one of nothing
    assert any(cut.size == (HEIGHT, WIDTH) for cut in cuts)
    assert min(cut.size[1] for cut in cuts) < WIDTH / 2


def test_what_is_pasted_covers_what_is_below(image: np.ndarray, record: ImageRecord) -> None:
    below = Sample.of(image, replace(record, instances=record.instances[:1]))
    above = replace(below, labels=below.labels + 1, boxes=below.boxes + 8, masks=[[below.masks[0][0] + 8]])
    both = paste(below, replace(above, image=np.full_like(image, 9)))
    assert both.labels.tolist() == [3, 4]
    masks = np.array([segmentation_to_mask(mask, both.size) for mask in both.masks])
    assert masks.sum(0).max() == 1
    assert (both.image[masks[1] > 0] == 9).all()
    np.testing.assert_array_equal(both.boxes[0], below.boxes[0])  # a strip above and at the left is left
    hidden = paste(below, replace(above, boxes=below.boxes, masks=below.masks))
    assert hidden.labels.tolist() == [4]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_polygon_cut_at_the_borders_covers_the_same_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 9))
    radius = random.uniform(10, 60, 9)
    polygon = random.uniform(0, 50, 2) + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    cut = crop_segmentation([polygon], (40, 50))
    before, after = (segmentation_to_mask(mask, (40, 50)) for mask in ([polygon], cut))
    assert (before != after).sum() <= 30  # pixels on the outline
    if cut:
        assert np.concatenate(cut).min() >= 0


def test_color_jitter() -> None:
    image = np.random.default_rng(0).integers(60, 120, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(jitter_colors(image, np.ones(3)), image)
    assert jitter_colors(image, np.array([1.5, 1, 1])).mean() == pytest.approx(image.mean() * 1.5, rel=0.02)
    assert jitter_colors(image, np.array([1, 0.5, 1])).std() == pytest.approx(image.std() / 2, rel=0.1)
    grey = jitter_colors(image, np.array([1, 1, 0.0]))
    assert (grey.max(-1) == grey.min(-1)).all()
    assert jitter_colors(image, np.array([9.0, 1, 1])).max() == 255


@pytest.mark.parametrize("x", [90 - 1e-6, 90.0, 89.9999999])
def test_a_box_that_float32_takes_for_empty_is_not_learnt(image: np.ndarray, x: float) -> None:
    record = ImageRecord(1, Path("a.png"), WIDTH, HEIGHT, (instance((x, 10, 95, 30), 3), instance(BOX, 2)))
    sample = Sample.of(image, record)
    for one in (sample, mirror(sample), resize(sample, (613, 919))):
        targets = one.targets()
        assert targets.labels.tolist() == [2]
        assert len(targets.masks) == len(targets.boxes) == 1
        assert targets.outlines is not None
        assert len(targets.outlines) == 1
    assert len(sample.keep([0]).targets()) == 0
