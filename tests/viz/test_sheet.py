from __future__ import annotations

import numpy as np
import pytest

from gcnet.viz import grid


def test_grid_places_images_side_by_side_on_white() -> None:
    red, gray = np.zeros((50, 50, 3), np.uint8), np.full((40, 80), 90, np.uint8)
    red[..., 0] = 255
    figure = grid([[red, gray], [gray, red]], titles=["left", "right"], cell=100, gap=10)
    assert figure.shape == (34 + 10 + 2 * 110, 10 + 2 * 110, 3)
    assert (figure[34 + 10 + 50, 10 + 50] == (255, 0, 0)).all()
    assert (figure[34 + 10 + 50, 120 + 50] == 90).all()
    assert (figure[-3] == 255).all()
    assert (figure[:34] < 128).any()  # the titles
    assert grid([[red]], cell=60, gap=0).shape == (60, 60, 3)


def test_captions_stand_over_each_image_of_ragged_rows() -> None:
    black = np.zeros((30, 60, 3), np.uint8)
    figure = grid([[black, black], [black]], captions=[["a", "b"], ["c"]], cell=(60, 30), gap=10)
    assert figure.shape == (2 * (34 + 10 + 30) + 10, 10 + 2 * 70, 3)
    assert (figure[44:74, 80:140] == 0).all()
    assert (figure[44 + 74 : 74 + 74, 10:70] == 0).all()
    assert (figure[74:118, 10:70] < 128).any()  # "c"
    assert (figure[74:, 75:] == 255).all()  # nothing beside it


@pytest.mark.filterwarnings("error")
def test_captions_of_any_script_stay_over_their_image() -> None:
    black = np.zeros((30, 60, 3), np.uint8)
    figure = grid(
        [[black, black]], captions=[["\u732b $1\nsecond line", "\udcff" + "w" * 40]], cell=(60, 30), gap=10
    )
    head = figure[: 34 + 22 + 10]
    assert (head[:40, 10:70] < 220).any()
    assert (head[40:, 10:70] < 220).any()
    assert (head[:, 80:140] < 220).any()
    assert (head[:, [*range(6), *range(74, 77), *range(144, 150)]] == 255).all()
