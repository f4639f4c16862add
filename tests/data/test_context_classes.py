"""The puzzle: each class is one shape under one lamp or the other shape under the next."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gcnet.data.context_classes import CLASS_NAMES, class_of, write_context_classes
from gcnet.data.context_shapes import CUES, SHAPES, draw_scene
from gcnet.data.image_folder import load_image_folders
from gcnet.errors import GCNetError


def test_names_say_what_the_classes_are() -> None:
    for shape, shape_name in enumerate(SHAPES):
        for cue, cue_name in enumerate(CUES):
            assert f"{shape_name}-{cue_name}" in CLASS_NAMES[class_of(shape, cue)].split("+")


def test_no_sum_of_votes_solves_it() -> None:
    """If shape and lamp each add votes to the classes, a cycle of preferences would have to rise for ever.

    Under lamp c star votes must favour class c over c - 1 together with the lamp's, gear votes the other way
    round: the difference of the shapes' votes for (c, c - 1) is positive for every c, and sums to zero.
    """
    for cue in range(3):
        star, gear = class_of(0, cue), class_of(1, cue)
        assert star != gear
        assert (star - gear) % 3 == 1  # the same step of the cycle for every lamp


def test_one_shape_a_picture() -> None:
    for shape in range(2):
        scene = draw_scene((3, 1), cue=0, shape=shape, size=96)
        assert {label // len(CUES) for label in scene.labels} == {shape}
    mixed = [draw_scene((3, i), cue=0, size=96) for i in range(6)]
    assert any(len({label // len(CUES) for label in scene.labels}) == 2 for scene in mixed)


def test_an_image_folder_that_repeats(tmp_path: Path) -> None:
    roots = [write_context_classes(tmp_path / name, train=12, valid=6, size=96) for name in "ab"]
    splits = load_image_folders(roots[0])
    assert splits["train"].class_names == tuple(sorted(CLASS_NAMES))
    assert splits["train"].counts() == [4, 4, 4]
    assert splits["valid"].counts() == [2, 2, 2]
    files = [sorted(path for path in root.rglob("*.png")) for root in roots]
    assert [one.read_bytes() for one in files[0]] == [other.read_bytes() for other in files[1]]
    images = [splits["train"].read_image(i) for i in range(12)]
    assert not any(np.array_equal(a, b) for a, b in pairwise(images))


def test_numbers_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="96 pixels or more"):
        write_context_classes(tmp_path, size=20)
