"""A set that comes in one is divided: by a seed, by groups, or as another run divided it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from coco_files import content, write_split

from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.divide import part_of
from gcnet.data.divide import write_split as write_parts
from gcnet.data.load import load_split, load_splits
from gcnet.engine.task import CLASSIFICATION
from gcnet.errors import GCNetError
from gcnet.recipe import ClassificationRecipe

SIZES = [(48, 64)] * 8


@pytest.fixture
def values() -> dict[str, Any]:
    made = content(SIZES)
    for number, image in enumerate(made["images"]):
        image["file_name"] = f"cow{number // 3}_{number}.png"
        image["farm"] = "north" if number < 4 else "south"
    return made


@pytest.fixture
def root(tmp_path: Path, values: dict[str, Any]) -> Path:
    write_split(tmp_path, values)
    return tmp_path


def names(root: Path, **options: Any) -> tuple[list[str], list[str]]:
    splits = load_splits(root, **options)
    return splits["train"].names(), splits["valid"].names()


def test_the_same_images_are_held_out_each_time(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, valid = names(root)
    assert (len(train), len(valid)) == (6, 2)
    assert sorted(train + valid) == [f"cow{i // 3}_{i}.png" for i in range(8)]
    assert "2 of its 8 images, drawn at random, are held out for validation" in caplog.text
    assert load_split(root, "valid").names() == valid
    assert list(load_splits(root, val_fraction=0)) == ["train"]


@pytest.mark.parametrize("fraction", [-0.1, 1, float("nan")])
def test_fractions_that_are_none(root: Path, fraction: float) -> None:
    for read in (load_splits, partial(load_split, split="valid")):
        with pytest.raises(GCNetError, match=r"val_fraction is .*; give 0 or more, less than 1"):
            read(root, val_fraction=fraction)


@pytest.mark.parametrize(("by", "key"), [("^cow[0-9]", "cow"), (r"(cow\d)_", "cow"), ("farm", "farm")])
def test_groups_stay_together(by: str, key: str, root: Path, values: dict[str, Any]) -> None:
    group = {image["file_name"]: image.get(key, image["file_name"][:4]) for image in values["images"]}
    train, valid = names(root, group_by=by, val_fraction=0.3)
    assert len(train) + len(valid) == 8
    assert {group[name] for name in train}.isdisjoint(group[name] for name in valid)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("hospital", "no field of the images .* such as cow0_0.png"),
        ("(", "no regular expression"),
        ("cow", "puts all images into one group"),
    ],
)
def test_groups_that_are_none(by: str, message: str, root: Path) -> None:
    with pytest.raises(GCNetError, match=message):
        load_splits(root, group_by=by)


def test_a_split_is_read_back(root: Path, values: dict[str, Any]) -> None:
    """As it was, with other images beside: those are trained on."""
    splits = load_splits(root, val_fraction=0.5)
    path = root / "run" / "split.json"
    path.parent.mkdir()
    write_parts(path, splits["train"], splits["valid"])
    valid = splits["valid"].names()
    assert json.loads(path.read_text())["valid"] == valid
    values["images"].append(values["images"][0] | {"id": 999, "file_name": "new.png"})
    write_split(root, values)
    train, again = names(root, split_file=str(path))
    assert again == valid
    assert len(train) == 5
    path.write_text('{"valid": ["elsewhere.png"]}')
    with pytest.raises(GCNetError, match=r"no image of .* is held out in"):
        names(root, split_file=str(path))
    path.write_text('{"train": []}')
    with pytest.raises(GCNetError, match='has no list "valid"'):
        names(root, split_file=str(path))


def test_a_split_file_for_data_that_is_divided_is_told(
    tmp_path: Path, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "valid"):
        write_split(tmp_path / split, values)
        (tmp_path / split / "cow").mkdir()
        (tmp_path / split / "cow" / "a.png").touch()
    file, of_classes = tmp_path / "split.json", CLASSIFICATION
    for read in (
        lambda: load_splits(tmp_path, split_file=str(file)),
        lambda: load_split(tmp_path, "valid", split_file=str(file)),
        lambda: of_classes.load_splits(tmp_path, None, ClassificationRecipe(split_file=str(file))),
        lambda: of_classes.load_split(tmp_path, None, "valid", ("cow",), split_file=str(file)),
    ):
        file.unlink(missing_ok=True)
        with pytest.raises(GCNetError, match=r"split\.json"):
            read()
        file.write_text('{"valid": []}')
        caplog.clear()
        read()
        assert f"has splits of its own: --split-file {file} is passed over" in caplog.text


def test_parts_of_a_seed_hold_each_other_and_groups_stay_together(tmp_path: Path) -> None:
    records = [ImageRecord(i, tmp_path / f"p{i // 4}_{i}.png", 9, 9, ()) for i in range(40)]
    whole = DataSet(tmp_path, records, ("a",), (0,))
    parts = [{record.id for record in part_of(whole, share, 3).records} for share in (0.25, 0.5, 1.0)]
    assert [len(part) for part in parts] == [10, 20, 40]
    assert parts[0] < parts[1] < parts[2]
    assert parts[0] != {record.id for record in part_of(whole, 0.25, 4).records}
    grouped = [record.id for record in part_of(whole, 0.25, 3, r"p\d").records]
    assert len(grouped) == 12
    assert all(sum(id // 4 == group for id in grouped) in (0, 4) for group in range(10))
    assert len(part_of(whole, 0.001, 0)) == 1
    with pytest.raises(GCNetError, match="--group-by patient matches no path of the images of"):
        part_of(whole, 0.25, 3, "patient")
