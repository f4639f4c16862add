"""Entries that are mended or left out, each kind told in one line; and those that are errors."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from coco_files import annotation, content, write_split

from gcnet.data.dataset import DataSet, Instance
from gcnet.data.detection import trainable
from gcnet.data.load import load_splits
from gcnet.data.readers.coco import CocoDataset
from gcnet.errors import GCNetError
from gcnet.recipe import Recipe

SIZES = [(48, 64), (64, 48)]
BOX = (10, 8, 30, 24)  # of the objects in `content`


@pytest.fixture
def values() -> dict[str, Any]:
    return content(SIZES)


def load(folder: Path, values: dict[str, Any]) -> CocoDataset:
    return CocoDataset.load(write_split(folder, values), folder)


def first(dataset: DataSet) -> Instance:
    return dataset.records[0].instances[0]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"image_id": 999}, "point at an image that is not listed (first: id 7, image id 999); left out"),
        ({"image_id": [100]}, "point at an image that is not listed (first: id 7, image id [100]); left out"),
        ({"category_id": 5}, "have a category that is not listed (first: id 7, category id 5); left out"),
        ({"category_id": None}, "have a category that is not listed (first: id 7, category id None)"),
        (
            {"bbox": [1, 2, 3], "segmentation": []},
            "have neither a box nor an outline (first: id 7); left out",
        ),
        ({"bbox": [float("inf")] * 4, "segmentation": []}, "have neither a box nor an outline (first: id 7)"),
    ],
)
def test_useless_annotations_are_left_out(
    change: dict[str, Any],
    kind: str,
    values: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    values["annotations"] += [annotation(7, 100) | change, annotation(8, 101) | change]
    dataset = load(tmp_path, values)
    assert [[item.id for item in record.instances] for record in dataset.records] == [[0], [1]]
    (message,) = caplog.messages
    assert message.startswith(f"{dataset.source}: 2 of 4 annotations {kind}")
    assert len(message) < 300


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"bbox": [5, 5, 0, 9], "segmentation": []}, "have an empty box or area"),
        ({"bbox": [5, 5, 9, 0.5], "segmentation": []}, "have an empty box or area"),
        ({"area": 0, "segmentation": []}, "have an empty box or area"),
        ({"bbox": [64, 5, 9, 9], "segmentation": []}, "have a box outside its image"),
        ({"bbox": [64 - 1e-6, 5, 9, 9], "segmentation": []}, "have a box outside its image"),
    ],
)
def test_degenerate_objects_count_but_are_not_trained_on(
    change: dict[str, Any],
    flaw: str,
    values: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    values["annotations"].append(annotation(7, 100) | change)
    record = load(tmp_path, values).records[0]
    assert [item.usable for item in record.instances] == [True, False]
    assert [item.id for item in record.objects(masks=False)] == [0]
    (message,) = caplog.messages
    assert f"1 of 3 annotations {flaw} (first: id 7); not trained on" in message


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"id": 1}, "have no id of their own"),
        ({"id": None}, "have no id of their own"),
        ({"bbox": None}, None),
        ({"bbox": []}, "have no box of 4 numbers"),
        ({"bbox": [float("inf"), 0, 1, 1]}, "have no box of 4 numbers"),
        ({"bbox": [8, 10, 16, 20]}, "have a box that is not their outline's"),  # x and y exchanged
        ({"bbox": [10, 8, 30, 24]}, "have a box that is not their outline's"),  # two corners
        ({"bbox": [0.15, 0.16, 0.31, 0.33]}, "have a box that is not their outline's"),  # shares of the image
        ({"bbox": [5, 5, 0, 9]}, "have a box that is not their outline's"),
        ({"segmentation": [[10, 8, 30, 8, 30, 24, 10, 24], [5, 5]]}, "have a part that is no outline"),
        ({"segmentation": [[10, 8, 30, 8, 30, 24, 10, 24], []]}, "have a part that is no outline"),
        ({"area": None}, None),
        ({"area": [320]}, None),
        ({"area": 0}, None),
        ({"area": "320"}, None),
        ({"iscrowd": "0"}, None),
        ({"iscrowd": False}, None),
        ({"image_id": 100.0, "category_id": 4.0, "id": 0.0}, None),
        ({"image_id": "100", "category_id": "4"}, None),
        ({"segmentation": [[[10, 8], [30, 8], [30, 24], [10, 24]]]}, None),
        ({"segmentation": [10, 8, 30, 8, 30, 24, 10, 24]}, None),
        ({"bbox": ["10", "8", "20", "16"]}, None),
    ],
)
def test_what_can_be_known_otherwise_is_taken_from_there(
    change: dict[str, Any],
    kind: str | None,
    values: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    values["annotations"][0] |= change
    item = first(load(tmp_path, values))
    assert (item.box, item.area, item.label, item.crowd, item.usable) == (BOX, 320, 0, False, True)
    assert len(item.segmentation) == 1
    assert len(caplog.messages) == (kind is not None)
    assert not kind or kind in caplog.messages[0]


def test_a_box_that_holds_more_than_its_outline_stays(values: dict[str, Any], tmp_path: Path) -> None:
    values["annotations"][0]["bbox"] = [0, 0, 60, 40]  # of a thing that is half hidden, say
    values["annotations"][1]["bbox"] = [11, 9, 19, 15]  # rounded
    dataset = load(tmp_path, values)
    assert first(dataset).box == (0, 0, 60, 40)
    assert dataset.records[1].instances[0].box == (11, 9, 30, 24)


def test_an_ignored_object_is_no_crowd(values: dict[str, Any], tmp_path: Path) -> None:
    values["annotations"][0]["ignore"] = 1
    dataset = load(tmp_path, values)
    assert first(dataset).ignore
    assert not first(dataset).crowd
    assert dataset.records[0].objects(masks=False) == []


def test_a_malformed_rle_is_an_error(values: dict[str, Any], tmp_path: Path) -> None:
    values["annotations"][0]["segmentation"] = {"size": [64, 48], "counts": [64 * 48]}
    with pytest.raises(GCNetError, match=r"annotation id 0: its RLE has size \[64, 48\]") as caught:
        load(tmp_path, values)
    assert str(tmp_path / "_annotations.coco.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_but_unlisted_categories_is_an_error(values: dict[str, Any], tmp_path: Path) -> None:
    for entry in values["annotations"]:
        entry["category_id"] = 77
    with pytest.raises(GCNetError, match=r"none of the 2 annotations is of a listed category .* id 77"):
        load(tmp_path, values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": []}, "has boxes but no outlines"),
        ({"iscrowd": 1}, "has only objects marked iscrowd, 2 of them, .* --crowd-as-objects true"),
        (
            {"ignore": 1},
            "has only objects marked `ignore`, difficult or iscrowd, 2 of them; take the mark off",
        ),
        ({"bbox": [0, 0, 0, 0], "segmentation": []}, "has no image with objects to learn from"),
    ],
)
def test_what_leaves_nothing_to_learn_from(
    change: dict[str, Any], message: str, values: dict[str, Any], tmp_path: Path
) -> None:
    for entry in values["annotations"]:
        entry |= change
    dataset = load(tmp_path, values)
    with pytest.raises(GCNetError, match=message):
        trainable(dataset, Recipe())


def test_crowds_can_be_taken_as_objects(values: dict[str, Any], tmp_path: Path) -> None:
    for entry in values["annotations"]:
        entry["iscrowd"] = 1
    write_split(tmp_path / "train", values)
    assert not first(load_splits(tmp_path, crowd_as_objects=True)["train"]).crowd


# File names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [r"images\0.png", r"..\train2017\0.png", "/home/x/0.png", "0.PNG", "some%20where/0%2Epng"]
)
def test_a_name_that_leads_nowhere_is_found_by_its_last_part(
    name: str, values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_split(tmp_path, values)
    path.write_text(path.read_text().replace('"0.png"', '"' + name.replace("\\", "\\\\") + '"'))
    assert CocoDataset.load(path, tmp_path).records[0].path == tmp_path / "0.png"
    (message,) = caplog.messages
    assert "1 of 2 images are not where their file_name says" in message
    (tmp_path / "other").mkdir()
    copy = shutil.copy(tmp_path / "0.png", tmp_path / "other")
    assert CocoDataset.load(path, tmp_path).records[0].path == tmp_path / "0.png"
    Path(copy).write_bytes(b"another image")
    with pytest.raises(GCNetError, match="does not exist"):  # as all bad images, told before a training
        CocoDataset.load(path, tmp_path).read_image(0)


def test_images_are_found_by_their_names_before_label_studio(values: dict[str, Any], tmp_path: Path) -> None:
    """It puts eight digits in front of what is uploaded, and keeps neither spaces nor brackets."""
    path = write_split(tmp_path, values)
    (tmp_path / "0.png").rename(tmp_path / "cat (1).png")
    path.write_text(path.read_text().replace('"0.png"', '"images/0a1b2c3d-cat_1.png"'))
    assert CocoDataset.load(path, tmp_path).records[0].path == tmp_path / "cat (1).png"


def test_a_size_that_is_not_said_is_the_images(values: dict[str, Any], tmp_path: Path) -> None:
    path = write_split(tmp_path, values)
    text = re.sub(r', "height": \d+, "width": \d+', "", path.read_text())
    path.write_text(text)
    sizes = [(record.height, record.width) for record in CocoDataset.load(path, tmp_path).records]
    assert sizes == SIZES


# Categories --------------------------------------------------------------------------------------------


def test_a_parent_of_the_same_name_goes_by_its_id(values: dict[str, Any], tmp_path: Path) -> None:
    values["categories"] = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 4, "name": "cat", "supercategory": "cat"},
    ]
    dataset = load(tmp_path, values)
    assert (dataset.class_names, dataset.category_ids) == (("cat",), (4,))
    assert first(dataset).label == 0


def test_categories_of_one_name_are_one_class(
    values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values["categories"] = [{"id": 4, "name": "cat"}, {"id": 5, "name": "cat"}, {"id": 4, "name": "cat"}]
    values["annotations"][1]["category_id"] = 5
    dataset = load(tmp_path, values)
    assert dataset.class_names == ("cat",)
    assert [record.instances[0].label for record in dataset.records] == [0, 0]
    assert "categories [4, 5] are all called cat" in caplog.text


@pytest.mark.parametrize("name", ["_background_", "background"])
def test_background_without_objects_is_no_class(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    values["categories"].append({"id": 0, "name": name, "supercategory": ["x"]})
    assert load(tmp_path, values).class_names == ("cat", "dog")


def test_an_id_of_two_names_is_an_error(values: dict[str, Any], tmp_path: Path) -> None:
    values["categories"].append({"id": 4, "name": "cow"})
    with pytest.raises(GCNetError, match="category id 4 occurs twice, as cat and cow"):
        load(tmp_path, values)
