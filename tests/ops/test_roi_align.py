"""Sparse RoIAlign against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from gcnet.ops.roi_align import roi_align_sparse


def random_regions(count: int, largest: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 240 - 30  # some begin outside, some end there
    side = torch.rand(count, 2, generator=generator) ** 2 * largest
    image = torch.randint(0, 2, (count, 1), generator=generator).float()
    return torch.cat([image, corner, corner + side], dim=1)


@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize(("size", "scale"), [(7, 0.25), (14, 0.125), (1, 0.5)])
@pytest.mark.parametrize("largest", [3.0, 60.0, 400.0])
def test_equal_to_torchvision(size, scale, largest, samples):
    torch.manual_seed(0)
    feature = torch.randn(2, 16, 25, 33)
    regions = random_regions(60, largest, seed=size)
    expected = roi_align(feature, regions, size, scale, samples, aligned=True)
    for layout in (torch.contiguous_format, torch.channels_last):
        pooled = roi_align_sparse(
            feature.contiguous(memory_format=layout), regions, size=size, scale=scale, samples=samples
        )
        torch.testing.assert_close(pooled, expected, atol=2e-6, rtol=1e-5)


def test_regions_without_area_and_far_outside():
    feature = torch.rand(1, 4, 10, 12)
    regions = torch.tensor(
        [[0, 8, 8, 8, 8], [0, 9, 3, 2, 1], [0, 900, 900, 950, 960], [0, -99, -99, -60, -50]]
    )
    expected = roi_align(feature, regions.float(), 7, 0.25, 0, aligned=True)
    torch.testing.assert_close(roi_align_sparse(feature, regions.float(), size=7, scale=0.25), expected)
    assert not expected[2:].any()


def test_no_region_at_all():
    assert roi_align_sparse(torch.rand(1, 4, 10, 12), torch.zeros(0, 5), size=7, scale=0.25).shape == (
        0,
        4,
        7,
        7,
    )


@pytest.mark.parametrize("largest", [20.0, 400.0])
def test_gradient_is_that_of_torchvision(largest):
    torch.manual_seed(0)
    feature = torch.randn(2, 8, 25, 33, dtype=torch.float64)
    regions = random_regions(20, largest, seed=3).double()
    wanted = torch.randn(20, 8, 7, 7, dtype=torch.float64)
    gradients = []
    for pool in (
        lambda x: roi_align(x, regions, 7, 0.25, 0, aligned=True),
        lambda x: roi_align_sparse(x, regions, size=7, scale=0.25),
    ):
        leaf = feature.clone().requires_grad_()
        pool(leaf).backward(wanted)
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
