"""Masks drawn into the image, against sampling the whole image as the reference does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gcnet.ops.masks import edges_at_once, paste_at_once, paste_masks
from gcnet.ops.rle import encode_edges, encode_masks

SIZE = (90, 120)


def full_image_probabilities(probs: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear samples at all pixel centres, nothing outside the grid: (D, H, W)."""
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    y = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    return F.grid_sample(probs[:, None], grid, align_corners=False)[:, 0]


def scattered(count: int) -> tuple[Tensor, Tensor]:
    """Grids of probabilities, and boxes inside, across and beyond the border of the image."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([140.0, 110]) - 20
    boxes = torch.cat([corner, corner + 0.5 + torch.rand(count, 2, generator=generator) ** 3 * 100], dim=1)
    return torch.rand(count, 28, 28, generator=generator), boxes


def test_equals_sampling_the_whole_image() -> None:
    probs, boxes = scattered(60)
    expected = full_image_probabilities(probs, boxes, SIZE)
    ours = paste_masks(probs, boxes, SIZE)
    different = ours != (expected >= 0.5)
    assert (expected[different] - 0.5).abs().sum() < 1e-5  # only ties may fall either way
    assert different.sum() <= 2
    assert 0.005 < ours.float().mean() < 0.5


def test_one_at_a_time_is_the_same() -> None:
    probs, boxes = scattered(10)
    together = paste_masks(probs, boxes, SIZE)
    assert all(
        torch.equal(paste_masks(probs[i : i + 1], boxes[i : i + 1], SIZE)[0], together[i]) for i in range(10)
    )


@pytest.mark.parametrize(
    "box",
    [[500.0, 500, 600, 600], [-80, -80, -10, -10], [30, 30, 30, 60], [30, 30, 60, 30], [50, 50, 40, 40]],
    ids=["beyond", "before", "no width", "no height", "inside out"],
)
def test_boxes_that_show_nothing(box: list[float]) -> None:
    assert not paste_masks(torch.ones(1, 28, 28), torch.tensor([box]).float(), SIZE).any()


def test_full_box_is_filled() -> None:
    (mask,) = paste_masks(torch.ones(1, 28, 28), torch.tensor([[10.0, 20, 50, 60]]), SIZE)
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[20:60, 10:50] = True
    # Bilinear sampling fades out over half a cell at the border: corner pixels fall below one half.
    assert (mask != expected).sum() <= 8
    assert not mask[~expected].any()


def test_no_detections() -> None:
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE).shape == (0, *SIZE)


def test_products_draw_what_sampling_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(20, 28, 28, generator=generator)
    corners = torch.rand(20, 2, generator=generator) * 60 - 5
    boxes = torch.cat([corners, corners + torch.rand(20, 2, generator=generator) * 50], dim=1)
    boxes[3, 2] = boxes[3, 0]  # empty
    at_once = paste_at_once(probs, boxes, SIZE, limit=3 * 4 * SIZE[0] * SIZE[1])
    drawn = paste_masks(probs, boxes, SIZE)
    assert (at_once != drawn).float().mean() < 1e-5
    assert drawn.any()
    assert not at_once[3].any()


def test_edges_at_once_are_those_of_run_length_encodings() -> None:
    """A grid of zeros and ones alone, so that no pixel is near the threshold."""
    probs, boxes = scattered(40)
    probs = F.interpolate(probs[:, None, ::7, ::7].round(), scale_factor=7)[:, 0]
    boxes[3, 2] = boxes[3, 0]  # empty
    boxes[4] = torch.tensor([-500.0, -500, 900, 900])  # columns full from top to bottom
    edges = edges_at_once(probs, boxes, SIZE, limit=3 * 4 * SIZE[0] * SIZE[1])
    ours = encode_edges(edges, SIZE)
    theirs = encode_masks(probs.numpy(), boxes.numpy(), SIZE)
    same = [ours[index] == theirs[index] for index in range(40)]
    assert sum(same) >= 38  # where a pixel's centre is just between two cells sums may differ
    assert same[3]
    assert same[4]
    assert edges_at_once(probs[:0], boxes[:0], SIZE) == []
