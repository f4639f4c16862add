"""Intervals over images and seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gcnet.data.dataset import DataSet, ImageRecord, Instance
from gcnet.errors import GCNetError
from gcnet.lab.sureness import Difference, difference, read_boxes, score_runs, t95

IMAGES = 12


def dataset() -> DataSet[ImageRecord]:
    """One object of 40 x 40 in each image."""
    item = Instance(1, 0, (10.0, 10.0, 50.0, 50.0), [], 1600.0, crowd=False)
    records = [ImageRecord(id, Path(f"{id}.png"), 100, 100, (item,)) for id in range(IMAGES)]
    return DataSet(Path("x"), records, ("a",), (7,))


def results(path: Path, found: int, shift: float = 0.0) -> Path:
    """A `results.json` in which the objects of so many images are found, `shift` pixels off."""
    box = [10.0 + shift, 10.0, 40.0, 40.0]
    entries = [{"image_id": i, "category_id": 7, "bbox": box, "score": 0.9} for i in range(found)]
    path.write_text(json.dumps(entries))
    return path


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = results(tmp_path / "a.json", 3)
    assert [entry for one in read_boxes(path, dataset()) for entry in one.entries()] == json.loads(
        path.read_text()
    )


def test_images_and_classes_that_are_gone_since_are_named(tmp_path: Path) -> None:
    path, fewer = results(tmp_path / "a.json", 3), dataset()
    with pytest.raises(GCNetError, match=r"a\.json has the category id 7, which x has no more"):
        read_boxes(path, replace(fewer, category_ids=(8,)))
    del fewer.records[1]
    with pytest.raises(GCNetError, match=r"a\.json has the image id 1, which x has no more"):
        read_boxes(path, fewer)


def test_as_many_detections_count_as_were_found(tmp_path: Path) -> None:
    """The right one is the 120th of its image; COCO's own limit is 100."""
    wrong = {"image_id": 0, "category_id": 7, "bbox": [60.0, 60.0, 30.0, 30.0], "score": 0.9}
    right = {"image_id": 0, "category_id": 7, "bbox": [10.0, 10.0, 40.0, 40.0], "score": 0.1}
    (tmp_path / "a.json").write_text(json.dumps([wrong] * 119 + [right]))
    one = dataset()
    del one.records[1:]
    assert score_runs([tmp_path / "a.json"], one).seeds == pytest.approx((1 / 120,))


def test_seeds_that_are_far_apart_make_a_difference_less_sure(tmp_path: Path) -> None:
    many, few = results(tmp_path / "12.json", 12), results(tmp_path / "6.json", 6)
    middle = results(tmp_path / "9.json", 9)

    def between(one: list[Path], other: list[Path]) -> Difference:
        return difference(score_runs(one, dataset()), score_runs(other, dataset()))

    alone = between([many], [few])
    assert alone.seeds == 1
    assert 0.1 < alone.low < alone.value < alone.high
    alike = between([many] * 3, [few] * 3)
    apart = between([many, middle, many], [few, middle, few])
    assert alike.value > apart.value
    assert apart.high - apart.low > alike.high - alike.low > alone.high - alone.low
    same = between([many, few], [few, many])
    assert same.value == pytest.approx(0)
    assert same.low < -0.5 < 0.5 < same.high


def test_words() -> None:
    assert "better, +0.200 box AP" in Difference(0.2, 0.1, 0.3, 3).in_words("a", "none")
    assert "worse, -0.200 box AP" in Difference(-0.2, -0.3, -0.1, 3).in_words("a", "none")
    assert "not told apart, +0.200" in Difference(0.2, -0.1, 0.5, 1).in_words("a", "none")
    assert "of this seed" in Difference(0.2, -0.1, 0.5, 1).in_words("a", "none")


def test_students_t() -> None:
    """From tables."""
    known = {1: 12.706, 4: 2.776, 10: 2.228, 15: 2.131, 20: 2.086, 30: 2.042, 120: 1.980}
    assert np.allclose([t95(freedom) for freedom in known], list(known.values()), atol=0.005)
