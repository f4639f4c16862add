"""What flows between the parts."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from gcnet.types import Batch, Detections, Targets, stack_images


def detections(count: int, size: tuple[int, int] = (60, 80)) -> Detections:
    torch.manual_seed(0)
    corner = torch.rand(count, 2) * 30
    boxes = torch.cat([corner, corner + 20], dim=1)
    scores = torch.linspace(1, 0, count) if count else torch.zeros(0)
    return Detections(boxes, scores, torch.arange(count) % 3, torch.rand(count, 28, 28), size)


def test_scale_factors_keep_rounding_apart() -> None:
    batch = Batch(torch.zeros(1, 3, 800, 1088, dtype=torch.uint8), [(800, 1067)], [(480, 640)], [7])
    assert batch.scale_factors(0) == (1067 / 640, 800 / 480)
    assert len(batch) == 1
    assert batch.to("cpu").image_ids == [7]


def test_an_image_that_needed_no_resize_does_not_round_others() -> None:
    """By torchvision's rule resized images are floats."""
    whole, resized = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 100.7, np.float32)
    for images in ([whole, resized], [resized, whole]):
        assert sorted(stack_images(images)[:, 0, 0, 0].tolist()) == [100, pytest.approx(100.7)]
    assert stack_images([whole, whole]).dtype == torch.uint8


def test_targets_move_and_count() -> None:
    target = Targets(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), [[], []]).to("cpu")
    assert len(target) == 2
    outlines, frames = torch.zeros(2, 56, 56, dtype=torch.uint8), torch.zeros(2, 4)
    moved = Targets(target.boxes, target.labels, [[], []], outlines, frames).to("meta")
    assert moved.outlines is not None
    assert {moved.boxes.device.type, moved.outlines.device.type} == {"meta"}


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (np.int64(1), [1]),
        (slice(2), [0, 1]),
        (torch.tensor([3, 0]), [3, 0]),
        (torch.tensor([False, True, False, True, False]), [1, 3]),
    ],
    ids=["number", "slice", "indices", "mask"],
)
def test_selecting_detections(keep: object, expected: list[int]) -> None:
    found = detections(5)
    chosen = found[keep]
    assert len(chosen) == len(expected)
    for part in ("boxes", "scores", "labels", "mask_probs", "masks"):
        assert torch.equal(getattr(chosen, part), getattr(found, part)[expected]), part


def test_detections_one_by_one() -> None:
    for found in (detections(3), detections(3).arrays()):
        assert [one.labels.tolist() for one in found] == [[0], [1], [2]]
        assert [len(one) for one in found] == [1, 1, 1]


def test_masks_are_drawn_once() -> None:
    found = detections(3)
    assert found.masks.shape == (3, 60, 80)
    assert found.masks is found.masks


def test_rles_are_the_masks() -> None:
    from pycocotools import mask as coco_mask

    found = detections(4)
    decoded = [coco_mask.decode({**rle, "counts": rle["counts"].encode()}) for rle in found.rles()]
    assert torch.equal(torch.stack([torch.from_numpy(m).bool() for m in decoded]), found.masks)


def test_no_detections() -> None:
    found = detections(0)
    assert (len(found), found.rles(), found.masks.shape) == (0, [], (0, 60, 80))
    assert len(found[:5]) == 0


def test_rles_of_a_crowd_on_a_large_photograph() -> None:
    """Twenty masks of 24 megapixels would be half a gigabyte; not even one is drawn."""
    boxes = torch.tensor([[0.0, 0, 6000, 4000]]).repeat(20, 1)
    labels = torch.zeros(20, dtype=torch.int64)
    found = Detections(boxes, torch.ones(20), labels, torch.ones(20, 28, 28), (4000, 6000))
    tracemalloc.start()
    rles = found.rles()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rles) == 20
    assert peak < 4000 * 6000
