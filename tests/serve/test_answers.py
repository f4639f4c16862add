"""Outlines of masks."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path

from gcnet.ops.rle import encode_masks
from gcnet.ops.segmentations import rle_to_mask
from gcnet.serve.answers import mask_outlines


@pytest.mark.parametrize(
    ("box", "size", "least"),
    [
        ((10.0, 10.0, 70.0, 50.0), (60, 80), 0.95),
        ((-20.0, 5.0, 40.0, 70.0), (60, 80), 0.95),  # leaves the image
        ((40.0, 80.0, 760.0, 560.0), (600, 800), 0.98),  # on a coarser grid than its pixels
        ((30.0, 30.0, 38.0, 37.0), (60, 80), 0.8),
    ],
)
def test_outlines_hold_the_mask_and_its_hole(
    box: tuple[float, ...], size: tuple[int, int], least: float
) -> None:
    y, x = np.mgrid[:28, :28] - 13.5
    radius = np.hypot(x, y)
    probs = np.float32(1) / (1 + np.exp(-(5.0 - np.abs(radius - 8.0)).astype(np.float32)))
    (counts,) = encode_masks(probs[None], np.array([box], np.float32), size)
    wanted = rle_to_mask({"size": list(size), "counts": counts})
    outlines = mask_outlines(probs, list(box), size)
    assert len(outlines) == 2
    middles = np.stack(np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5), -1).reshape(-1, 2)
    inside = [Path(np.reshape(one, (-1, 2))).contains_points(middles) for one in outlines]
    drawn = np.logical_xor(*inside).reshape(size)
    assert (drawn & (wanted > 0)).sum() / (drawn | (wanted > 0)).sum() > least


def test_a_mask_of_nothing_has_none() -> None:
    assert mask_outlines(np.zeros((28, 28), np.float32), [5.0, 5.0, 20.0, 20.0], (30, 30)) == []
    assert mask_outlines(np.ones((28, 28), np.float32), [5.0, 5.0, 5.0, 20.0], (30, 30)) == []
