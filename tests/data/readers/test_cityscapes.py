"""Cityscapes' files of polygons, and those of other data in their form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_files import HEIGHT, WIDTH, image, write

from gcnet.data.load import load_splits
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import segmentation_to_mask

CLASSES = ("bicycle", "bus", "car", "motorcycle", "person", "rider", "train", "truck")


def square(x: int, y: int, side: int) -> list[list[int]]:
    """The outline of side x side pixels from x, y on: it goes through the last ones of a row."""
    return [[x, y], [x + side - 1, y], [x + side - 1, y + side], [x, y + side]]


def polygons(root: Path, objects: list[dict[str, Any]], name: str = "gtFine/train/ulm/a_gtFine") -> None:
    size = {"imgHeight": HEIGHT, "imgWidth": WIDTH}
    write(root / f"{name}_polygons.json", json.dumps({**size, "objects": objects}))


def test_what_is_seen_of_cityscapes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is deleted hides nothing, nor do license plates; groups of a class are one crowd."""
    objects = [
        {"label": "sky", "polygon": square(0, 0, 60)},
        {"label": "car", "polygon": square(0, 0, 20)},
        {"label": "person", "polygon": square(2, 2, 4)},
        {"label": "person", "polygon": square(10, 10, 20), "deleted": 1},
        {"label": "license plate", "polygon": square(0, 15, 3)},
        {"label": "cargroup", "polygon": square(40, 0, 10)},
        {"label": "cargroup", "polygon": square(60, 0, 10)},
        {"label": "caravan", "polygon": square(60, 5, 10)},
        {"label": "rider", "polygon": square(30, 30, 9)},
        {"label": "bicycle", "polygon": square(28, 28, 12)},
        {"label": "bus", "polygon": [[1, 2], [None, 3], [4, 4]]},
        {"label": "out of roi", "polygon": square(0, 0, 1)},
    ]
    image(tmp_path / "leftImg8bit" / "train" / "ulm" / "a_leftImg8bit.png")
    polygons(tmp_path, objects)
    dataset = load_splits(tmp_path)["train"]
    assert dataset.class_names == CLASSES
    car, person, group, bicycle = dataset.records[0].instances
    assert [dataset.class_names[one.label] for one in (car, person, group, bicycle)] == [
        *("car", "person", "car", "bicycle")
    ]
    assert [one.crowd for one in (car, person, group, bicycle)] == [False, False, True, False]
    seen = np.zeros((HEIGHT, WIDTH), np.uint8)
    seen[:20, :20] = 1
    seen[2:6, 2:6] = seen[0, 0] = 0
    np.testing.assert_array_equal(segmentation_to_mask(car.segmentation, (HEIGHT, WIDTH)), seen)
    assert (person.box, group.box, bicycle.box) == ((2, 2, 6, 6), (40, 0, 70, 10), (28, 28, 40, 40))
    assert group.area == 100 + 50
    assert "1 of 5 annotations have neither a box nor an outline" in caplog.text
    assert "first: id a_gtFine_polygons.json:11" in caplog.text


def test_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path / "leftImg8bit" / "train" / "ulm" / "a_leftImg8bit.png")
    polygons(tmp_path, [{"label": "car", "polygon": square(0, 0, 20)}])
    monkeypatch.chdir(tmp_path)
    assert load_splits(".")["train"].records[0].path.is_file()
    assert not caplog.text


def test_pixels_of_slanted_polygons(tmp_path: Path) -> None:
    """As in the published instanceIds.png: in each row those from crossing to crossing, rounded outwards."""
    image(tmp_path / "a_leftImg8bit.png")
    triangle, crossed = [[0, 0], [10, 0], [0, 10]], [[40, 0], [50, 20], [40, 20], [50, 0]]
    polygons(tmp_path, [{"label": "car", "polygon": points} for points in (triangle, crossed)], "a_gtFine")
    first, second = (
        segmentation_to_mask(one.segmentation, (HEIGHT, WIDTH))
        for one in load_splits(tmp_path)["train"].records[0].instances
    )
    assert first.sum(1).tolist() == [11 - row for row in range(10)] + [0] * (HEIGHT - 10)
    widths = [11, 9, 9, 7, 7, 5, 5, 3, 3, 1]
    assert second.sum(1).tolist() == [*widths, *reversed(widths)] + [0] * (HEIGHT - 20)


def test_classes_that_cityscapes_does_not_know(tmp_path: Path) -> None:
    """IDD's rickshaws are one beside Cityscapes' own; data of one's own has none of these."""
    for name, labels in (("idd", ("autorickshaw", "curb", "car")), ("own", ("crack", "road"))):
        image(tmp_path / name / "photos" / "a_leftImg8bit.jpg")
        objects = [{"label": label, "polygon": square(9 * i, 0, 9)} for i, label in enumerate(labels)]
        polygons(tmp_path / name, objects, "photos/a_gtFine")
    assert load_splits(tmp_path / "idd")["train"].class_names == tuple(sorted([*CLASSES, "autorickshaw"]))
    assert load_splits(tmp_path / "own")["train"].class_names == ("crack",)


def test_fine_polygons_come_before_coarse_ones(tmp_path: Path) -> None:
    """As the archives unpack, each into a folder; those of the test split have no objects."""
    for split, kind in (("train", "Fine"), ("test", "Fine"), ("train", "Coarse"), ("train_extra", "Coarse")):
        image(tmp_path / "leftImg8bit_trainvaltest" / "leftImg8bit" / split / "ulm" / "a_leftImg8bit.png")
        objects = [{"label": "car" if split == "train" else "ego vehicle", "polygon": square(0, 0, 20)}]
        polygons(tmp_path / f"gt{kind}_trainvaltest" / f"gt{kind}" / split / "ulm", objects, f"a_gt{kind}")
    splits = load_splits(tmp_path)
    assert {split: [len(record.instances) for record in part.records] for split, part in splits.items()} == {
        "train": [1],
        "test": [0],
    }


def test_images_of_cityscapes_that_lie_elsewhere(tmp_path: Path) -> None:
    polygons(tmp_path / "labels", [{"label": "car", "polygon": square(0, 0, 20)}], "a_gtFine")
    image(tmp_path / "photos" / "a_leftImg8bit.png")
    dataset = load_splits(tmp_path / "labels", images=tmp_path / "photos", val_fraction=0)["train"]
    assert len(dataset.records[0].instances) == 1


def test_polygons_of_a_huge_image_are_not_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "a_leftImg8bit.png")
    objects = [{"label": "car", "polygon": square(0, 0, 20)}]
    size = {"imgHeight": 40_000, "imgWidth": 40_000}
    write(tmp_path / "a_gtFine_polygons.json", json.dumps({**size, "objects": objects}))
    assert not load_splits(tmp_path)["train"].records[0].instances
    assert "1 of 1 annotations have neither a box nor an outline" in caplog.text
    write(
        tmp_path / "a_gtFine_polygons.json", json.dumps({"imgHeight": -1, "imgWidth": [], "objects": objects})
    )
    with pytest.raises(GCNetError, match="give its size in pixels"):
        load_splits(tmp_path)


def test_outlines_that_never_end_are_not_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "a_leftImg8bit.png")
    polygons(tmp_path, [{"label": "car", "polygon": [[0, 0], [79, 59]] * 50_000}], "a_gtFine")
    assert not load_splits(tmp_path)["train"].records[0].instances
    assert "1 of 1 annotations have neither a box nor an outline" in caplog.text


def test_hostile_polygons_of_cityscapes(tmp_path: Path) -> None:
    image(tmp_path / "a_leftImg8bit.png")
    far = [[-1e300, -1e300], [1e300, -1e300], [1e300, 1e300], [-1e300, 1e300]]
    wrong = [{"label": {}, "polygon": {}}, {}, 7, {"label": "car", "polygon": [[1, 2]]}, {"label": None}]
    polygons(tmp_path, [{"label": "car", "polygon": far}, *wrong], "a_gtFine")
    (car,) = load_splits(tmp_path)["train"].records[0].instances
    assert car.box == (0, 0, WIDTH, HEIGHT)
