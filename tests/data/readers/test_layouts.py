"""What lies in data sets beside what is usual: each is read right, or what is not read is said."""

from __future__ import annotations

import json
import re
import struct
import time
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from gcnet.data.check import check_images
from gcnet.data.dataset import name_splits
from gcnet.data.load import load_splits
from gcnet.errors import GCNetError
from gcnet.lab.data_look import notes_of_readers
from gcnet.ops.segmentations import segmentation_to_mask

WIDTH, HEIGHT = 80, 60
YOLO_BOX = "0.5 0.5 0.25 0.5"  # 30, 15 to 50, 45


def image(path: Path, shade: int = 99) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), shade, np.uint8))
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def coco(path: Path, names: Sequence[str], **more: object) -> Path:
    """A COCO file of images with a cat each."""
    images = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
    cat = {"category_id": 1, "bbox": [5, 5, 40, 40], "segmentation": [[5, 5, 45, 5, 45, 45]]}
    annotations = [{"id": i, "image_id": i, **cat} for i in range(len(names))]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    return write(path, json.dumps(content | more))


def labelme(path: Path, name: str, label: str = "cat") -> Path:
    shape = {"label": label, "points": [[5, 5], [45, 5], [45, 45]], "shape_type": "polygon"}
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return write(path, json.dumps({"shapes": [shape], "imagePath": name, **size}))


def voc(path: Path, name: str, objects: str = "") -> Path:
    box = "<bndbox><xmin>6</xmin><ymin>6</ymin><xmax>45</xmax><ymax>45</ymax></bndbox>"
    objects = objects or f"<object><name>cat</name>{box}</object>"
    return write(path, f"<annotation><filename>{name}</filename>{objects}</annotation>")


def mask(path: Path, areas: dict[tuple[int, int, int, int], int], *, blur: bool = False) -> Path:
    """A mask with a value in each x1, y1, x2, y2."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for (x1, y1, x2, y2), value in areas.items():
        values[y1:y2, x1:x2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.GaussianBlur(values, (5, 5), 1.5) if blur else values)
    return path


def found(root: Path) -> dict[str, list[tuple[str, list[tuple[str, tuple[int, ...]]]]]]:
    """By split: the name of each image, and class and rounded box of each object in it."""
    return {
        split: [
            (
                record.path.name,
                [
                    (dataset.class_names[one.label], tuple(round(side) for side in one.box))
                    for one in sorted(record.instances, key=lambda one: one.box)
                ],
            )
            for record in sorted(dataset.records, key=lambda record: str(record.path))
        ]
        for split, dataset in load_splits(root, val_fraction=0).items()
    }


# Splits ------------------------------------------------------------------------------------------------

HEAD = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
HUGE = b"\x89PNG\r\n\x1a\n\0\0\0\r" + HEAD + struct.pack(">I", zlib.crc32(HEAD)) + b"\0\0\0\0IDAT"
TWO = {(5, 5, 25, 25): 255, (40, 30, 70, 50): 255}

# An annotation file of each format, with a box in an image called NAME.
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "NAME", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 40, 40]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
)
RECT = {"name": "rect", "x": 5, "y": 5, "width": 40, "height": 40}
VIA = json.dumps({"_via_img_metadata": {"": {"filename": "NAME", "regions": [{"shape_attributes": RECT}]}}})
CVAT = (
    f'<annotations><image name="NAME" width="{WIDTH}" height="{HEIGHT}">'
    '<box label="cat" xtl="5" ytl="5" xbr="45" ybr="45"/></image></annotations>'
)
SIDES = {"x": 5, "y": 5, "width": 50, "height": 50, "rectanglelabels": ["cat"]}
REGION = {"original_width": WIDTH, "original_height": HEIGHT, "value": SIDES}
LABEL_STUDIO = json.dumps([{"data": {"image": "NAME"}, "annotations": [{"result": [REGION]}]}])
TABLE = "filename,xmin,ymin,xmax,ymax,class\nNAME,5,5,45,45,cat\n"
HUB = json.dumps({"file_name": "NAME", "objects": {"bbox": [[5, 5, 40, 40]], "category": ["cat"]}})


def test_words_that_begin_like_a_split() -> None:
    words = ["train2017", "TrainRGB", "val", "validacion", "test-dev", "stage1_train", "dev", "trainval"]
    named = [list(name_splits(Path(), [(word, 0)])) for word in words]
    assert named == [["train"], ["train"], ["valid"], ["valid"], ["test"], ["train"], ["valid"], ["all"]]
    assert name_splits(Path(), [("train", 0), ("val", 1), ("dev", 2)]) == {"train": 0, "valid": 1}
    for word in ("valve", "trainer", "trains", "values.json", "tester", "valley"):
        assert not name_splits(Path(), [(word, 0)])


def test_classes_that_are_called_like_a_split(tmp_path: Path) -> None:
    for name in ("car", "train", "bus"):
        image(tmp_path / name / f"{name}.jpg")
        labelme(tmp_path / name / f"{name}.json", f"{name}.jpg", name)
    assert [name for name, _ in found(tmp_path)["train"]] == ["bus.jpg", "car.jpg", "train.jpg"]


@pytest.mark.parametrize("kind", ["labelme", "masks", "yolo"])
def test_a_linked_folder_of_a_split(tmp_path: Path, kind: str) -> None:
    """And links in circles, and several to one folder, which are looked into once."""
    for split, folder in (("train", tmp_path / "set" / "train"), ("val", tmp_path / "elsewhere")):
        image(folder / f"{split}.jpg")
        if kind == "labelme":
            labelme(folder / f"{split}.json", f"{split}.jpg")
        elif kind == "masks":
            mask(folder / f"{split}_mask.png", {(5, 5, 45, 45): 255})
        else:
            write(folder / f"{split}.txt", f"0 {YOLO_BOX}\n")
    write(tmp_path / "set" / "classes.txt", "cat\n")
    (tmp_path / "set" / "val").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "set").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "train" / "above").symlink_to(tmp_path)
    names = {split: [name for name, _ in images] for split, images in found(tmp_path / "set").items()}
    assert names == {"train": ["train.jpg"], "valid": ["val.jpg"]}


def test_trainval_beside_its_val_and_test(tmp_path: Path) -> None:
    """No image is trained on and scored on, and the classes are not only those that the test has."""
    for name, label in zip("abcd", ("cat", "dog", "cat", "cat"), strict=True):
        image(tmp_path / "JPEGImages" / f"{name}.jpg")
        text = voc(tmp_path / "Annotations" / f"{name}.xml", f"{name}.jpg").read_text()
        write(tmp_path / "Annotations" / f"{name}.xml", text.replace("cat", label))
    for split, names in (("trainval", "a b c"), ("val", "c"), ("test", "d")):
        write(tmp_path / "ImageSets" / "Main" / f"{split}.txt", names.replace(" ", "\n"))
    splits = load_splits(tmp_path)
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 2, "valid": 1, "test": 1}
    assert len({record.path for dataset in splits.values() for record in dataset.records}) == 4
    assert splits["train"].class_names == ("cat", "dog")


def test_a_folder_beside_splits_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train", "val", "new"):
        image(tmp_path / name / f"{name}.jpg")
        labelme(tmp_path / name / f"{name}.json", f"{name}.jpg")
    assert found(tmp_path).keys() == {"train", "valid"}
    assert "1 of 3 files are in the folder of no split and not read (first: new/new.json)" in caplog.text


def test_the_outermost_folder_names_the_split(tmp_path: Path) -> None:
    for folder in ("train/clip_test", "train/train_batch1", "val/clip_test", "val"):
        name = folder.replace("/", "-")
        image(tmp_path / folder / f"{name}.jpg")
        labelme(tmp_path / folder / f"{name}.json", f"{name}.jpg")
    names = {split: [name for name, _ in images] for split, images in found(tmp_path).items()}
    assert names == {
        "train": ["train-clip_test.jpg", "train-train_batch1.jpg"],
        "valid": ["val-clip_test.jpg", "val.jpg"],
    }


def write_image(folder: Path, name: str, kind: str) -> None:
    """An image with a cat, annotated in a format."""
    image(folder / f"{name}.jpg")
    files = {"coco": "coco.json", "via": "via.json", "cvat": "annotations.xml", "hub": "metadata.jsonl"}
    files |= {"label studio": "export.json", "table": "_annotations.csv"}
    texts = {"coco": COCO, "via": VIA, "cvat": CVAT, "hub": HUB, "label studio": LABEL_STUDIO, "table": TABLE}
    if kind in files:
        write(folder / files[kind], texts[kind].replace("NAME", f"{name}.jpg"))
    elif kind == "labelme":
        labelme(folder / f"{name}.json", f"{name}.jpg")
    elif kind == "voc":
        voc(folder / f"{name}.xml", f"{name}.jpg")
    elif kind == "masks":
        mask(folder / f"{name}_mask.png", {(5, 5, 45, 45): 255})
    else:
        write(folder / f"{name}.txt", f"0 {YOLO_BOX}\n")
        write(folder.parent / "classes.txt", "cat\n")


KINDS = ("coco", "via", "cvat", "hub", "label studio", "table", "labelme", "voc", "masks", "yolo")


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ("train Validation test", {"train": "train", "valid": "Validation", "test": "test"}),
        ("trainval test", {"train": "trainval", "test": "test"}),
        ("val test", {"valid": "val", "test": "test"}),
        ("photos test", {"train": "photos", "test": "test"}),
        ("train other val", {"train": "train", "valid": "val"}),
        ("train eval", {"train": "train", "valid": "eval"}),
        ("training_data/train training_data/val", {"train": "train", "valid": "val"}),
        ("test_set/train test_set/val", {"train": "train", "valid": "val"}),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_folders_of_splits_are_the_same_in_all_formats(
    tmp_path: Path, kind: str, folders: str, splits: dict[str, str]
) -> None:
    for folder in folders.split():
        write_image(tmp_path / folder, Path(folder).name, kind)
    assert {split: Path(name).stem for split, [(name, _)] in found(tmp_path).items()} == splits


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("via", "cvat")])
def test_splits_of_folders_further_out(tmp_path: Path, kind: str) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / split / "photos", split, kind)
    assert found(tmp_path).keys() == {"train", "valid"}


def test_folders_in_that_of_one_split(tmp_path: Path) -> None:
    for clip in ("train_1", "train_2", "test"):
        image(tmp_path / "train" / clip / f"{clip}.jpg")
        labelme(tmp_path / "train" / clip / f"{clip}.json", f"{clip}.jpg")
    assert {split: len(images) for split, images in found(tmp_path).items()} == {"train": 3}


def test_files_of_cocos_other_tasks_and_hundreds_of_others(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(tmp_path / f"{split}2017" / "a.jpg")
        coco(tmp_path / "annotations" / f"instances_{split}2017.json", ["a.jpg"])
        for other in ("densepose", "lvis_v1"):
            coco(tmp_path / "annotations" / f"{other}_{split}2017.json", ["a.jpg"])
    for number in range(120):
        write(tmp_path / "annotations" / f"{number}.json", "{}")
    assert found(tmp_path).keys() == {"train", "valid"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("instances_default.json", "val_instances_default.json"),
        ("instances_train.json", "validation.json"),
        ("train.json", "dev.json"),
        ("train.json", "eval.json"),
    ],
)
def test_a_second_file_is_the_validation(tmp_path: Path, first: str, second: str) -> None:
    for name, file in (("a.jpg", first), ("b.jpg", second)):
        image(tmp_path / "images" / name)
        coco(tmp_path / "annotations" / file, [name])
    splits = found(tmp_path)
    assert {split: [name for name, _ in images] for split, images in splits.items()} == {
        "train": ["a.jpg"],
        "valid": ["b.jpg"],
    }


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("annotations/instances_{}.json", COCO),
        ("{}/via.json", VIA),
        ("{}.xml", CVAT),
        ("{}.json", LABEL_STUDIO),
        ("{}/metadata.jsonl", HUB),
    ],
    ids=["coco", "via", "cvat", "label studio", "hub"],
)
def test_a_file_of_no_split_is_named(
    place: str, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val", "extra"):
        image(tmp_path / split / f"{split}.jpg")
        write(tmp_path / place.format(split), text.replace("NAME", f"{split}.jpg"))
    assert {split: name for split, [(name, _)] in found(tmp_path).items()} == {
        "train": "train.jpg",
        "valid": "val.jpg",
    }
    assert re.search(f"not read.*{place.format('extra')}", caplog.text)


def test_a_data_set_in_a_folder_of_its_own(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(tmp_path / "My 12train 3val" / split / "a.jpg")
        coco(tmp_path / "My 12train 3val" / "annotations" / f"instances_{split}.json", ["a.jpg"])
    (tmp_path / "__MACOSX").mkdir()
    assert found(tmp_path).keys() == {"train", "valid"}


def test_a_data_set_in_a_project(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    project = tmp_path / "project"
    write(project / "requirements.txt", "numpy\n")
    image(project / "docs" / "figure.png")
    for split in ("train", "val"):
        image(project / "datasets" / "pets" / split / "a.jpg")
        coco(project / "datasets" / "pets" / f"{split}.json", ["a.jpg"])
    assert found(project) == found(project / "datasets" / "pets")
    assert caplog.messages == [f"{project / 'datasets' / 'pets'}: it is read, the only data set in {project}"]
    image(project / "datasets" / "birds" / "a.jpg")
    coco(project / "datasets" / "birds" / "a.json", ["a.jpg"])
    with pytest.raises(GCNetError, match="several data sets, datasets/birds, datasets/pets; give"):
        load_splits(project)


def test_data_in_another_format_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder of several data sets, of which one has files in places where they are looked for first."""
    write_image(tmp_path / "birds", "a", "voc")
    write_image(tmp_path / "pets", "b", "labelme")
    load_splits(tmp_path, val_fraction=0)
    assert f"{tmp_path}: data in other formats is not read: pets" in caplog.messages


def test_annotations_in_a_project_say_more_than_masks_beside_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train.py", "")
    image(tmp_path / "results" / "a.png")
    for split in ("train", "valid"):
        image(tmp_path / "dataset" / split / "a.jpg")
        image(tmp_path / "dataset" / f"{split}_mask" / "a.png")
        coco(tmp_path / "dataset" / split / "_annotations.coco.json", ["a.jpg"])
    assert found(tmp_path) == found(tmp_path / "dataset")
    assert caplog.messages == [f"{tmp_path / 'dataset'}: it is read, the only data set in {tmp_path}"]


def test_two_files_of_a_split_are_told_apart(tmp_path: Path) -> None:
    for name in ("train/first.json", "train/second.json", "valid/first.json"):
        image(tmp_path / name.replace(Path(name).name, "a.jpg"))
        coco(tmp_path / name, ["a.jpg"])
    with pytest.raises(GCNetError, match=r"has two train splits, train/first.json and train/second.json;"):
        load_splits(tmp_path)
    for name in ("trainval.json", "trainval1.json"):
        image(tmp_path / "whole" / "a.jpg")
        coco(tmp_path / "whole" / name, ["a.jpg"])
    with pytest.raises(
        GCNetError, match=r"two sets for training and validation, trainval.json and trainval1"
    ):
        load_splits(tmp_path / "whole")


def test_the_fault_of_a_data_set_in_a_project_is_told(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "hello")
    (tmp_path / "models").mkdir()
    for name in ("train1.json", "train2.json"):
        image(tmp_path / "data" / "a.jpg")
        coco(tmp_path / "data" / name, ["a.jpg"])
    with pytest.raises(GCNetError, match=r"data has two train splits, .*train1.json"):
        load_splits(tmp_path)


# Images ------------------------------------------------------------------------------------------------


def test_images_of_a_file_in_the_folder_of_a_project(tmp_path: Path) -> None:
    """Those of the data set's own folders are meant: another split has the same names."""
    for shade, split in enumerate(("test", "train")):
        image(tmp_path / "dataset" / split / "a.jpg", shade)
    coco(tmp_path / "dataset" / "annotations" / "instances_test.json", ["a.jpg"])
    write(tmp_path / "code" / "train.py", "")
    (record,) = load_splits(tmp_path, val_fraction=0)["train"].records
    assert record.path == tmp_path / "dataset" / "test" / "a.jpg"


def test_images_of_a_file_in_folders_called_like_splits(tmp_path: Path) -> None:
    """They were called two train splits, which no annotations were of."""
    for folder in ("TrainingImages", "TrainingImagesSet2"):
        image(tmp_path / folder / "a.jpg")
    coco(tmp_path / "instances_default.json", ["a.jpg"])
    with pytest.raises(GCNetError, match="no image folder for it; say where the images are with --images"):
        load_splits(tmp_path)
    assert load_splits(tmp_path, images=tmp_path / "TrainingImages", val_fraction=0)["train"].records


def test_a_class_that_only_a_later_split_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No file lists the classes of such a format: of a rare one all objects may lie in one split."""
    for split, label in (("train", "cat"), ("valid", "ant"), ("valid", "cat")):
        image(tmp_path / split / f"{label}.jpg")
        labelme(tmp_path / split / f"{label}.json", f"{label}.jpg", label)
    splits = load_splits(tmp_path)
    assert splits["train"].class_names == splits["valid"].class_names == ("ant", "cat")
    assert "valid: it has objects of ant, but" in caplog.text
    (tmp_path / "valid" / "cat.json").unlink()  # all have another name: is it another class?
    with pytest.raises(
        GCNetError, match=r"'ant' has 1 .* not among the classes \(cat\); give it one of their"
    ):
        load_splits(tmp_path)


def test_of_renamed_files_each_keeps_its_own_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, inside in (("1", "1.jpg"), ("2", "1.jpg"), ("3", "gone.jpg"), ("4", "4.xml")):
        image(tmp_path / f"{name}.jpg")
        voc(tmp_path / f"{name}.xml", inside)
    assert [name for name, _ in found(tmp_path)["train"]] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert "1 of 4 files name the image of another (first: 2.xml)" in caplog.text


def test_labels_and_images_in_trees_of_the_same_shape(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(tmp_path / "images" / split / f"{split}.jpg")
        labelme(tmp_path / "labels" / split / f"{split}.json", f"..\\x\\{split}.jpg")
    write(tmp_path / ".vscode" / "settings.json", "{}")
    assert {split: one[0][0] for split, one in found(tmp_path).items()} == {
        "train": "train.jpg",
        "valid": "val.jpg",
    }


def test_names_with_a_folder_in_them(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(tmp_path / "images" / split / "0.jpg")
    coco(tmp_path / "annotations" / "instances_default.json", ["train/0.jpg", "val/0.jpg"])
    assert len(found(tmp_path)["train"]) == 2


def test_lvis_names_images_by_address(tmp_path: Path) -> None:
    image(tmp_path / "train2017" / "0.jpg")
    where = "http://images.cocodataset.org/train2017/0.jpg"
    images = [{"id": 0, "coco_url": where, "width": WIDTH, "height": HEIGHT}]
    coco(tmp_path / "annotations" / "lvis_v1_train.json", ["0.jpg"], images=images)
    assert found(tmp_path)["train"][0][0] == "0.jpg"


def test_umlauts_of_another_system(tmp_path: Path) -> None:
    image(tmp_path / "images" / unicodedata.normalize("NFD", "grün.jpg"))
    coco(tmp_path / "annotations" / "train.json", [unicodedata.normalize("NFC", "grün.jpg")])
    assert len(found(tmp_path)["train"]) == 1


def test_a_mask_is_never_taken_for_its_image(tmp_path: Path) -> None:
    mask(tmp_path / "my_masks" / "a.png", {(5, 5, 45, 45): 1})
    coco(tmp_path / "annotations.json", ["a.png"])
    with pytest.raises(GCNetError, match="1 of the 1 images listed in"):
        load_splits(tmp_path)


def test_what_is_hidden_is_not_read(tmp_path: Path) -> None:
    """Thumbnails, and an older copy that an editor keeps of a file that is gone."""
    for folder in (tmp_path / "coco" / "a" / "b", tmp_path / "yolo" / "images"):
        image(folder / "a.jpg")
        image(folder / ".thumbs" / "a.jpg", shade=1)
    coco(tmp_path / "coco" / "train.json", ["x/a.jpg"])
    write(tmp_path / "yolo" / "labels" / "a.txt", f"0 {YOLO_BOX}\n")
    write(tmp_path / "yolo" / "data.yaml", "train: images\nnames: [cat]\n")
    coco(tmp_path / "yolo" / ".ipynb_checkpoints" / "a-checkpoint.json", ["a.jpg"])
    assert len(found(tmp_path / "coco")["train"]) == 1
    assert found(tmp_path / "yolo") == {"train": [("a.jpg", [("cat", (30, 15, 50, 45))])]}


def test_an_image_of_another_split_is_not_taken(tmp_path: Path) -> None:
    image(tmp_path / "train" / "a.jpg")
    coco(tmp_path / "train" / "_annotations.coco.json", ["a.jpg"])
    coco(tmp_path / "valid" / "_annotations.coco.json", ["a.jpg"])
    with pytest.raises(GCNetError, match="missing"):
        load_splits(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metadata.jsonl", HUB),
        ("boxes.csv", "filename,class,xmin,ymin,xmax,ymax\nNAME,cat,5,5,45,45"),
        ("_annotations.txt", "NAME 5,5,45,45,0"),
    ],
)
def test_names_with_the_line_ends_of_unicode(file: str, text: str, tmp_path: Path) -> None:
    name = image(tmp_path / "a\u2028b\x85.jpg").name
    write(tmp_path / "_classes.txt", "cat")
    write(tmp_path / file, text.replace("NAME", name))
    assert found(tmp_path) == {"train": [(name, [("cat", (5, 5, 45, 45))])]}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.txt", f"0 {YOLO_BOX}"),
        ("a_mask.png", ""),
        ("metadata.jsonl", "\n".join(HUB.replace("NAME", f"{name}.jpg") for name in "ab")),
        ("boxes.csv", "filename,xmin,ymin,xmax,ymax\na.jpg,5,5,45,45\nb.jpg,.1,.1,.2,.2"),
        ("runs.csv", "filename,rle\na.jpg,1 99\nb.jpg,1 99"),
        (
            "export.json",
            json.dumps([json.loads(LABEL_STUDIO.replace("NAME", f"{name}.jpg"))[0] for name in "ab"]),
        ),
    ],
    ids=["yolo", "masks", "hub", "boxes", "runs", "label studio"],
)
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (b"no image", "is not an image that can be read"),
        (HUGE, "has 20000 x 20000 pixels, more than 200,000,000"),
    ],
    ids=["no image", "huge"],
)
def test_a_damaged_image_is_left_to_the_look_at_all_images(
    file: str, text: str, damage: bytes, why: str, tmp_path: Path
) -> None:
    """Also in formats that do not say the sizes of images: there the first of them ended the reading."""
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
        if file == "a.txt":
            write(tmp_path / f"{name}.txt", text)
        elif file == "a_mask.png":
            mask(tmp_path / f"{name}_mask.png", TWO)
    if file.startswith("a"):
        write(tmp_path / "classes.txt", "cat")
    else:
        write(tmp_path / file, text)
    (tmp_path / "b.jpg").write_bytes(damage)
    splits = load_splits(tmp_path, val_fraction=0)
    assert splits["train"].records[0].instances
    with pytest.raises(GCNetError, match=f"1 of 2 images cannot be trained on: in .*, b.jpg {why}; "):
        check_images(splits)
    assert len(check_images(splits, skip=True)["train"]) == 1


# YOLO --------------------------------------------------------------------------------------------------


def yolo(root: Path, *, images: str = "images", labels: str = "labels", yaml: str = "") -> None:
    for split in ("train", "valid"):
        image(root / split / images / "A.JPG")
        write(root / split / labels / "a.txt", f"1 {YOLO_BOX}\n")
    write(root / "data.yaml", yaml or "train: train/images\nval: valid/images\nnames: [dog, cat]\n")


YOLO = {"train": [("A.JPG", [("cat", (30, 15, 50, 45))])], "valid": [("A.JPG", [("cat", (30, 15, 50, 45))])]}


@pytest.mark.parametrize(
    "paths",
    [
        "train: /content/drive/MyDrive/set/train/images\nval: /content/drive/MyDrive/set/valid/images\n",
        "path: C:\\\\Users\\\\me\\\\set\ntrain: train\\images\nval: valid\\images\n",
        "train: ../train/images\nval: ../valid/images\n",
    ],
)
def test_paths_of_another_machine(tmp_path: Path, paths: str) -> None:
    yolo(tmp_path, yaml=f"{paths}names: [dog, cat]\n")
    write(tmp_path / "coco128.yaml", "train: coco/train\nval: coco/val\nnames: [person]\n")
    assert found(tmp_path) == YOLO


def test_labels_in_letters_of_either_case(tmp_path: Path) -> None:
    yolo(tmp_path, images="Images", labels="Labels", yaml="train: train\nval: valid\nnames: [dog, cat]\n")
    assert found(tmp_path) == YOLO


def test_images_alone_is_no_end_of_a_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It would be all images, for training and for validation."""
    for split in ("train", "val"):
        image(tmp_path / "images" / split / "a.jpg")
    paths = "train: /content/set/train/images\nval: /content/set/val/images\n"
    write(tmp_path / "data.yaml", f"{paths}names: [dog, cat]\n")
    with pytest.raises(GCNetError, match="its training images are not there"):
        load_splits(tmp_path)


def test_a_list_with_a_name_too_long_for_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beside labels that have no image, for which the folders of the images are looked through."""
    image(tmp_path / "obj" / "a.jpg")
    for name in "az":
        write(tmp_path / "obj" / f"{name}.txt", "0 0.5 0.5 0.2 0.2")
    write(tmp_path / "train.txt", f"obj/a.jpg\n{'x' * 300}/b.jpg")
    write(tmp_path / "data.yaml", "names: [cat]\ntrain: train.txt")
    with pytest.raises(GCNetError, match=r"1 of the 2 images listed in .*data\.yaml are missing"):
        load_splits(tmp_path)
    assert "1 files of labels have no image (first: z.txt)" in caplog.text


def test_labels_of_the_same_name_in_other_letters_are_anothers(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.jpg"):
        image(tmp_path / name)
    write(tmp_path / "a.txt", f"0 {YOLO_BOX}\n")
    write(tmp_path / "classes.txt", "cat\n")
    write(tmp_path / "model" / "labels.txt", "person\n")
    assert found(tmp_path) == {"train": [("A.jpg", []), ("a.jpg", [("cat", (30, 15, 50, 45))])]}


def test_labels_without_an_image_and_splits_that_are_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yolo(tmp_path, yaml="train: train/images\nval: nowhere\nnames: [dog, cat]\n")
    write(tmp_path / "train" / "labels" / "b.txt", f"1 {YOLO_BOX}\n")
    assert found(tmp_path) == {"train": YOLO["train"]}
    assert "1 files of labels have no image (first: b.txt)" in caplog.text
    assert "nowhere leads nowhere: there is no valid split" in caplog.text


def test_a_list_of_validation_images_alone_that_leads_nowhere_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "data.yaml", "val: nowhere\nnames: [dog, cat]\n")
    with pytest.raises(GCNetError, match=r"data.yaml: none of its images are there; correct"):
        load_splits(tmp_path)


def test_classes_of_folders_with_lists_of_their_own(tmp_path: Path) -> None:
    for split, names, label in (("train", "cat\ndog", 0), ("valid", "dog\ncat", 1)):
        image(tmp_path / split / "a.jpg")
        write(tmp_path / split / "a.txt", f"{label} {YOLO_BOX}\n")
        write(tmp_path / split / "classes.txt", names)
    boxes = {split: objects for split, [(_, objects)] in found(tmp_path).items()}
    assert boxes == {split: [("cat", (30, 15, 50, 45))] for split in ("train", "valid")}


def test_images_in_folders_without_labels_are_no_training_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Figures, and what earlier trainings drew, in folders that may be called like a split."""
    for place in ("images/train/a", "images/train/empty", "runs/train/batch", "runs/train2/batch", "docs/b"):
        image(tmp_path / f"{place}.jpg")
    write(tmp_path / "labels" / "train" / "a.txt", f"0 {YOLO_BOX}\n")
    write(tmp_path / "classes.txt", "cat\n")
    assert found(tmp_path) == {"train": [("a.jpg", [("cat", (30, 15, 50, 45))]), ("empty.jpg", [])]}
    assert "3 of 5 images are in folders without labels (first: docs/b.jpg); left out" in caplog.text


@pytest.mark.parametrize(
    "lists", ["train = /home/x/train.txt\nvalid = /home/x/test.txt\n", "//train = a.txt\n"]
)
def test_folders_of_images_where_the_lists_of_darknet_are_gone(tmp_path: Path, lists: str) -> None:
    for split in ("train", "test"):
        image(tmp_path / split / "a.jpg")
        write(tmp_path / split / "a.txt", f"1 {YOLO_BOX}\n")
    write(tmp_path / "my.data", f"classes = 2\n{lists}names = /home/x/pets.names\n")
    write(tmp_path / "my.names", "dog\ncat\n")
    objects = [("a.jpg", [("cat", (30, 15, 50, 45))])]
    assert found(tmp_path) == {"train": objects, "test": objects}
    write(tmp_path / "coco.names", "person\n")  # which of them is meant?
    with pytest.raises(GCNetError, match=r"there; correct `train` in it|holds no data set"):
        load_splits(tmp_path)


@pytest.mark.parametrize("folder", ["JPEGImages", "data", "img/train"])
def test_labels_beside_folders_of_images_of_other_names(folder: str, tmp_path: Path) -> None:
    """Darknet itself looks for the labels of JPEGImages in labels."""
    image(tmp_path / folder / "a.jpg")
    write(tmp_path / "labels" / folder.partition("/")[2] / "a.txt", f"0 {YOLO_BOX}\n")
    write(tmp_path / "labels" / "classes.txt", "cat\n")
    assert found(tmp_path) == {"train": [("a.jpg", [("cat", (30, 15, 50, 45))])]}


def test_labels_are_where_an_image_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A list of Darknet's says where they were: the images were found by their names, but no labels."""
    for folder, name in (("good", "a"), ("obj_train_data", "b")):
        image(tmp_path / "Dataset" / folder / f"{name}.jpg")
        write(tmp_path / "Dataset" / folder / f"{name}.txt", f"0 {YOLO_BOX}\n")
    write(tmp_path / "data" / "train.txt", "data/obj/a.jpg\ndata/obj_train_data/b.jpg\n")
    write(tmp_path / "data" / "obj.names", "cat\n")
    write(tmp_path / "data" / "obj.data", "train = data/train.txt\nnames = data/obj.names\n")
    objects = [("cat", (30, 15, 50, 45))]
    assert found(tmp_path) == {"train": [("a.jpg", objects), ("b.jpg", objects)]}
    assert "2 of 2 images are not where their file_name says" in caplog.text


@pytest.mark.parametrize("points", ["0.1 0.1 2 0.9 0.9 2", "0.1 0.1 0.9 0.9"])
def test_keypoints_are_no_outline(tmp_path: Path, points: str, caplog: pytest.LogCaptureFixture) -> None:
    yolo(tmp_path, yaml="kpt_shape: [2, 3]\ntrain: train/images\nval: valid/images\nnames: [dog, cat]\n")
    for split in ("train", "valid"):
        write(tmp_path / split / "labels" / "a.txt", f"1 {YOLO_BOX} {points}\n")
    assert found(tmp_path) == YOLO
    assert "its keypoints are left out" in caplog.text


def test_labels_in_pixels_are_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    yolo(tmp_path)
    write(tmp_path / "train" / "labels" / "a.txt", "1 40 30 20 30\n")
    load_splits(tmp_path)
    assert "1 of 1 boxes are far wider than their image: are they in pixels?" in caplog.text


def test_names_in_an_older_encoding(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", f"0 {YOLO_BOX}\n")
    (tmp_path / "classes.txt").write_bytes("Käse\n".encode("latin-1"))
    assert found(tmp_path)["train"][0][1][0][0] == "Käse"


def test_a_broken_yaml_says_where(tmp_path: Path) -> None:
    yolo(tmp_path, yaml="train: train/images\nnames: ['a',\n'b'\n")
    with pytest.raises(GCNetError, match=r"data.yaml: is no YAML \(expected .* in line 4\)"):
        load_splits(tmp_path)


def test_a_missing_image_without_a_size_is_left_to_the_look_at_all_images(tmp_path: Path) -> None:
    image(tmp_path / "img" / "a.jpg")
    write(tmp_path / "img" / "a.txt", f"0 {YOLO_BOX}\n")
    write(tmp_path / "train.txt", "img/a.jpg\nimg/b.jpg\n")
    write(tmp_path / "obj.names", "cat\n")
    write(tmp_path / "obj.data", "train = train.txt\nvalid = train.txt\nnames = obj.names\n")
    assert found(tmp_path)["train"] == [("a.jpg", [("cat", (30, 15, 50, 45))]), ("b.jpg", [])]


# VOC, CVAT, VIA ----------------------------------------------------------------------------------------


def test_a_folder_of_voc_for_each_split(tmp_path: Path) -> None:
    """Only the first was read, and then divided. The masks are beside the annotations, too."""
    for split in ("train", "valid"):
        image(tmp_path / split / "JPEGImages" / f"{split}.jpg")
        voc(tmp_path / split / "Annotations" / f"{split}.xml", f"{split}.jpg")
        mask(tmp_path / split / "SegmentationObject" / f"{split}.png", {(5, 5, 25, 25): 1})
    splits = load_splits(tmp_path)
    assert {split: [one.path.name for one in data.records] for split, data in splits.items()} == {
        "train": ["train.jpg"],
        "valid": ["valid.jpg"],
    }
    assert all(data.records[0].instances[0].segmentation for data in splits.values())


@pytest.mark.parametrize("folder", ["Annotations", "annotations"])
def test_lists_with_endings_and_what_they_miss(
    folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        image(tmp_path / "JPEGImages" / f"{name}.jpg")
        voc(tmp_path / folder / f"{name}.xml", f"{name}.jpg")
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a.jpg\ngone.jpg\n")
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "b\n")
    assert {split: images[0][0] for split, images in found(tmp_path).items()} == {
        "train": "a.jpg",
        "valid": "b.jpg",
    }
    assert "train.txt: 1 of 2 names have no annotations (first: gone.jpg); left out" in caplog.text
    assert "1 of 3 XML files are in no list" in caplog.text


def test_difficult_objects_of_voc_do_not_count(tmp_path: Path) -> None:
    box = "<bndbox><xmin>6</xmin><ymin>6</ymin><xmax>45</xmax><ymax>45</ymax></bndbox>"
    marks = (
        "",
        "<difficult>0</difficult>",
        "<difficult> 1 </difficult>",
        "<difficult>Unspecified</difficult>",
    )
    image(tmp_path / "a.jpg")
    voc(
        tmp_path / "a.xml",
        "a.jpg",
        "".join(f"<object><name>cat</name>{mark}{box}</object>" for mark in marks),
    )
    (record,) = load_splits(tmp_path, val_fraction=0)["train"].records
    assert [one.ignore for one in record.instances] == [False, False, True, False]


def test_xml_of_labelme_and_endings_in_capitals(tmp_path: Path) -> None:
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((5, 5), (45, 5), (45, 45)))
    kept = f"<object><name>cat</name><deleted>0</deleted><polygon>{points}</polygon></object>"
    removed = f"<object><name>dog</name><deleted>1</deleted><polygon>{points}</polygon></object>"
    image(tmp_path / "a.JPG")
    voc(tmp_path / "a.XML", "a.JPG", kept + removed)
    assert found(tmp_path) == {"train": [("a.JPG", [("cat", (5, 5, 45, 45))])]}


def test_cvat_turns_shapes_and_counts_those_without_area(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = "".join(
        f"<label><name>{name}</name><type>{kind}</type></label>"
        for name, kind in (("cat", "rectangle"), ("sunny", "tag"), ("lane", "polyline"))
    )
    shapes = (
        '<box label="cat" xtl="20" ytl="25" xbr="60" ybr="35" rotation="90"/>'
        '<ellipse label="cat" cx="40" cy="30" rx="20" ry="5" rotation="90"/>'
        '<polyline label="lane" points="1,1;9,9"/><tag label="sunny"/>'
    )
    for job in "ab":  # two jobs of one task
        image(tmp_path / "images" / f"{job}.jpg")
        picture = f'<image id="0" name="{job}.jpg" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
        meta = f"<meta><task><labels>{labels}</labels></task></meta>"
        write(tmp_path / f"job_{job}.xml", f"<annotations>{meta}{picture}</annotations>")
    objects = [("cat", (35, 10, 45, 50))] * 2
    assert found(tmp_path) == {"train": [("a.jpg", objects), ("b.jpg", objects)]}
    assert load_splits(tmp_path)["train"].class_names == ("cat",)
    assert "shapes that have no area are left out: 2 polyline" in caplog.text


def test_tags_of_whole_images_are_said_to_be_no_objects(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path / "a.jpg")
    picture = f'<image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}"><tag label="full"/></image>'
    write(tmp_path / "annotations.xml", f"<annotations>{picture}</annotations>")
    with pytest.raises(GCNetError, match="no annotations"):
        load_splits(tmp_path)
    assert "shapes that have no area are left out: 1 tag" in caplog.text


def test_images_in_another_subset_of_cvat_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = CVAT.removeprefix("<annotations>").removesuffix("</annotations>")
    text = ""
    for subset in ("Train", "Validation", "Later"):  # each with an image of one name
        image(tmp_path / "images" / subset / "a.jpg")
        text += entry.replace("NAME", "a.jpg").replace("<image", f'<image subset="{subset}"')
    write(tmp_path / "annotations.xml", f"<annotations>{text}</annotations>")
    assert found(tmp_path).keys() == {"train", "valid"}
    assert "1 of 3 images are in the subset of no split and not read (first: a.jpg)" in caplog.text


def test_images_of_several_files_of_cvat(tmp_path: Path) -> None:
    """Jobs have frames of the same names, each its own; another version of one file is refused."""
    for job in ("job_1", "job_2"):
        image(tmp_path / job / "images" / "a.jpg")
        box = '<box label="cat" xtl="20" ytl="20" xbr="60" ybr="40"/>'
        picture = f'<image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}">{box}</image>'
        write(tmp_path / job / "annotations.xml", f"<annotations>{picture}</annotations>")
    paths = [record.path.resolve() for record in load_splits(tmp_path, val_fraction=0)["train"].records]
    assert paths == [tmp_path.resolve() / job / "images" / "a.jpg" for job in ("job_1", "job_2")]
    old = (tmp_path / "job_1" / "annotations.xml").read_text()
    write(tmp_path / "job_1" / "masks" / "annotations.xml", old)
    assert len(load_splits(tmp_path / "job_1", val_fraction=0)["train"]) == 1
    write(tmp_path / "job_1" / "annotations_old.xml", old)
    with pytest.raises(GCNetError, match=r"both have a.jpg; keep one of them"):
        load_splits(tmp_path / "job_1")


def test_cvat_turns_clockwise(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    box = '<box label="cat" xtl="20" ytl="20" xbr="60" ybr="40" rotation="30"/>'
    picture = f'<image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}">{box}</image>'
    write(tmp_path / "annotations.xml", f"<annotations>{picture}</annotations>")
    (one,) = load_splits(tmp_path)["train"].records[0].instances
    corner = np.array(
        [40 - 20 * np.cos(np.pi / 6) + 10 * np.sin(np.pi / 6), 30 - 10 - 10 * np.cos(np.pi / 6)]
    )
    assert isinstance(one.segmentation, list)
    np.testing.assert_allclose(np.reshape(one.segmentation[0], (4, 2))[0], corner, atol=1e-4)


@pytest.mark.parametrize(
    ("attributes", "classes", "said"),
    [
        ([{"name": "Bob", "class": "cat"}, {"name": "Eve", "class": "dog"}], ["cat", "dog"], ""),
        ([{"category": "cat", "name": "Bob"}], ["cat"], ""),
        ([{"name": "cat", "type": "unknown"}], ["cat"], ""),
        (
            [{"kind": "cat"}, {}],
            ["cat", "cat"],
            "1 of 2 objects have no class (first: a.jpg:1); taken for cat",
        ),
        (
            [{"kind": "cat"}, {"kind": "dog"}, {}],
            ["cat", "dog"],
            "1 of 3 objects have no class (first: a.jpg:2); left out",
        ),
        ([{}, {}], ["object"] * 2, "2 of 2 objects have no class (first: a.jpg:0); taken for object"),
    ],
)
def test_classes_of_via(
    tmp_path: Path,
    attributes: list[dict[str, str]],
    classes: list[str],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image(tmp_path / "a.jpg")
    regions = [
        {
            "shape_attributes": {"name": "rect", "x": 9 * i, "y": 5, "width": 8, "height": 9},
            "region_attributes": own,
        }
        for i, own in enumerate(attributes)
    ]
    write(tmp_path / "via.json", json.dumps({"a": {"filename": "a.jpg", "regions": regions}}))
    assert [name for name, _ in found(tmp_path)["train"][0][1]] == classes
    assert said in caplog.text


TRIANGLE = {"points": [[5, 5], [45, 5], [45, 45]]}


@pytest.mark.parametrize("size", [{}, {"imageWidth": 64}, {"imageWidth": 64, "imageHeight": 0}])
def test_the_size_of_an_image_that_is_not_said(tmp_path: Path, size: dict[str, int]) -> None:
    path = image(tmp_path / "a.jpg")
    shape = {"label": "cat", "points": [[5, 5], [45, 5], [45, 45]]}
    write(tmp_path / "a.json", json.dumps({"imagePath": "a.jpg", "shapes": [shape], **size}))
    (record,) = load_splits(tmp_path)["train"].records
    assert (record.height, record.width) == cv2.imread(str(path)).shape[:2]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"imagePath": "a.jpg", "shapes": [{"label": "cat", **TRIANGLE}, TRIANGLE]})),
        ("annotations.xml", CVAT.replace("</image>", '<box xtl="5" ytl="5" xbr="45" ybr="45"/></image>')),
        ("metadata.jsonl", HUB.replace("[[5, 5, 40, 40]]", "[[5, 5, 40, 40], [5, 5, 40, 40]]")),
        ("a.xml", f"<annotation>{'<object><name>cat</name>BOX</object><object>BOX</object>'}</annotation>"),
    ],
    ids=["labelme", "cvat", "hub", "voc"],
)
def test_objects_without_a_class_beside_one(
    tmp_path: Path, name: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As of VIA: they are no class of their own, called None or without a name."""
    image(tmp_path / "a.jpg")
    box = "<bndbox><xmin>6</xmin><ymin>6</ymin><xmax>45</xmax><ymax>45</ymax></bndbox>"
    write(tmp_path / name, text.replace("NAME", "a.jpg").replace("BOX", box))
    assert found(tmp_path) == {"train": [("a.jpg", [("cat", (5, 5, 45, 45))] * 2)]}
    assert re.search(r"1 of 2 objects have no class \(first: .*\); taken for cat", caplog.text)


def test_several_files_of_via(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each with some of the images; a project beside its own export, but not two that differ."""
    shape = {"name": "rect", "x": 5, "y": 5, "width": 40, "height": 40}
    region = {"shape_attributes": shape, "region_attributes": {"class": "cat"}}
    for name in "ab":
        entry = {"filename": f"{image(tmp_path / f'{name}.jpg').name}", "regions": [region]}
        write(tmp_path / f"via_{name}.json", json.dumps({"_via_img_metadata": {name: entry}}))
    write(tmp_path / "c.json", json.dumps({"asset": {"name": "a.jpg"}, "regions": []}))  # of VoTT
    cat = [("cat", (5, 5, 45, 45))]
    assert found(tmp_path) == {"train": [("a.jpg", cat), ("b.jpg", cat)]}
    content = json.loads((tmp_path / "via_a.json").read_text())["_via_img_metadata"]
    write(tmp_path / "export.json", json.dumps(content))
    assert found(tmp_path) == {"train": [("a.jpg", cat), ("b.jpg", cat)]}
    assert f"{tmp_path / 'via_a.json'}: it repeats what is in {tmp_path / 'export.json'}" in caplog.text
    content["a"]["regions"] *= 2
    write(tmp_path / "export.json", json.dumps(content))
    with pytest.raises(GCNetError, match=r"via_a.json and .*export.json both have a.jpg, with other regions"):
        load_splits(tmp_path)


def test_a_damaged_file_beside_a_whole_one_of_another_format(tmp_path: Path) -> None:
    """Which of the two is newer, only the user knows."""
    damaged = coco(tmp_path / "coco.json", [image(tmp_path / "a.jpg").name])
    damaged.write_bytes(damaged.read_bytes()[:200])
    shape = {"name": "rect", "x": 5, "y": 5, "width": 40, "height": 40}
    entry = {"filename": "a.jpg", "regions": [{"shape_attributes": shape, "region_attributes": {"n": "cat"}}]}
    whole = write(tmp_path / "via.json", json.dumps({"a": entry}))
    with pytest.raises(GCNetError, match=r"coco\.json is not JSON .*, or give .*via\.json as --data FILE$"):
        load_splits(tmp_path)
    assert found(whole) == {"train": [("a.jpg", [("cat", (5, 5, 45, 45))])]}


def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its split would be missed otherwise."""
    for split in ("train", "valid"):
        coco(tmp_path / split / "_annotations.coco.json", [image(tmp_path / split / "a.jpg").name])
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path / "valid")
    load_splits(tmp_path)
    assert f"{tmp_path / 'valid'}: it cannot be read, for lack of permission" in caplog.text


def test_images_that_are_given_need_not_be_in_the_data_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without them the error says so, once."""
    name = image(tmp_path / "photos" / "a.jpg").name
    coco(tmp_path / "set" / "annotations" / "instances_train.json", [name])
    with pytest.raises(GCNetError, match="no image folder for it; say where the images are with --images"):
        load_splits(tmp_path / "set")
    assert not caplog.text
    (dataset,) = load_splits(tmp_path / "set", images=tmp_path / "photos").values()
    assert [record.path for record in dataset.records] == [tmp_path / "photos" / "a.jpg"]


# Masks -------------------------------------------------------------------------------------------------

BOXES = [("object", (5, 5, 25, 25)), ("object", (40, 30, 70, 50))]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_masks_with_shades_along_edges_are_black_and_white(tmp_path: Path, name: str) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / name, TWO, blur=True)
    assert found(tmp_path) == {"train": [("a.jpg", BOXES)]}


def test_many_areas_of_a_large_mask(tmp_path: Path) -> None:
    """Each costs its own columns, not the whole image: 25 scans of leaves took minutes."""
    values = np.zeros((2400, 2400), np.uint8)
    for y, x in np.argwhere(np.random.default_rng(0).random((48, 48)) < 0.8) * 50:
        values[y : y + 20, x : x + 30] = 255
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), values)
    begin = time.perf_counter()
    (record,) = load_splits(tmp_path)["train"].records
    assert time.perf_counter() - begin < 15
    assert len(record.instances) > 1800
    drawn = sum(segmentation_to_mask(one.segmentation, (2400, 2400)) for one in record.instances[::200])
    assert ((drawn > 0) <= (values > 0)).all()
    assert drawn.sum() == 20 * 30 * len(record.instances[::200])


def test_a_jpeg_of_two_shades_and_an_empty_one(tmp_path: Path) -> None:
    for name, areas in (("a", {(8, 8, 32, 32): 255}), ("b", {})):
        image(tmp_path / "images" / f"{name}.jpg")
        mask(tmp_path / "masks" / f"{name}.jpg", areas)
    assert found(tmp_path) == {"train": [("a.jpg", [("object", (8, 8, 32, 32))]), ("b.jpg", [])]}


def test_objects_where_the_mask_of_classes_has_none(tmp_path: Path) -> None:
    image(tmp_path / "JPEGImages" / "a.jpg")
    mask(tmp_path / "SegmentationObject" / "a.png", dict(zip(TWO, (1, 2), strict=True)))
    mask(tmp_path / "SegmentationClass" / "a.png", {BOXES[0][1]: 2})
    write(tmp_path / "class_names.txt", "_background_\ncat\ndog\n")
    assert found(tmp_path) == {"train": [("a.jpg", [("dog", BOXES[0][1])])]}


def test_masks_of_objects_alone(tmp_path: Path) -> None:
    image(tmp_path / "JPEGImages" / "a.jpg")
    mask(tmp_path / "SegmentationObject" / "a.png", dict(zip(TWO, (1, 2), strict=True)))
    assert found(tmp_path) == {"train": [("a.jpg", BOXES)]}


def test_a_jpeg_of_numbers_is_refused(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a.jpg", {(5, 5, 35, 35): 90, (40, 30, 70, 50): 180, (40, 2, 70, 20): 250})
    with pytest.raises(GCNetError, match="is a JPEG, which changes the numbers of a mask"):
        load_splits(tmp_path)


@pytest.mark.parametrize(
    ("masks", "image_name"),
    [
        ("train_masks/a.png", "train/a.jpg"),
        ("train_masks/a.png", "train_images/a.jpg"),
        ("masks/a_mask.png", "images/a.jpg"),
        ("x/a_mask.png", "x/a.jpg"),
        ("masks/seg12.png", "images/seg12.jpg"),
        ("masks/with_mask/a.png", "images/with_mask/a.jpg"),
        ("train_instances/masks/a.png", "train_instances/images/a.jpg"),
        ("instance_masks/a.png", "images/a.jpg"),
        ("masks/train/a.png", "images/a.jpg"),
        ("train_label/a.png", "train_data/a.jpg"),
    ],
)
def test_places_of_masks(tmp_path: Path, masks: str, image_name: str) -> None:
    image(tmp_path / image_name)
    image(tmp_path / "logo" / "mask.png")
    mask(tmp_path / masks, TWO)
    assert [objects for _, objects in found(tmp_path)["train"]] == [BOXES]


def test_numbered_masks_are_an_object_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        image(tmp_path / "images" / f"{name}.jpg")
    for number, (place, value) in enumerate(TWO.items()):
        mask(tmp_path / "masks" / f"a_{number}.png", {place: value})
    assert found(tmp_path) == {"train": [("a.jpg", BOXES)]}
    assert "1 of 2 images have no mask (first: images/b.jpg); left out" in caplog.text


def test_masks_in_a_folder_of_their_image_may_be_called_like_it(tmp_path: Path) -> None:
    for name in "12":
        image(tmp_path / name / "images" / f"{name}.jpg")
        for number, (place, value) in enumerate(TWO.items(), start=1):
            mask(tmp_path / name / "masks" / f"{number}.png", {place: value})
    assert found(tmp_path) == {"train": [("1.jpg", BOXES), ("2.jpg", BOXES)]}


def test_masks_without_an_image_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "images" / "a.jpg")
    for name in "ab":
        mask(tmp_path / "masks" / f"{name}.png", TWO)
    assert found(tmp_path) == {"train": [("a.jpg", BOXES)]}
    assert "1 of 2 masks are of no image and not read (first: masks/b.png)" in caplog.text


def test_a_folder_of_masks_for_each_image(tmp_path: Path) -> None:
    for name in "12":
        image(tmp_path / "images" / f"{name}.jpg")
        for number, (place, value) in enumerate(TWO.items(), start=1):
            mask(tmp_path / "masks" / name / f"{number}.png", {place: value})
    assert found(tmp_path) == {"train": [("1.jpg", BOXES), ("2.jpg", BOXES)]}


@pytest.mark.parametrize("other", ["masks/old/a.png", "color_masks/a.png", "images/facemask.png"])
def test_masks_and_images_beside_those_that_are_meant(tmp_path: Path, other: str) -> None:
    image(tmp_path / "images" / "a.png")
    image(tmp_path / "images" / "face.png")
    mask(tmp_path / other, {(0, 0, 9, 9): 9})
    for name in ("a", "face"):
        mask(tmp_path / "masks" / f"{name}.png", TWO)
    assert [objects for _, objects in found(tmp_path)["train"]] == [BOXES, BOXES]


def test_small_objects_of_many_numbers_stay(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    places = [(x, y, x + 3, y + 3) for y in range(0, 40, 5) for x in range(0, 80, 5)]
    mask(tmp_path / "masks" / "a.png", {place: 100 + i for i, place in enumerate(places)})
    assert [box for _, box in found(tmp_path)["train"][0][1]] == sorted(places)


@pytest.mark.parametrize(
    "colours",
    [
        [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)],
        [(128, 0, 0), (128, 128, 128), (0, 0, 128), (64, 64, 64)],
    ],
)
def test_colours_are_no_numbers(tmp_path: Path, colours: list[tuple[int, int, int]]) -> None:
    """Neither is red 255, which may be void, nor gray among colours the number of another."""
    image(tmp_path / "images" / "a.jpg")
    places = [(5, 5, 25, 25), (5, 30, 25, 50), (40, 5, 60, 25), (40, 30, 60, 50)]
    values = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for (x1, y1, x2, y2), colour in zip(places, colours, strict=True):
        values[y1:y2, x1:x2] = colour[::-1]
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), values)
    assert [box for _, box in found(tmp_path)["train"][0][1]] == places
    lines = [f"c{i}:{r},{g},{b}::" for i, (r, g, b) in enumerate(colours)]
    write(tmp_path / "labelmap.txt", "\n".join(["background:0,0,0::", *lines]))
    assert found(tmp_path)["train"][0][1] == [(f"c{i}", place) for i, place in enumerate(places)]


def test_255_is_a_class_where_it_is_named_or_others_are_large(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a.png", dict(zip(TWO, (128, 255), strict=True)))
    assert [box for _, box in found(tmp_path)["train"][0][1]] == [box for _, box in BOXES]
    write(tmp_path / "classes.txt", "disc\ncup\n")
    assert found(tmp_path)["train"][0][1] == [("disc", BOXES[0][1]), ("cup", BOXES[1][1])]


def test_a_folder_of_masks_for_each_class(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    for name, (place, value) in zip(("cat", "dog"), TWO.items(), strict=True):
        mask(tmp_path / "masks" / name / "a.png", {place: value})
    assert found(tmp_path)["train"][0][1] == [("cat", BOXES[0][1]), ("dog", BOXES[1][1])]


@pytest.mark.parametrize("kind", ["numbers", "colours", "labelmap"])
def test_names_of_numbers_and_of_colours(tmp_path: Path, kind: str) -> None:
    """Of both splits together: in one of them a class is not there."""
    for split, values in (("train", (127, 254)), ("val", (254, 254))):
        image(tmp_path / "images" / split / "a.jpg")
        path = mask(tmp_path / "masks" / split / "a.png", dict(zip(TWO, values, strict=True)))
        if kind != "numbers":  # RGB: 0, n, 0
            gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(path), np.stack([0 * gray, gray, 0 * gray], -1))
    files = {
        "numbers": ("classes.txt", "smoke\nfire\n"),
        "colours": ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\nsmoke,0,127,0\nfire,0,254,0\n"),
        "labelmap": ("labelmap.txt", "# label:color_rgb:parts:actions\nsmoke:0,127,0::\nfire:0,254,0::\n"),
    }
    write(tmp_path / files[kind][0], files[kind][1])
    names = {split: [name for name, _ in objects] for split, [(_, objects)] in found(tmp_path).items()}
    assert names == {"train": ["smoke", "fire"], "valid": ["fire", "fire"]}


@pytest.mark.parametrize(
    ("colours", "numbers"), [((255, 250 << 16), "#ff0000, #0000fa"), ((250, 250 << 16), "#fa0000, #0000fa")]
)
def test_colours_that_are_not_named(tmp_path: Path, colours: tuple[int, int], numbers: str) -> None:
    """They are not those of the names in their order, also where there are as many."""
    image(tmp_path / "images" / "a.jpg")
    values = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for (x1, y1, x2, y2), colour in zip(TWO, colours, strict=True):
        values[y1:y2, x1:x2] = [colour >> 16, 0, colour & 255]
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), values)
    write(tmp_path / "labelmap.txt", "smoke:255,0,0::\nfire:0,0,255::\n")
    with pytest.raises(GCNetError, match=f"names 2 classes, but the masks have the numbers {numbers}"):
        load_splits(tmp_path)


def test_colours_that_may_be_classes_are_asked_about(tmp_path: Path) -> None:
    """A list of names would not say which is whose: colours have no order."""
    image(tmp_path / "images" / "a.jpg")
    values = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    values[5:20, 5:20] = values[30:50, 40:70] = (209, 125, 42)
    values[40:59, 5:25] = values[5:20, 60:70] = (83, 179, 36)
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), values)
    how = r"a class_dict.csv with a line name,r,g,b for each colour \(#24b353, #2a7dd1\)"
    with pytest.raises(GCNetError, match=how):
        load_splits(tmp_path)
    write(tmp_path / "classes.txt", "roof\nlawn\n")
    with pytest.raises(GCNetError, match=how):
        load_splits(tmp_path)
    write(tmp_path / "class_dict.csv", "name,r,g,b\nroof,42,125,209\nlawn,36,179,83\n")
    assert sorted(name for name, _ in found(tmp_path)["train"][0][1]) == ["lawn", "lawn", "roof", "roof"]


def test_names_of_numbers_in_the_folders_of_splits(tmp_path: Path) -> None:
    """Roboflow's masks for semantic segmentation: in the test part one of the classes is not there."""
    for split, values in (("train", (2, 1)), ("test", (2, 2))):
        image(tmp_path / split / "a.jpg")
        mask(tmp_path / split / "a_mask.png", dict(zip(TWO, values, strict=True)))
        write(tmp_path / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, fire exit\n2, cat")
    names = {split: [name for name, _ in objects] for split, [(_, objects)] in found(tmp_path).items()}
    assert names == {"train": ["cat", "fire exit"], "test": ["cat", "cat"]}


def test_names_that_do_not_fit_their_numbers(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a.png", dict(zip(TWO, (127, 254), strict=True)))
    write(tmp_path / "classes.txt", "a\nb\nc\n")
    with pytest.raises(GCNetError, match="names 3 classes, but the masks have the numbers 127, 254"):
        load_splits(tmp_path)


def test_void_and_specks_are_no_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "images" / "a.jpg")
    areas = {(5, 5, 25, 25): 1, (40, 30, 70, 50): 2, (0, 55, 80, 57): 255, (78, 0, 80, 2): 1}
    mask(tmp_path / "masks" / "a.png", areas)
    write(tmp_path / "classes.txt", "cat\ndog\n")
    assert found(tmp_path)["train"][0][1] == [("cat", BOXES[0][1]), ("dog", BOXES[1][1])]
    assert "1 areas of up to 10 pixels are left out" in caplog.text
    assert "255 beside smaller numbers is taken for what is not annotated" in caplog.text


def test_slips_in_black_and_white_masks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They were taken for a second class, whose name was asked for."""
    for name, slips in (("a", {}), ("b", {(78, 0, 80, 2): 100})):
        image(tmp_path / "images" / f"{name}.jpg")
        mask(tmp_path / "masks" / f"{name}.png", TWO | slips)
    assert found(tmp_path) == {"train": [("a.jpg", BOXES), ("b.jpg", BOXES)]}
    assert "1 areas of up to 10 pixels are left out" in caplog.text


def test_black_objects_on_white_are_asked_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a.png", TWO)
    load_splits(tmp_path)
    assert "in all corners" not in caplog.text
    mask(tmp_path / "masks" / "a.png", {(0, 0, WIDTH, HEIGHT): 255} | dict.fromkeys(TWO, 0))
    load_splits(tmp_path)
    assert "1 of 1 masks are white in all corners; invert them if white is around" in caplog.text


def test_masks_of_classes_alone(tmp_path: Path) -> None:
    """labelme2voc's and CVAT's, without masks of objects."""
    image(tmp_path / "JPEGImages" / "a.jpg")
    mask(tmp_path / "SegmentationClass" / "a.png", dict(zip(TWO, (1, 2), strict=True)))
    write(tmp_path / "class_names.txt", "_background_\ncat\ndog\n")
    assert found(tmp_path)["train"][0][1] == [("cat", BOXES[0][1]), ("dog", BOXES[1][1])]


# Messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([{"data_row": {"external_id": "a.jpg"}, "projects": {}}], "the format of Labelbox"),
        ([{"image": "a.jpg", "boxes": []}], "a list; COCO's is an object"),
        ({"info": {}, "categories": {}, "items": [{"annotations": []}]}, "the format of Datumaro"),
    ],
)
def test_large_files_of_other_tools_are_recognised(tmp_path: Path, content: object, why: str) -> None:
    image(tmp_path / "images" / "a.jpg")
    large = content * 3000 if isinstance(content, list) else content
    if isinstance(large, dict):
        large = {name: value * 5000 if isinstance(value, list) else value for name, value in large.items()}
    write(tmp_path / "export.json", json.dumps(large))
    with pytest.raises(GCNetError, match=why):
        load_splits(tmp_path)


def test_pointers_of_git_lfs(tmp_path: Path) -> None:
    """A clone without it has them in the place of large files."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:25ae77\nsize 9901\n"
    write(tmp_path / "annotations" / "a.xml", pointer)
    with pytest.raises(GCNetError, match=r"a.xml: a pointer of Git LFS; get .* `git lfs pull`"):
        load_splits(tmp_path)
    image(tmp_path / "images" / "a.png")
    write(tmp_path / "masks" / "a.png", pointer)
    with pytest.raises(GCNetError, match=r"masks/a.png is a pointer of Git LFS, .* `git lfs pull`"):
        load_splits(tmp_path)


def test_masks_whose_images_are_elsewhere(tmp_path: Path) -> None:
    mask(tmp_path / "set" / "mask" / "a.png", TWO)
    image(tmp_path / "set" / "pictures" / "a.png")
    line = r"mask: masks, whose images belong in `images` beside it, under the same names"
    with pytest.raises(GCNetError, match=line):
        load_splits(tmp_path)
    write(tmp_path / "set" / "train.record", "x")
    with pytest.raises(GCNetError, match=line + "; train.record: TFRecord; export it as COCO"):
        load_splits(tmp_path)
    (tmp_path / "set" / "pictures").rename(tmp_path / "set" / "images")
    assert len(load_splits(tmp_path)["train"]) == 1


def test_files_that_may_be_meant_come_before_others(tmp_path: Path) -> None:
    """And one of each folder is told: hundreds are as they are for one reason."""
    for name in ("requirements.txt", "README.txt", "train.txt"):
        write(tmp_path / name, "images/train/0.jpg")
    write(tmp_path / ".idea" / "misc.xml", "<project/>")
    for number in range(9):
        image(tmp_path / "images" / "train" / f"{number}.jpg")
        write(tmp_path / "labels" / "train" / f"{number}.txt", f"0 {YOLO_BOX}\n")
    with pytest.raises(GCNetError, match=r"md\); labels/train/0.txt: labels of YOLO; .* and 11 more files"):
        load_splits(tmp_path)


def test_what_readers_said_is_told_before_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "images" / "a.jpg")
    cv2.imwrite(str(mask(tmp_path / "masks" / "a.png", {})), np.ones((5, 5), np.uint8))
    with pytest.raises(GCNetError, match="no annotations"), notes_of_readers() as notes:
        load_splits(tmp_path)
    assert notes
    assert "1 masks are not of their image's size; left out" in caplog.text
