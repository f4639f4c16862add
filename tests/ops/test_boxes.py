"""Geometry of boxes."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcnet.ops.boxes import MAX_LOG_RATIO, box_area, box_iou, clip_boxes, decode_boxes, encode_boxes

UNIT = (1.0, 1.0, 1.0, 1.0)


@st.composite
def boxes(draw: st.DrawFn, count: int | None = None, smallest: float = 0.0) -> Tensor:
    """(R, 4) boxes in a few hundred pixels, at least `smallest` wide and high."""
    number = count if count is not None else draw(st.integers(0, 6))
    corner, side = st.floats(-50, 300, width=32), st.floats(smallest, 200, width=32)
    rows = []
    for _ in range(number):
        x, y = draw(corner), draw(corner)
        rows.append([x, y, x + draw(side), y + draw(side)])
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


@settings(deadline=None)
@given(boxes(), boxes())
def test_iou_is_symmetric_and_bounded(a: Tensor, b: Tensor) -> None:
    iou = box_iou(a, b)
    assert iou.shape == (len(a), len(b))
    torch.testing.assert_close(iou, box_iou(b, a).T, atol=1e-5, rtol=1e-4)
    assert ((iou >= 0) & (iou <= 1 + 1e-4)).all()


@settings(deadline=None)
@given(boxes(smallest=1.0))
def test_iou_with_itself_is_one(a: Tensor) -> None:
    torch.testing.assert_close(box_iou(a, a).diagonal(), torch.ones(len(a)), atol=1e-3, rtol=0)


def test_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    b = torch.tensor([[5.0, 0, 15, 10], [20, 20, 30, 30], [5, 5, 5, 5]])
    assert box_iou(a, b).tolist() == [[torch.tensor(1 / 3).item(), 0, 0], [0, 0, 0]]


@settings(deadline=None)
@given(
    boxes(count=4, smallest=1.0), boxes(count=4, smallest=1.0), st.sampled_from([UNIT, (0.1, 0.1, 0.2, 0.2)])
)
def test_decoding_undoes_encoding(anchors: Tensor, wanted: Tensor, stds: tuple[float, ...]) -> None:
    grown = torch.log((wanted[:, 2:] - wanted[:, :2]) / (anchors[:, 2:] - anchors[:, :2])).abs().amax(1)
    deltas = encode_boxes(anchors, wanted, stds)
    error = (decode_boxes(anchors, deltas, stds) - wanted).abs().amax(1)
    assert (error[grown < MAX_LOG_RATIO - 1e-3] < 0.05).all()
    moved = (wanted[:, :2] + wanted[:, 2:]) / 2
    decoded = decode_boxes(anchors, deltas, stds)  # where the growth is clamped, the centre still fits
    torch.testing.assert_close((decoded[:, :2] + decoded[:, 2:]) / 2, moved, atol=0.05, rtol=1e-4)


def test_growth_is_clamped_both_ways() -> None:
    anchors = torch.tensor([[0.0, 0, 16, 16]]).expand(2, 4)
    deltas = torch.tensor([[0.0, 0, 100, 100], [0, 0, -100, -100]])
    decoded = decode_boxes(anchors, deltas, UNIT)
    sides = decoded[:, 2] - decoded[:, 0]
    assert math.isclose(sides[0].item(), 1000, rel_tol=1e-5)
    assert math.isclose(sides[1].item(), 16 * 16 / 1000, rel_tol=1e-5)


@settings(deadline=None)
@given(boxes(), st.integers(1, 300), st.integers(1, 300))
def test_clipped_boxes_lie_in_the_image(a: Tensor, height: int, width: int) -> None:
    clipped = clip_boxes(a, (height, width))
    assert (clipped >= 0).all()
    assert (clipped[:, 0::2] <= width).all()
    assert (clipped[:, 1::2] <= height).all()
    assert (clipped[:, 2:] >= clipped[:, :2]).all()
    assert torch.equal(clip_boxes(clipped, (height, width)), clipped)
    inside = (a >= 0).all(1) & (a[:, 2] <= width) & (a[:, 3] <= height)
    assert torch.equal(clipped[inside], a[inside])


def test_decoding_clips_and_keeps_leading_shape() -> None:
    anchors = torch.tensor([[[0.0, 0, 50, 50]], [[10, 10, 90, 90]]])
    decoded = decode_boxes(anchors, torch.full((2, 1, 4), 0.5), UNIT, (60, 70))
    assert decoded.shape == (2, 1, 4)
    assert decoded[..., 0::2].max() <= 70
    assert decoded[..., 1::2].max() <= 60


def test_nothing_in_nothing_out() -> None:
    none = torch.zeros(0, 4)
    assert box_iou(none, torch.zeros(3, 4)).shape == (0, 3)
    assert encode_boxes(none, none, UNIT).shape == (0, 4)
    assert decode_boxes(none, none, UNIT, (5, 5)).shape == (0, 4)
    assert box_area(none).shape == (0,)
