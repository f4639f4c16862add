"""Counts, sizes and what comes of them where images are resized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from coco_files import annotation, content, write_split

from gcnet.data.load import load_splits
from gcnet.data.survey import Survey, survey


@pytest.fixture
def found(tmp_path: Path) -> Survey:
    """Images of 96 x 128: four to train on, one of them bare, one with a crowd; two to validate."""
    train = content([(96, 128)] * 4 + [(20, 128)])
    train["annotations"] = [
        annotation(1, 100, box=(0, 0, 64, 64)),
        annotation(2, 100, box=(0, 0, 16, 4), category_id=9),
        annotation(3, 101, box=(8, 8, 8, 8)),
        annotation(4, 102, iscrowd=1),
        annotation(5, 101, box=(8, 8, 0.5, 8), segmentation=[]),
        annotation(6, 104, segmentation=[]),
        annotation(7, 103, ignore=1),
    ]
    write_split(tmp_path / "train", train)
    write_split(tmp_path / "valid", content([(96, 128)] * 2))
    return survey(load_splits(tmp_path))


def test_objects_are_counted_by_class_and_split(found: Survey) -> None:
    assert found.class_names == ("cat", "dog")
    assert found.class_counts.tolist() == [[3, 2], [1, 0]]
    assert found.objects_an_image.tolist() == [2, 1, 0, 0, 1, 1, 1]
    assert found.image_sizes.tolist() == [[96, 128]] * 4 + [[20, 128]] + [[96, 128]] * 2


def test_what_training_leaves_out_is_counted(found: Survey) -> None:
    count = found.splits["train"]
    assert (count.images, count.trained_images, count.empty_images, count.small_images) == (5, 2, 2, 1)
    assert (count.objects, count.crowd, count.ignored) == (7, 1, 1)
    assert (count.unusable, count.without_outline) == (1, 2)
    assert found.splits["valid"].trained_images == 2


def test_sides_are_those_that_the_network_sees(found: Survey) -> None:
    assert found.objects.side[:3] == pytest.approx([64, 8, 8])
    assert found.objects.side_in((256, 192))[:3] == pytest.approx([128, 16, 16])
    # The flat image is held by its long side: 128 becomes 256 pixels, its object of 20 x 16 doubles.
    assert found.objects.side_in((256, 192))[3] == pytest.approx(2 * np.sqrt(20 * 16))
    by_size = {fit.limits: fit for fit in found.fits}
    assert by_size[256, 192].small == 0
    assert by_size[1333, 800].cost == pytest.approx(1)
    assert found.suggested is by_size[256, 192]


def test_small_objects_ask_for_larger_images(tmp_path: Path) -> None:
    values = content([(480, 640)] * 10)
    values["annotations"] = [annotation(i, 100 + i, box=(9, 9, 16, 16)) for i in range(10)]
    write_split(tmp_path / "train", values)
    fit = survey(load_splits(tmp_path)).suggested
    assert fit is not None
    assert fit.limits == (800, 600)
    assert fit.median == pytest.approx(20)


def test_no_objects_suggest_nothing(tmp_path: Path) -> None:
    write_split(tmp_path / "train", content([(64, 64)]) | {"annotations": []})
    found = survey(load_splits(tmp_path))
    assert found.suggested is None
    assert len(found.objects) == 0
    assert found.class_counts.tolist() == [[0], [0]]
