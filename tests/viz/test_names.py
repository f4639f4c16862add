"""Names stand where they belong, or beside each other."""

from __future__ import annotations

import numpy as np
import pytest

from gcnet.viz.names import draw_frames, draw_names, place_names

FRAME = (1000, 600)


def placed(wanted: list[list[int]], sizes: list[list[int]] | None = None) -> np.ndarray:
    return place_names(np.array(wanted), np.array(sizes or [[100, 20]] * len(wanted)), FRAME)


def overlaps(places: np.ndarray, size: tuple[int, int] = (100, 20)) -> bool:
    apart = (np.abs(places[:, None] - places[None]) >= size).any(-1)
    return not apart[~np.eye(len(places), dtype=bool)].all()


def test_names_that_are_apart_stay() -> None:
    wanted = [[10, 10], [200, 10], [10, 40], [890, 570]]
    assert placed(wanted).tolist() == wanted


def test_names_come_into_the_frame() -> None:
    assert placed([[-30, -10], [950, 590], [400, -20]]).tolist() == [[0, 0], [900, 580], [400, 0]]
    assert placed([[50, 50]], [[1200, 700]]).tolist() == [[0, 0]]  # none that is larger: it begins there


def test_the_one_in_front_has_its_place() -> None:
    places = placed([[300, 300], [320, 305]])
    assert places[1].tolist() == [320, 305]
    assert not overlaps(places)
    assert np.abs(places[0] - [300, 300]).max() <= 40


def test_many_at_one_place_are_all_readable() -> None:
    places = placed([[500, 300]] * 40)
    assert not overlaps(places)
    assert placed([[0, 0]] * 500).shape == (500, 2)  # without room for all


@pytest.mark.parametrize("text", ["", "naïve", "Ω", "a b"])
def test_any_text_is_written(text: str) -> None:
    canvas = np.zeros((60, 200, 3), np.uint8)
    draw_names(canvas, np.array([[20, 40]]), [text], np.array([[0, 0, 250]], np.uint8))
    assert (canvas[40, 22:24] == [0, 0, 250]).all()  # the plate
    assert (canvas[:, :, 0] > 200).any() == bool(text)  # white on blue


def test_frames_of_those_in_front_are_on_top() -> None:
    canvas = np.zeros((50, 50, 3), np.uint8)
    boxes = np.array([[10, 10, 40, 40], [10, 10, 30, 30]])
    draw_frames(canvas, boxes, np.array([[255, 0, 0], [0, 255, 0]], np.uint8))
    assert canvas[10, 20].tolist() == [0, 255, 0]
    assert canvas[10, 35].tolist() == [255, 0, 0]
    assert canvas[9, 35].tolist() == canvas[11, 35].tolist() == [20, 20, 20]
    assert canvas[13, 35].tolist() == [0, 0, 0]
