"""Attention over a picture lies where the map says, on one scale where one is given."""

from __future__ import annotations

import numpy as np
import torch

from gcnet.viz import attention_overlay, mark_point


def test_attention_is_brightest_where_the_map_is_largest() -> None:
    attention = torch.zeros(6, 6)
    attention[1, 4] = 1
    drawn = attention_overlay(np.full((96, 96, 3), 100, np.uint8), attention)
    brightest = np.unravel_index(drawn.sum(-1).argmax(), (96, 96))
    assert np.hypot(brightest[0] - 24, brightest[1] - 72) < 8
    flat = attention_overlay(np.full((96, 96, 3), 100, np.uint8), torch.ones(6, 6))
    assert flat.max() < drawn.max() - 60


def test_attention_on_padding_is_cut_off() -> None:
    """A picture that fills the left half of what the network saw: the map's right half is padding."""
    attention = np.zeros((4, 8), np.float32)
    attention[2, 3] = 1
    drawn = attention_overlay(np.full((64, 64, 3), 50, np.uint8), attention, valid=(1.0, 0.5))
    brightest = np.unravel_index(drawn.sum(-1).argmax(), (64, 64))
    assert np.hypot(brightest[0] - 40, brightest[1] - 56) < 8


def test_a_common_peak_keeps_maps_comparable() -> None:
    image, attention = np.full((32, 32, 3), 100, np.uint8), np.zeros((8, 8), np.float32)
    attention[4, 4] = 1
    own = attention_overlay(image, attention / 2)
    assert np.array_equal(own, attention_overlay(image, attention))
    assert attention_overlay(image, attention / 2, peak=1.0).max() < own.max() - 30
    assert np.array_equal(
        attention_overlay(image, attention - 2 * (attention == 0), peak=1.0)[:4, :4], own[:4, :4]
    )


def test_marks_are_where_the_point_is() -> None:
    for level in (0, 128, 255):
        image = np.full((80, 120, 3), level, np.uint8)
        marked = mark_point(image, (0.25, 0.75))
        assert (image == level).all()
        rows, columns = np.nonzero((marked != level).any(-1))
        assert abs(rows.mean() - 59) < 1
        assert abs(columns.mean() - 30) < 1
        assert np.ptp(marked.astype(int)) > 100
    for corner in ((0.0, 0.0), (1.0, 1.0)):
        assert mark_point(np.zeros((5, 9), np.uint8), corner).shape == (5, 9, 3)
