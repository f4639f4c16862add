"""The box convention of mmdetection 1.x, against its formulas written down with its inclusive boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from gcnet.models.coordinates import resize_inclusive
from gcnet.models.pooler import pool_regions, region_levels, with_images
from gcnet.models.postprocess import to_original
from gcnet.models.rpn import level_anchors
from gcnet.models.spec import RPNSpec
from gcnet.ops.boxes import box_iou, decode_boxes, encode_boxes
from gcnet.types import Batch, Detections

LAST = torch.tensor([0.0, 0, 1, 1])
STDS = (0.1, 0.1, 0.2, 0.2)


def boxes(count: int, seed: int = 0) -> Tensor:
    """Boxes of ours well inside 200 x 200."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100 + 10
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * 70], dim=1)


@pytest.mark.parametrize("stride", [4, 8, 16, 32, 64])
def test_anchors(stride: int) -> None:
    expected = []
    for row in range(2):
        for column in range(3):
            for ratio in (0.5, 1.0, 2.0):
                width, height = stride * 8 / math.sqrt(ratio), stride * 8 * math.sqrt(ratio)
                middle = (stride - 1) / 2
                x1, x2 = middle - (width - 1) / 2, middle + (width - 1) / 2
                y1, y2 = middle - (height - 1) / 2, middle + (height - 1) / 2
                inclusive = np.round([x1, y1, x2, y2])
                expected.append(inclusive + np.array([column, row, column, row]) * stride)
    anchors = level_anchors((2, 3), stride, RPNSpec(), torch.device("cpu"), coordinates="inclusive")
    assert torch.equal(anchors - LAST, torch.tensor(np.array(expected), dtype=torch.float32))


def test_coding_is_the_same_in_both_conventions() -> None:
    anchors, objects = boxes(50), boxes(50, seed=1)
    a, g = anchors - LAST, objects - LAST  # inclusive
    size, wanted = a[:, 2:] - a[:, :2] + 1, g[:, 2:] - g[:, :2] + 1
    shift = ((g[:, :2] + g[:, 2:]) / 2 - (a[:, :2] + a[:, 2:]) / 2) / size
    deltas = torch.cat([shift, torch.log(wanted / size)], dim=1) / torch.tensor(STDS)
    torch.testing.assert_close(encode_boxes(anchors, objects, STDS), deltas)

    deltas = torch.randn(50, 4, generator=torch.Generator().manual_seed(2))
    scaled = deltas * torch.tensor(STDS)
    centre = (a[:, :2] + a[:, 2:]) / 2 + size * scaled[:, :2]
    half = size * scaled[:, 2:].exp() / 2
    inclusive = torch.cat([centre - half + 0.5, centre + half - 0.5], dim=1).clamp(0, 199)
    decoded = decode_boxes(anchors, deltas, STDS, (200, 200))
    torch.testing.assert_close(decoded - LAST, inclusive, atol=2e-5, rtol=1e-5)


def test_overlap_and_suppression_are_the_same() -> None:
    ours = boxes(80)
    a = ours - LAST
    width_height = torch.minimum(a[:, None, 2:], a[None, :, 2:]) - torch.maximum(
        a[:, None, :2], a[None, :, :2]
    )
    overlap = (width_height + 1).clamp(min=0).prod(dim=2)
    area = (a[:, 2:] - a[:, :2] + 1).prod(dim=1)
    iou = overlap / (area[:, None] + area[None] - overlap)
    torch.testing.assert_close(box_iou(ours, ours), iou, atol=1e-5, rtol=1e-4)
    scores = torch.rand(80, generator=torch.Generator().manual_seed(3))
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        if all(iou[index, other] <= 0.5 for other in kept):
            kept.append(index)
    assert nms(ours, scores, 0.5).tolist() == kept


def test_levels_are_the_same() -> None:
    ours = torch.cat([boxes(40), boxes(40, seed=4) * 8])
    a = ours - LAST
    scale = ((a[:, 2] - a[:, 0] + 1) * (a[:, 3] - a[:, 1] + 1)).sqrt()
    expected = torch.floor(torch.log2(scale / 56 + 1e-6)).clamp(0, 3).long()
    assert torch.equal(region_levels(ours, 4, 56.0), expected)


def old_roi_align(feature: Tensor, inclusive: Tensor, stride: int, size: int) -> Tensor:
    """One region of one map, point by point: two by two points a cell, a pixel's value at its corner."""
    channels, height, width = feature.shape
    x1, y1, x2, y2 = inclusive.tolist()
    left, top = x1 / stride, y1 / stride
    cell_w = max((x2 + 1) / stride - left, 0) / size
    cell_h = max((y2 + 1) / stride - top, 0) / size
    out = torch.zeros(channels, size, size, dtype=torch.float64)
    for row in range(size):
        for column in range(size):
            for i in range(2):
                for j in range(2):
                    y, x = top + (row + (i + 0.5) / 2) * cell_h, left + (column + (j + 0.5) / 2) * cell_w
                    if y < -1 or y > height or x < -1 or x > width:
                        continue
                    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                    y0, x0 = min(int(y), height - 2), min(int(x), width - 2)
                    v, u = y - y0, x - x0
                    out[:, row, column] += (
                        feature[:, y0, x0] * (1 - v) * (1 - u)
                        + feature[:, y0, x0 + 1] * (1 - v) * u
                        + feature[:, y0 + 1, x0] * v * (1 - u)
                        + feature[:, y0 + 1, x0 + 1] * v * u
                    ) / 4
    return out


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_pooling(stride: int) -> None:
    """Also for boxes of a pixel or two, which torchvision's own `aligned=False` would blow up to a cell."""
    side = 256 // stride
    feature = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    tiny = torch.tensor([[30.0, 40, 31, 42], [0, 0, 256, 256], [200, 220, 256, 256]])
    ours = torch.cat([boxes(6), tiny]).double()
    pooled = pool_regions(
        [feature], with_images([ours]), strides=[stride], size=7, finest_scale=56.0, coordinates="inclusive"
    )
    for box, values in zip(ours, pooled, strict=True):
        expected = old_roi_align(feature[0], box - LAST.double(), stride, 7)
        torch.testing.assert_close(values, expected)


def test_boxes_of_the_picture_as_given() -> None:
    """It was the last pixel that was divided by the resize factor; boxes stay within the picture."""
    found = torch.tensor([[20.0, 10, 61, 81], [100, 100, 200, 160]])
    labels = torch.zeros(2, dtype=torch.int64)
    detections = Detections(found, torch.ones(2), labels, torch.zeros(2, 28, 28), (160, 200))
    batch = Batch(torch.zeros(1, 3, 160, 224, dtype=torch.uint8), [(160, 200)], [(80, 100)], [0])
    old = to_original(detections, batch, 0, coordinates="inclusive").boxes
    assert old.tolist() == [[10, 5, 31, 41], [50, 50, 100, 80]]
    assert to_original(detections, batch, 0).boxes.tolist() == [[10, 5, 30.5, 40.5], [50, 50, 100, 80]]
    torch.testing.assert_close(resize_inclusive(resize_inclusive(found, 0.3, 0.7), 1 / 0.3, 1 / 0.7), found)
