"""Written in another format and read again: the same objects."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_files import annotation, content, write_split

from gcnet.data.load import load_splits
from gcnet.data.write import write_splits
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import mask_to_rle, segmentation_to_mask

SIZE = (48, 64)


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, Any]:
    """Of one part, of several, of a bitmap, a box alone, a crowd; two images of one name."""
    values = content([SIZE, SIZE])
    ring = np.zeros(SIZE, np.uint8)
    cv2.ellipse(ring, (30, 20), (20, 12), 15, 0, 360, 1, -1)
    rle = mask_to_rle(ring)
    parts = [[2, 2, 12, 2, 12, 12, 2, 12], [20, 30, 40, 30, 40, 44], [50, 5, 60, 5, 60, 15, 50, 15]]
    values["annotations"] += [
        annotation(11, 100, segmentation=rle | {"counts": rle["counts"].decode()}, bbox=None, area=None),
        annotation(12, 100, segmentation=parts, bbox=None, area=None, category_id=9),
        annotation(13, 101, segmentation=[]),
        annotation(14, 101, iscrowd=1),
    ]
    write_split(tmp_path / "in" / "train", values)
    splits = load_splits(tmp_path / "in")
    train = splits["train"]
    (tmp_path / "other").mkdir()
    (tmp_path / "in" / "train" / "1.png").rename(tmp_path / "other" / "0.png")
    records = [train.records[0], replace(train.records[1], path=tmp_path / "other" / "0.png")]
    return {"train": replace(train, records=records)}


def test_coco_and_back(splits: dict[str, Any], tmp_path: Path) -> None:
    write_splits(splits, tmp_path / "out", "coco")
    again = load_splits(tmp_path / "out")
    before, after = splits["train"], again["train"]
    assert (after.class_names, after.category_ids) == (before.class_names, before.category_ids)
    for old, new in zip(before.records, after.records, strict=True):
        assert (new.width, new.height) == (old.width, old.height)
        for one, other in zip(old.instances, new.instances, strict=True):
            assert replace(other, id=one.id, segmentation=[]) == replace(one, segmentation=[])
            same = (segmentation_to_mask(item.segmentation, SIZE) for item in (one, other))
            np.testing.assert_array_equal(*same)
    assert [record.path.name for record in after.records] == ["0.png", "0-1.png"]
    np.testing.assert_array_equal(before.read_image(1), after.read_image(1))


def test_yolo_and_back(splits: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_splits(splits, tmp_path / "out", "yolo")
    assert "1 objects are crowds or of no use" in caplog.text
    dataset = load_splits(tmp_path / "out")["train"]
    before = splits["train"]
    assert dataset.class_names == before.class_names
    written = sorted(dataset.records, key=lambda record: len(record.path.name))
    for old, new in zip(before.records, written, strict=True):
        kept = [item for item in old.instances if not item.crowd]
        for one, other in zip(kept, new.instances, strict=True):
            assert other.label == one.label
            np.testing.assert_allclose(other.box, one.box, atol=1e-4)
            a, b = (segmentation_to_mask(item.segmentation, SIZE) for item in (one, other))
            assert (a & b).sum() >= 0.97 * (a | b).sum()
            assert bool(other.segmentation) == bool(one.segmentation)


def test_the_number_of_a_second_name_is_no_other_image(splits: dict[str, Any], tmp_path: Path) -> None:
    first, second = splits["train"].records
    other = replace(first, id=102, path=shutil.copy(first.path, tmp_path / "0-2.png"))
    dataset = replace(splits["train"], records=[first, other, second])
    write_splits({"train": dataset}, tmp_path / "out", "coco")
    after = load_splits(tmp_path / "out")["train"]
    assert [record.path.name for record in after.records] == ["0.png", "0-2.png", "0-3.png"]


def test_an_image_whose_objects_could_not_be_read_is_not_copied(tmp_path: Path) -> None:
    """In YOLO's labels they are shares of its size."""
    (tmp_path / "classes.txt").write_text("cat")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(GCNetError, match=r"a\.jpg is not an image that can be read"):
        write_splits(load_splits(tmp_path), tmp_path / "out", "coco")


def test_nothing_is_overwritten(splits: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(GCNetError, match="is not empty"):
        write_splits(splits, tmp_path / "out", "coco")


def test_until_a_set_is_whole_there_is_none(
    splits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion that was killed is begun again; one that fails leaves the folder as it was."""
    (tmp_path / "out" / ".part" / "images").mkdir(parents=True)
    broken = replace(
        splits["train"], records=[replace(splits["train"].records[0], path=tmp_path / "gone.png")]
    )
    with pytest.raises(GCNetError, match="cannot copy"):
        write_splits(splits | {"valid": broken}, tmp_path / "out", "coco")
    assert not list((tmp_path / "out").iterdir())
    write_splits(splits, tmp_path / "out", "coco")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["annotations", "images"]
