from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import annotation, content, write_images, write_split
from PIL import Image

from gcnet.data.load import find_splits, load_splits
from gcnet.data.readers.coco import CocoDataset
from gcnet.errors import GCNetError

SIZES = [(48, 64), (64, 48)]


@pytest.fixture
def values() -> dict[str, Any]:
    return content(SIZES)


def load(folder: Path, values: dict[str, Any], **options: Any) -> CocoDataset:
    return CocoDataset.load(write_split(folder, values), folder, **options)


def test_reads_images_and_instances(values: dict[str, Any], tmp_path: Path) -> None:
    values["annotations"].append(annotation(7, 101, category_id=9, box=(-2, 4.5, 12, 10), area=99.5))
    dataset = load(tmp_path, values)
    assert len(dataset) == 2
    assert dataset.class_names == ("cat", "dog")  # in the order of their ids, gaps and all
    assert dataset.category_ids == (4, 9)
    record = dataset.records[1]
    assert (record.id, record.width, record.height) == (101, 48, 64)
    dog = record.instances[1]
    assert (dog.id, dog.label, dog.box, dog.area, dog.crowd) == (7, 1, (-2, 4.5, 10, 14.5), 99.5, False)
    assert isinstance(dog.segmentation, list)
    assert dog.segmentation[0].shape == (4, 2)
    assert dataset.read_image(1).shape == (64, 48, 3)


def test_reads_crowds_in_both_rle_forms(values: dict[str, Any], tmp_path: Path) -> None:
    counts = [48 * 10, 48 * 5, 48 * 49]
    plain = {"size": [48, 64], "counts": counts}
    values["annotations"].append(annotation(7, 100, iscrowd=1, segmentation=plain))
    crowd = load(tmp_path, values).records[0].instances[1]
    assert crowd.crowd
    compressed = crowd.segmentation | {"counts": crowd.segmentation["counts"].decode()}  # type: ignore
    values["annotations"][-1]["segmentation"] = compressed
    assert load(tmp_path, values).records[0].instances[1].segmentation == crowd.segmentation


def test_images_without_annotations_stay(values: dict[str, Any], tmp_path: Path) -> None:
    values["annotations"] = values["annotations"][:1]
    assert [len(record.instances) for record in load(tmp_path, values).records] == [1, 0]


def test_a_missing_area_is_measured(values: dict[str, Any], tmp_path: Path) -> None:
    del values["annotations"][0]["area"]
    assert load(tmp_path, values).records[0].instances[0].area == 20 * 16


# Malformed files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "is not JSON (Expecting value at line 1, column 13)"),
        ("", "is not JSON"),
        ("[]", 'no list of objects "images"'),
        ('{"images": [], "annotations": {}, "categories": []}', 'no list of objects "annotations"'),
        ('{"images": [], "annotations": [], "categories": ["a"]}', 'no list of objects "categories"'),
        ('{"images": [], "annotations": [], "categories": []}', "has no categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "lacks a whole-number id or a name"),
    ],
)
def test_a_file_that_is_no_coco_json(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(GCNetError, match=re.escape(message)) as caught:
        CocoDataset.load(path, tmp_path)
    assert str(path) in str(caught.value)


def test_a_binary_file_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(b"\xff\xd8\xff\xe0 picture")
    with pytest.raises(GCNetError, match="is not JSON"):
        CocoDataset.load(path, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 101}, "image id 101"),
        ({"width": 0}, "has width 0"),
        ({"height": None}, "height None"),
        ({"file_name": None}, "file_name"),
    ],
)
def test_a_malformed_image_entry_is_named(
    change: dict[str, Any], message: str, values: dict[str, Any], tmp_path: Path
) -> None:
    path = write_split(tmp_path, values)
    values["images"][0] |= change
    path.write_text(json.dumps(values))
    with pytest.raises(GCNetError, match=re.escape(message)):
        CocoDataset.load(path, tmp_path)


def test_missing_files_and_folders_are_named(values: dict[str, Any], tmp_path: Path) -> None:
    path = write_split(tmp_path, values)
    with pytest.raises(GCNetError, match="absent is not a folder"):
        CocoDataset.load(path, tmp_path / "absent")
    with pytest.raises(GCNetError, match=r"absent\.json cannot be read"):
        CocoDataset.load(tmp_path / "absent.json", tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(GCNetError, match=r"1\.png does not exist"):
        CocoDataset.load(path, tmp_path).read_image(1)
    (tmp_path / "0.png").unlink()
    with pytest.raises(GCNetError, match=r"2 of the 2 images .* are missing, first .*0\.png"):
        CocoDataset.load(path, tmp_path)


def test_an_image_of_another_size_is_named(values: dict[str, Any], tmp_path: Path) -> None:
    path = write_split(tmp_path, values)
    values["images"][0] |= {"width": 60}
    path.write_text(json.dumps(values))
    dataset = CocoDataset.load(path, tmp_path)
    with pytest.raises(GCNetError, match=r"0\.png is 64x48 pixels, but .*json says 60x48 for image id 100"):
        dataset.read_image(0)
    assert dataset.read_image(1).shape == (64, 48, 3)


def test_an_image_is_read_the_way_up_that_was_annotated(values: dict[str, Any], tmp_path: Path) -> None:
    """Stored lying, to be shown upright: tools annotate the one or the other."""
    values["images"] = [
        {"id": 100, "file_name": "a.jpg", "height": 48, "width": 64},
        {"id": 101, "file_name": "b.jpg", "height": 64, "width": 48},
    ]
    path = write_split(tmp_path, values)
    picture = Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))
    exif = picture.getexif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.jpg"):
        picture.save(tmp_path / name, exif=exif)
    dataset = CocoDataset.load(path, tmp_path)
    stored, shown = dataset.read_image(0), dataset.read_image(1)
    np.testing.assert_array_equal(np.rot90(stored, -1), shown)


def test_a_truncated_image_is_named(values: dict[str, Any], tmp_path: Path) -> None:
    dataset = load(tmp_path, values)
    file = tmp_path / "0.png"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(GCNetError, match=r"0\.png is a damaged image file"):
        dataset.read_image(0)


# Classes and splits ------------------------------------------------------------------------------------


def test_an_unannotated_parent_is_no_class(
    values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values["categories"] = [
        {"id": 0, "name": "animal", "supercategory": "none"},
        {"id": 4, "name": "cat", "supercategory": "animal"},
        {"id": 9, "name": "dog", "supercategory": "animal"},
    ]
    write_split(tmp_path / "train", values)
    assert load_splits(tmp_path)["train"].class_names == ("cat", "dog")
    (message,) = caplog.messages
    assert "animal" in message
    values["annotations"][0]["category_id"] = 0
    write_split(tmp_path / "train", values)
    assert load_splits(tmp_path)["train"].class_names == ("animal", "cat", "dog")


def test_a_class_that_is_its_own_parent_stays(values: dict[str, Any], tmp_path: Path) -> None:
    for category in values["categories"]:  # as COCO's person is
        category["supercategory"] = category["name"]
    assert load(tmp_path, values).class_names == ("cat", "dog")


def test_labels_follow_given_class_names(values: dict[str, Any], tmp_path: Path) -> None:
    dataset = load(tmp_path, values, class_names=("bird", "dog", "cat"))
    assert dataset.category_ids == (10, 9, 4)  # bird gets an id that the file does not use
    assert dataset.records[0].instances[0].label == 2
    with pytest.raises(GCNetError, match="category 'cat' has 2 annotations, but is not among the classes"):
        load(tmp_path, values, class_names=("dog",))


def test_splits_share_the_training_classes_by_name(values: dict[str, Any], tmp_path: Path) -> None:
    write_split(tmp_path / "train", values)
    values["categories"] = [{"id": 1, "name": "cat"}]
    for entry in values["annotations"]:
        entry["category_id"] = 1
    write_split(tmp_path / "valid", values)
    splits = load_splits(tmp_path)
    assert list(splits) == ["train", "valid"]
    assert splits["valid"].class_names == splits["train"].class_names == ("cat", "dog")
    assert splits["valid"].category_ids == (1, 2)
    assert splits["valid"].records[0].instances[0].label == 0


def test_a_category_missing_from_the_training_split(
    values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_split(tmp_path / "train", values)
    values["categories"].append({"id": 20, "name": "fox"})
    write_split(tmp_path / "valid", values)
    load_splits(tmp_path)  # listed, but without objects: harmless
    values["annotations"][0]["category_id"] = 20
    write_split(tmp_path / "valid", values)
    with pytest.raises(GCNetError, match=r"valid.*: category 'fox' has 1 annotations") as caught:
        load_splits(tmp_path)
    assert "training split" in str(caught.value)
    values["annotations"][0]["category_id"] = 9
    write_split(tmp_path / "valid", values)
    caplog.clear()
    load_splits(tmp_path)
    assert re.search(r"valid.*: it has objects of dog, but .*train.* has none", caplog.text)


def test_finds_cocos_own_layout(
    values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "annotations").mkdir()
    for name in ("train2017", "val2017", "test2017"):
        (tmp_path / "annotations" / f"instances_{name}.json").write_text(json.dumps(values))
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    write_images(tmp_path / "train2017", values)
    write_images(tmp_path / "images" / "val2017", values)
    splits = load_splits(tmp_path)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 2, "valid": 2}
    assert "instances_test2017.json: it is left out" in caplog.text


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_finds_one_folder_a_split(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    for folder in ("test", name, "train", "other"):
        write_split(tmp_path / folder, values)
    splits = find_splits(tmp_path)
    assert list(splits) == ["train", "valid", "test"]
    source = splits["valid"]()
    assert (source.path, source.image_dir) == (tmp_path / name / "_annotations.coco.json", tmp_path / name)


def test_files_of_several_splits_beside_those_of_one(values: dict[str, Any], tmp_path: Path) -> None:
    write_images(tmp_path / "images", values)
    (tmp_path / "annotations").mkdir()
    for name in ("train", "val", "test", "trainval", "trainvaltest"):
        (tmp_path / "annotations" / f"{name}.json").write_text(json.dumps(values))
    assert list(load_splits(tmp_path)) == ["train", "valid", "test"]


def test_of_several_files_of_no_split_one_has_to_be_given(values: dict[str, Any], tmp_path: Path) -> None:
    write_images(tmp_path / "images", values)
    for name in ("noon.json", "evening.json"):
        (tmp_path / name).write_text(json.dumps(values))
    with pytest.raises(GCNetError, match=r"evening.json: one of several COCO files, .*; give one as --data"):
        load_splits(tmp_path)
    assert len(load_splits(tmp_path / "noon.json", val_fraction=0)["train"]) == 2


def test_unusable_data_folders_are_errors(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="absent does not exist"):
        find_splits(tmp_path / "absent")
    with pytest.raises(GCNetError, match="holds no data set"):
        find_splits(tmp_path)
    write_split(tmp_path / "val", values)
    write_split(tmp_path / "valid", values)
    with pytest.raises(GCNetError, match="two valid splits"):
        find_splits(tmp_path)


def test_memory_holds_outlines_not_bitmaps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Many objects on a large image: what is kept does not grow with its area."""
    caplog.set_level(logging.WARNING)
    values = content([(4000, 6000)])
    values["annotations"] = [annotation(i, 100, box=(i, i, 3000, 2500)) for i in range(200)]
    (tmp_path / "0.png").touch()
    path = tmp_path / "_annotations.coco.json"
    path.write_text(json.dumps(values))
    (record,) = CocoDataset.load(path, tmp_path).records
    arrays = [polygon for instance in record.instances for polygon in instance.segmentation]
    assert sum(array.nbytes for array in arrays if isinstance(array, np.ndarray)) == 200 * 4 * 2 * 8
