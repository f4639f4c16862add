"""Tables as tutorials, tools and competitions write them: the same objects come out of all."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gcnet.data.check import check_images
from gcnet.data.load import load_splits
from gcnet.data.readers.run_lengths import read_runs
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import segmentation_to_mask

WIDTH, HEIGHT = 80, 60
CAT, DOG = (20.0, 10.0, 60.0, 40.0), (8.0, 6.0, 24.0, 18.0)


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 99, np.uint8))
    return path


def table(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*rows, ""]))
    return path


def objects(root: Path) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """The classes and boxes of each image of all splits, by name."""
    return {
        record.path.name: sorted((data.class_names[one.label], one.box) for one in record.instances)
        for data in load_splits(root).values()
        for record in data.records
    }


# A cat and a dog in a.jpg, a cat in b.jpg; c.jpg without objects where the format can say so.
TABLES = {
    "TensorFlow's": [
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        "a.jpg,80,60,cat,20,10,60,40",
        "a.jpg,80,60,dog,8,6,24,18",
        "filename,width,height,class,xmin,ymin,xmax,ymax",  # of two tables that were joined
        "b.jpg,80,60,cat,20,10,60,40",
    ],
    "keras-retinanet's": [
        "images/a.jpg,20,10,60,40,cat",
        "images/a.jpg,8,6,24,18,dog",
        "images/b.jpg,20,10,60,40,cat",
        "images/c.jpg,,,,,",
    ],
    "sizes after the class": [
        "a.jpg,20,10,60,40,cat,80,60",
        "a.jpg,8,6,24,18,dog,80,60",
        "b.jpg,20,10,60,40,cat,80,60",
    ],
    "sides, and an index of pandas": [
        ",image_name,bbox_x,bbox_y,bbox_width,bbox_height,class_id,class_name,image_width,image_height",
        "0,a.jpg,20,10,40,30,1,cat,80,60",
        "1,a.jpg,8,6,16,12,2,dog,80,60",
        "2,b.jpg,20,10,40,30,1,cat,80,60",
    ],
    "ids, boxes in one cell, no finding": [
        "image_id,width,height,bbox,label",
        'a,80,60,"[20, 10, 40, 30]",cat',
        'a,80,60,"[8.0, 6.0, 16.0, 12.0]",dog',
        'b,80,60,"[20, 10, 40, 30]",cat',
        "c,80,60,,",
    ],
    "shares of the sides, as Open Images": [
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf",
        "a,x,cat,1,0.25,0.75,0.1666666667,0.6666666667,0",
        "a,x,dog,1,0.1,0.3,0.1,0.3,0",
        "b,x,cat,1,0.25,0.75,0.1666666667,0.6666666667,0",
    ],
    "semicolons": [
        "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId",
        "a.jpg;80;60;20;10;60;40;cat",
        "a.jpg;80;60;8;6;24;18;dog",
        "b.jpg;80;60;20;10;60;40;cat",
    ],
    "LISA's": [
        "Filename;Annotation tag;Upper left corner X;Upper left corner Y;Lower right corner X;"
        "Lower right corner Y;Occluded,On another road;Origin file",
        "a.jpg;cat;20;10;60;40;0,0;v.avi",
        "a.jpg;dog;8;6;24;18;0,0;v.avi",
        "b.jpg;cat;20;10;60;40;0,0;v.avi",
    ],
    "names of their own": [
        "image_names,cell_type,xmin,xmax,ymin,ymax",
        "a.jpg,cat,20,60,10,40",
        "a.jpg,dog,8,24,6,18",
        "b.jpg,cat,20,60,10,40",
    ],
    "paths of another machine": [
        "path,x1,y1,x2,y2,label",
        r"C:\work\images\a.jpg,20,10,60,40,cat",
        r"C:\work\images\a.jpg,8,6,24,18,dog",
        r"C:\work\images\b.jpg,20,10,60,40,cat",
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_boxes(tmp_path: Path, name: str) -> None:
    for one in "abc":
        image(tmp_path / "images" / f"{one}.jpg")
    table(tmp_path / "annotations.csv", *TABLES[name])
    found = objects(tmp_path)
    expected = {"a.jpg": [("cat", CAT), ("dog", DOG)], "b.jpg": [("cat", CAT)]}
    if TABLES[name][-1].endswith(",,"):
        expected["c.jpg"] = []
    assert found.keys() == expected.keys()
    for file, own in found.items():
        assert [label for label, _ in own] == [label for label, _ in expected[file]]
        for (_, box), (_, right) in zip(own, expected[file], strict=True):
            assert box == pytest.approx(right, abs=1e-6)
    assert objects(tmp_path / "annotations.csv") == found


@pytest.mark.parametrize(
    ("tables", "folders", "splits"),
    [
        (
            ("data/train_labels.csv", "data/test_labels.csv"),
            ("images/train", "images/test"),
            {"train", "test"},
        ),
        (("train/_annotations.csv", "valid/_annotations.csv"), ("train", "valid"), {"train", "valid"}),
        (("boxes.csv", "boxes_test.csv"), ("images", "images"), {"train", "test"}),
        (("train.csv", "val.csv"), ("train", "val"), {"train", "valid"}),
    ],
)
def test_splits(tmp_path: Path, tables: tuple[str, str], folders: tuple[str, str], splits: set[str]) -> None:
    """Images of one name in folders of both splits are each read where they belong."""
    for place, (name, folder) in enumerate(zip(tables, folders, strict=True)):
        for one in (f"{place}.jpg", "same.jpg"):
            image(tmp_path / folder / one)
        rows = [f"{place}.jpg,20,10,60,40,cat", "same.jpg,20,10,60,40,cat"]
        table(tmp_path / name, "filename,xmin,ymin,xmax,ymax,class", *rows)
    found = load_splits(tmp_path)
    assert found.keys() == splits
    for data, folder, place in zip(found.values(), folders, ("0", "1"), strict=True):
        places = [record.path.relative_to(tmp_path).as_posix() for record in data.records]
        assert places == [f"{folder}/{place}.jpg", f"{folder}/same.jpg"]


def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "a.jpg")
    rows = ["a.jpg,20,10,60,40", "a.jpg,x,10,60,40", "a.jpg,60,10,60,40", "a.jpg,1", ",9,9,20,20", ",,,,"]
    table(tmp_path / "boxes.csv", "filename,xmin,ymin,xmax,ymax", *rows)
    data = load_splits(tmp_path, val_fraction=0)["train"]
    assert data.class_names == ("object",)
    assert [one.usable for one in data.records[0].instances] == [True, False]
    for line in (
        "2 of 5 rows are cut off or name no image (first: row 5); left out",
        "3 of 3 objects have no class (first: row 2); taken for object",
        "1 of 3 annotations have neither a box nor an outline (first: id row 3)",
        "1 of 3 annotations have an empty box or area (first: id row 4)",
    ):
        assert line in caplog.text


def test_corners_in_any_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As those of images that were mirrored, and their corners with them."""
    image(tmp_path / "a.jpg")
    rows = ["a.jpg,60,10,20,40,cat", "a.jpg,24,18,8,6,dog"]
    table(tmp_path / "b.csv", "filename,xmin,ymin,xmax,ymax,class", *rows)
    assert objects(tmp_path) == {"a.jpg": [("cat", CAT), ("dog", DOG)]}
    assert "2 of 2 boxes have their corners in another order" in caplog.text


def test_two_corners_in_one_cell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a corner and sides, which is the rule, the second box would leave its image."""
    image(tmp_path / "a.jpg")
    table(tmp_path / "b.csv", "image,boxes,label", 'a.jpg,"[8, 6, 24, 18]",dog', 'a.jpg,"(30 10 70 50)",cat')
    assert objects(tmp_path) == {"a.jpg": [("cat", (30, 10, 70, 50)), ("dog", DOG)]}
    assert "boxes are taken for two corners" in caplog.text


def runs(mask: np.ndarray, *, by_rows: bool = False) -> str:
    flat = np.concatenate([[0], (mask if by_rows else mask.T).ravel(), [0]])
    starts, ends = np.flatnonzero(np.diff(flat) == 1) + 1, np.flatnonzero(np.diff(flat) == -1) + 1
    return " ".join(f"{start} {end - start}" for start, end in zip(starts, ends, strict=True))


@pytest.mark.parametrize("by_rows", [False, True])
def test_run_lengths(tmp_path: Path, caplog: pytest.LogCaptureFixture, by_rows: bool) -> None:
    """Both orders of pixels, told apart by the masks; an image without any, and two damaged ones."""
    for name in "abc":
        image(tmp_path / "train" / f"{name}.jpg")
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc, bar = ((x - 40) ** 2 + (y - 30) ** 2 < 200).astype(int), (abs(x - 2 * y) < 5).astype(int)
    rows = [
        f"a,{runs(disc, by_rows=by_rows)},80,60,cat",
        f"a,{runs(bar, by_rows=by_rows)},80,60,dog",
        f"b,{runs(disc, by_rows=by_rows)},80,60,cat",
        *("a,1 9 5 9,80,60,cat", "a,4799 9,80,60,cat", "c,,80,60,"),
    ]
    table(tmp_path / "train.csv", "id,annotation,width,height,cell_type", *rows)
    data = load_splits(tmp_path)["train"]
    assert data.class_names == ("cat", "dog")
    found = [
        [segmentation_to_mask(one.segmentation, (HEIGHT, WIDTH)) for one in r.instances] for r in data.records
    ]
    assert list(map(len, found)) == [2, 1, 0]
    for mask, right in zip([*found[0], *found[1]], (disc, bar, disc), strict=True):
        np.testing.assert_array_equal(mask, right)
    assert "2 of 5 annotations have neither a box nor an outline (first: id row 5)" in caplog.text
    assert ("row by row" in caplog.text) == by_rows


@pytest.mark.parametrize(
    "text",
    ["1 9223372036854775807", "9223372036854775807 9", f"{10**20} 1", "1 -5", "0 3", "1 2 3", "", "1 9 5 9"],
)
def test_texts_that_are_no_runs(text: str, tmp_path: Path) -> None:
    assert read_runs(tmp_path, [text, "4798 3"], [(HEIGHT, WIDTH)] * 2)[0] == {}


def test_run_lengths_of_an_image_of_another_size(tmp_path: Path) -> None:
    """Before a training such images are named with both sizes; a mask of another size is none."""
    image(tmp_path / "train" / "a.jpg")
    table(tmp_path / "train.csv", "id,rle,width,height", "a,1 9,160,120", "a,1 9,160,120")
    splits = load_splits(tmp_path)
    assert not splits["train"].records[0].instances
    with pytest.raises(GCNetError, match=r"a\.jpg is 80x60 pixels, annotated as 160x120"):
        check_images(splits)


def test_long_run_lengths(tmp_path: Path) -> None:
    """A cell may be longer than what the csv module reads by itself."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((300, 400, 3), np.uint8))
    stripes = np.indices((300, 400)).sum(0) % 2
    table(tmp_path / "train.csv", "ImageId,EncodedPixels", f"a.png,{runs(stripes)}")
    (record,) = load_splits(tmp_path)["train"].records
    assert record.instances[0].area == 60_000


def test_groups_are_crowds(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    table(tmp_path / "b.csv", "ImageID,XMin,XMax,YMin,YMax,LabelName,IsGroupOf", "a,.1,.9,.1,.9,cat,1")
    (record,) = load_splits(tmp_path, val_fraction=0)["train"].records
    assert record.instances[0].crowd


def test_other_tables_are_not_read(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    for name, rows in {
        "classes.csv": ["cat,0", "dog,1"],
        "labels.csv": ["filename,label", "a.jpg,cat"],
        "no_rle.csv": ["ImageId,annotation", "a.jpg,good", "b.jpg,1"],
        "empty.csv": [],
    }.items():
        table(tmp_path / name, *rows)
    with pytest.raises(GCNetError, match="a table without columns of images and objects"):
        load_splits(tmp_path)


def test_which_of_several(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    for name in ("old.csv", "new.csv"):
        table(tmp_path / name, *TABLES["TensorFlow's"][:2])
    with pytest.raises(GCNetError, match=r"2 annotation files, new\.csv, old\.csv; give one as"):
        load_splits(tmp_path)
    assert objects(tmp_path / "new.csv") == {"a.jpg": [("cat", CAT)]}


def test_a_resized_image_is_noticed(tmp_path: Path) -> None:
    """The table's sizes go along, so that the look at images before a training can compare them."""
    image(tmp_path / "a.jpg")
    row = "a.jpg,160,120,cat,20,10,60,40"
    table(tmp_path / "a.csv", TABLES["TensorFlow's"][0], row)
    (record,) = load_splits(tmp_path, val_fraction=0)["train"].records
    assert (record.width, record.height) == (160, 120)


def test_ids_of_images_elsewhere(tmp_path: Path) -> None:
    """With --images, too, an id is found with the ending of its file."""
    cv2.imwrite(str(image(tmp_path / "photos" / "a.jpg").with_name("b.png")), np.zeros((9, 9, 3), np.uint8))
    path = table(tmp_path / "set" / "boxes.csv", "ImageId,xmin,ymin,xmax,ymax", "a,1,1,9,9", "b,1,1,9,9")
    with pytest.raises(GCNetError, match=r"2 of the 2 images .* are missing"):
        load_splits(path)
    splits = load_splits(path, images=tmp_path / "photos", val_fraction=0.5)
    assert {record.path.name for data in splits.values() for record in data.records} == {"a.jpg", "b.png"}


def test_via(tmp_path: Path) -> None:
    """VIA's CSV, of version 1 too, whose first column begins with a #."""
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    shape = {"name": "polygon", "all_points_x": [20, 60, 60, 20], "all_points_y": [10, 10, 40, 40]}
    cells = ["a.jpg", "99", "{}", "1", "0", json.dumps(shape), '{"class":"cat"}']
    lines = [
        "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes",
        ",".join('"{}"'.format(cell.replace('"', '""')) for cell in cells),
        'b.jpg,99,"{}",0,0,"{}","{}"',
    ]
    table(tmp_path / "via_region_data.csv", *lines)
    assert objects(tmp_path) == {"a.jpg": [("cat", CAT)], "b.jpg": []}
    longer = lines[1].replace("[20, 60, 60, 20]", str([20, 60, 60, *[20.0] * 30_000]))
    longer = longer.replace("[10, 10, 40, 40]", str([10, 10, 40, *[40.0] * 30_000]))  # a cell of 300 kB
    table(tmp_path / "via_region_data.csv", lines[0], longer, lines[2])
    assert objects(tmp_path) == {"a.jpg": [("cat", CAT)], "b.jpg": []}


@pytest.mark.parametrize("column", ["split", "set", "Subset"])
def test_a_column_says_the_splits(tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abc":
        image(tmp_path / "images" / f"{name}.jpg")
    rows = [
        f"{column},filename,class,xmin,ymin,xmax,ymax",
        "TRAIN,a.jpg,dog,20,10,60,40",
        "validation,b.jpg,cat,20,10,60,40",
        "TRAIN,a.jpg,cat,8,6,24,18",
        "UNASSIGNED,c.jpg,cat,8,6,24,18",
    ]
    path = table(tmp_path / "labels.csv", *rows)
    for place in (tmp_path, path):
        splits = load_splits(place)
        assert {split: dataset.names() for split, dataset in splits.items()} == {
            "train": ["images/a.jpg"],
            "valid": ["images/b.jpg"],
        }
        assert splits["valid"].class_names == ("cat", "dog")
        assert [one.id for one in splits["train"].records[0].instances] == ["row 2", "row 4"]
    assert "1 of 4 rows are of no split and not read (first: c.jpg)" in caplog.text
    table(path, rows[0], *(row.replace("validation", "fold 2") for row in rows[1:]))
    assert load_splits(tmp_path, val_fraction=0).keys() == {"train"}
    assert len(load_splits(tmp_path, val_fraction=0)["train"]) == 3


def test_a_row_cut_off_beside_a_column_of_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may end before the column of the images."""
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    rows = ["TRAIN,a.jpg,dog,20,10,60,40", "validation,b.jpg,dog,20,10,60,40", "UNASSIGNED"]
    table(tmp_path / "labels.csv", "split,filename,class,xmin,ymin,xmax,ymax", *rows)
    assert {split: len(data) for split, data in load_splits(tmp_path).items()} == {"train": 1, "valid": 1}
    assert "1 of 3 rows are of no split and not read (first: row 4)" in caplog.text
