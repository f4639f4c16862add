"""A folder a split, a folder a class; what is wrong with them is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from image_folders import COLORS, write_folders, write_picture

from gcnet.data.image_folder import ImageFolder, load_image_folders
from gcnet.data.load import load_splits
from gcnet.errors import GCNetError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "photos")


def test_splits_classes_and_pictures(root: Path) -> None:
    write_picture(root / "train" / "red" / "deeper" / "x.JPG", COLORS["red"])
    (root / "train" / "red" / "notes.txt").write_text("no picture")
    (root / "train" / "red" / ".hidden.png").write_text("no picture")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "red" / "again").symlink_to(root / "train" / "red")
    splits = load_image_folders(root)
    assert list(splits) == ["train", "valid"]
    train = splits["train"]
    assert train.class_names == splits["valid"].class_names == ("blue", "green", "red")
    assert [image.label for image in train.records] == [0] * 4 + [1] * 4 + [2] * 5
    assert [train.name(i) for i in (0, 4, 12)] == ["blue/0.png", "green/0.png", "red/deeper/x.JPG"]
    assert train.read_image(8).shape == (40, 48, 3)
    assert train.read_image(8)[..., 0].mean() > 150  # red first: RGB
    assert len(splits["valid"]) == 6


def test_a_detector_s_data_names_what_takes_class_folders(root: Path) -> None:
    with pytest.raises(
        GCNetError, match=r"no JSON, .*; to name the class of whole images, train a classifier"
    ):
        load_splits(root)


def test_class_names_fix_the_labels(root: Path) -> None:
    found = ImageFolder.load(root / "val", class_names=["red", "blue", "green"])
    assert [image.label for image in found.records] == [0, 0, 1, 1, 2, 2]
    assert found.name(0) == "red/0.png"


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "val2012"])
def test_names_of_splits(root: Path, name: str) -> None:
    (root / "val").rename(root / name)
    assert load_image_folders(root)["valid"].source == root / name


def spoil(root: Path, how: str) -> None:
    if how == "empty class":
        (root / "train" / "cyan").mkdir()
    elif how == "class missing in val":
        shutil.rmtree(root / "val" / "green")
    elif how == "class missing in train":
        shutil.rmtree(root / "train" / "green")
    elif how == "two vals":
        (root / "valid").mkdir()
    elif how == "no classes":
        shutil.rmtree(root / "train")
        (root / "train").mkdir()
    elif how == "no splits":
        shutil.rmtree(root / "train")
        shutil.rmtree(root / "val")
    elif how == "no folder":
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty class", r"train/cyan is a class without images; add some"),
        ("class missing in val", r"val has no folder for class 'green'; add"),
        ("class missing in train", r"val/green is none of the classes \(blue, red\); add"),
        ("two vals", r"two valid splits, val and valid; keep one"),
        ("no classes", r"train has no class folders; put"),
        ("no splits", r"holds no data set; expected train/CLASS"),
        ("no folder", r"photos is not a folder; give"),
    ],
)
def test_what_is_wrong_is_one_line(root: Path, how: str, message: str) -> None:
    spoil(root, how)
    with pytest.raises(GCNetError, match=message) as raised:
        load_image_folders(root)
    assert "\n" not in str(raised.value)


def test_a_broken_picture_is_named_when_it_is_read(root: Path) -> None:
    (root / "val" / "green" / "0.png").write_bytes(b"no picture")
    with pytest.raises(GCNetError, match=r"green/0\.png is not an image"):
        load_image_folders(root)["valid"].read_image(2)
