"""Labels of KITTI and of DOTA, a line for each object."""

from __future__ import annotations

from pathlib import Path

import pytest
from format_files import image, write

from gcnet.data.load import load_splits
from gcnet.errors import GCNetError

CAR = "Car 0.00 0 1.85 10 10 40.5 30 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"
FOOT = "Pedestrian 0 3 -1.65 50 10 60 30 -1 -1 -1 -1000 -1000 -1000 -10 0.9"
NOBODY = "DontCare -1 -1 -10 2 40 22 50 -1 -1 -1 -1000 -1000 -1000 -10"


def test_regions_of_kitti_that_nobody_annotated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is found there is no mistake, of whatever class; lines that are cut off are counted."""
    for name in ("000000", "000001", "000002"):
        image(tmp_path / "training" / "image_2" / f"{name}.png")
    write(tmp_path / "training" / "label_2" / "000000.txt", f"{NOBODY}\n{CAR}\n{FOOT}\nCar 0 1\n")
    write(tmp_path / "training" / "label_2" / "000001.txt", "")
    write(tmp_path / "training" / "label_2" / "notes.txt", "")
    dataset = load_splits(tmp_path / "training", val_fraction=0)["train"]
    assert dataset.class_names == ("Car", "Pedestrian")
    first, second = dataset.records
    assert [(one.label, one.box, one.ignore) for one in first.instances] == [
        (0, (10, 10, 40.5, 30), False),
        (1, (50, 10, 60, 30), False),
        (0, (2, 40, 22, 50), True),
        (1, (2, 40, 22, 50), True),
    ]
    assert second.instances == ()
    assert "1 of 5 objects have no class (first: 000000.txt:4); left out" in caplog.text


def test_of_the_whole_of_kitti_a_part_is_held_out(tmp_path: Path) -> None:
    """As of its folder `training`; other folders of that name are a split that somebody made."""
    for name in ("training/image_2/0", "training/image_2/1", "testing/image_2/0"):
        image(tmp_path / "kitti" / f"{name}.png")
    for name in ("0", "1"):
        write(tmp_path / "kitti" / "training" / "label_2" / f"{name}.txt", CAR)
    for root in ("kitti/training", "kitti", "."):
        splits = load_splits(tmp_path / root)
        assert {split: len(one) for split, one in splits.items()} == {"train": 1, "valid": 1}
    image(tmp_path / "tao" / "train" / "images" / "0.png")
    write(tmp_path / "tao" / "train" / "labels" / "0.txt", CAR)
    assert list(load_splits(tmp_path / "tao")) == ["train"]


def test_regions_times_classes_take_no_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "a.png")
    lines = [f"class{number}{CAR[3:]}" for number in range(600)] + [NOBODY] * 600
    write(tmp_path / "a.txt", "\n".join(lines))
    assert len(load_splits(tmp_path, val_fraction=0)["train"].records[0].instances) == 600
    assert "DontCare regions of so many classes are not ignored" in caplog.text


def test_a_folder_that_is_named_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "image_2" / "0.png")
    write(tmp_path / "label_2" / "0.txt", CAR)
    monkeypatch.chdir(tmp_path)
    assert len(load_splits(".", val_fraction=0)["train"].records[0].instances) == 1


def test_thousands_of_other_files_before_the_labels(tmp_path: Path) -> None:
    """KITTI has the calibration of each image in a folder before that of labels."""
    image(tmp_path / "image_2" / "000000.png")
    for number in range(1001):
        write(tmp_path / "calib" / f"{number:06}.txt", "P0: 7.215377e+02 0.000000e+00")
    write(tmp_path / "label_2" / "000000.txt", CAR)
    assert len(load_splits(tmp_path, val_fraction=0)["train"].records[0].instances) == 1


def test_images_that_lie_elsewhere(tmp_path: Path) -> None:
    """Labels do not say whether their images are JPEGs."""
    image(tmp_path / "photos" / "000000.png")
    write(tmp_path / "label_2" / "000000.txt", CAR)
    dataset = load_splits(tmp_path / "label_2", images=tmp_path / "photos", val_fraction=0)["train"]
    assert [record.path.name for record in dataset.records] == ["000000.png"]


def test_difficult_objects_of_dota_do_not_count(tmp_path: Path) -> None:
    square = "{0} {0} {1} {0} {1} {1} {0} {1}"
    lines = [f"{square.format(5, 25)} small-vehicle 1", f"{square.format(30.5, 40)} small-vehicle"]
    image(tmp_path / "images" / "P0000.png")
    label = tmp_path / "labelTxt-v1.0" / "labelTxt" / "P0000.txt"
    write(label, "\n".join(["imagesource:GoogleEarth", "gsd:0.14", *lines, "1 2 3 4 5 6 7 8"]))
    (record,) = load_splits(tmp_path, val_fraction=0)["train"].records
    assert [(one.box, one.ignore) for one in record.instances] == [
        ((5, 5, 25, 25), True),
        ((30.5, 30.5, 40, 40), False),
    ]
    write(tmp_path / "labelTxt-v1.5" / "P0000.txt", lines[0])
    with pytest.raises(GCNetError, match=r"P0000.txt and .*P0000.txt are both of .*P0000.png; keep one"):
        load_splits(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.1 0.1",
        "a.jpg 1,2,3,4,0",
        "1 2 3 4 5 6 7 8",
        "some words about 1 2 3 4 5 6 7 8 cars",
        CAR[:40],
    ],
)
def test_other_lines_are_no_labels_of_theirs(line: str, tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", f"{line}\n{CAR}\n")
    with pytest.raises(GCNetError, match="holds no data set"):
        load_splits(tmp_path)
