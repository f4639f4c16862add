"""Each format as its tool writes it: the same two objects in two images come out of all."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import resource
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from format_files import HEIGHT, WIDTH, image, write
from PIL import Image

from gcnet.console import one_line
from gcnet.data.load import load_split, load_splits
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import segmentation_to_mask

CORNERS = [[20, 10], [60, 10], [60, 40], [20, 40]]
BOX = (20, 10, 60, 40)
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[10:40, 20:60] = 1


def yolo(root: Path, *, outlines: bool = True) -> None:
    for split in ("train", "valid"):
        image(root / split / "images" / "a.jpg")
        points = " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in CORNERS)
        line = points if outlines else f"{40 / WIDTH} {25 / HEIGHT} {40 / WIDTH} {30 / HEIGHT}"
        write(root / split / "labels" / "a.txt", f"1 {line}\n")
    write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\n")


def yolo_boxes(root: Path) -> None:
    yolo(root, outlines=False)


def yolo_names_by_number(root: Path) -> None:
    for split in ("train", "val"):
        image(root / "images" / split / "a.jpg")
        points = " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in CORNERS)
        write(root / "labels" / split / "a.txt", f"1 {points}\n")
    names = "names:\n  0: cat\n  1: dog\n"
    write(root / "dataset.yaml", f"path: ../datasets/pets\ntrain: images/train\nval: images/val\n{names}")


def darknet(root: Path) -> None:
    for split in ("train", "valid"):
        image(root / "data" / split / "a.jpg")
        write(root / "data" / split / "a.txt", f"1 {40 / WIDTH} {25 / HEIGHT} {40 / WIDTH} {30 / HEIGHT}\n")
        write(root / "data" / f"{split}.txt", f"data/{split}/a.jpg\n")
    write(root / "data" / "obj.names", "cat\ndog\n")
    lists = "train = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    write(root / "data" / "obj.data", f"classes = 2\n{lists}backup = backup/\n")


def labelme(root: Path) -> None:
    mask = base64.b64encode(cv2.imencode(".png", np.full((30, 40), 255, np.uint8))[1].tobytes()).decode()
    shapes = [
        {"label": "dog", "points": CORNERS, "shape_type": "polygon", "group_id": None},
        {"label": "dog", "points": [CORNERS[0], CORNERS[2]], "shape_type": "mask", "mask": mask},
    ]
    for split, shape in zip(("train", "val"), shapes, strict=True):
        image(root / split / "a.jpg")
        size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        content = {"version": "5.4", "shapes": [shape], "imagePath": "a.jpg", "imageData": None, **size}
        write(root / split / "a.json", json.dumps(content))


def isat(root: Path) -> None:
    """Whole in one split, of two polygons of one group in the other."""
    left, right = ([[x1, 10], [x2, 10], [x2, 40], [x1, 40]] for x1, x2 in ((20, 45), (45, 60)))
    for split, outlines in (("train", [CORNERS]), ("val", [left, right])):
        image(root / split / "a.jpg")
        write(root / split / "a.json", isat_file([("dog", 1, outline, 1.0, False) for outline in outlines]))


def isat_file(polygons: Sequence[tuple[str, int, Any, float, bool]]) -> str:
    """ISAT's JSON of polygons: category, group, points, layer, iscrowd."""
    info = {"description": "ISAT", "folder": "D:/photos", "name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    keys = ("category", "group", "segmentation", "layer", "iscrowd")
    return json.dumps({"info": info, "objects": [dict(zip(keys, one, strict=True)) for one in polygons]})


def cityscapes(root: Path) -> None:
    """Outlines go through the last pixels of rows; in one split a later polygon hides some of the object."""
    outline = [[20, 10], [59, 10], [59, 40], [20, 40]]
    wide = [[20, 10], [79, 10], [79, 40], [20, 40]]
    sky = [[60, 0], [79, 0], [79, 60], [60, 60]]
    for split, polygons in (("train", [("car", outline)]), ("val", [("car", wide), ("sky", sky)])):
        image(root / "leftImg8bit" / split / "ulm" / "ulm_000000_000019_leftImg8bit.png")
        objects = [{"label": label, "polygon": points} for label, points in polygons]
        content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}
        write(root / "gtFine" / split / "ulm" / "ulm_000000_000019_gtFine_polygons.json", json.dumps(content))


def darwin(root: Path) -> None:
    """A polygon in one split; in the other a mask, as runs of numbers in a layer that holds all masks."""
    rows = [0, 10 * WIDTH, *[0, 20, 5, 40, 0, 20] * 30, 0, 20 * WIDTH]
    layer = {"dense_rle": rows, "mask_annotation_ids_mapping": {"b": 5}, "total_pixels": WIDTH * HEIGHT}
    polygon = {"paths": [[{"x": x, "y": y} for x, y in CORNERS]]}
    train = [
        {"id": "a", "name": "dog", "polygon": polygon, "bounding_box": {"x": 20, "y": 10, "w": 40, "h": 30}}
    ]
    val = [
        {"id": "b", "name": "dog", "mask": {}},
        {"id": "c", "name": "__raster_layer__", "raster_layer": layer},
    ]
    for split, objects in (("train", train), ("val", val)):
        image(root / split / "a.jpg")
        slot = {"type": "image", "slot_name": "0", "width": WIDTH, "height": HEIGHT}
        item = {"name": "a.jpg", "path": "/", "slots": [slot]}
        write(root / split / "a.json", json.dumps({"version": "2.0", "item": item, "annotations": objects}))


def superannotate(root: Path) -> None:
    """An outline in one split, with the name of its class elsewhere; two colours of a mask in the other."""
    outline = {"type": "polygon", "classId": 7, "points": [value for point in CORNERS for value in point]}
    masks = {"classId": 7, "className": "dog", "parts": [{"color": "#0001ff"}, {"color": "#ff0000"}]}
    colours = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    colours[10:40, 20:30] = [0, 1, 255, 255]
    colours[10:40, 30:60] = [255, 0, 0, 255]
    for split, kind, one in (("train", "", outline), ("val", "___pixel", masks)):
        image(root / split / "a.jpg")
        metadata = {"name": "a.jpg", "width": WIDTH, "height": HEIGHT, "status": "Completed"}
        content = {"metadata": metadata, "instances": [one], "tags": [], "comments": []}
        write(root / split / f"a.jpg{kind}.json", json.dumps(content))
    Image.fromarray(colours).save(root / "val" / "a.jpg___save.png")
    write(root / "classes" / "classes.json", json.dumps([{"id": 7, "name": "dog"}]))


def via(root: Path) -> None:
    shape = {"name": "polygon", "all_points_x": [20, 60, 60, 20], "all_points_y": [10, 10, 40, 40]}
    region = {"shape_attributes": shape, "region_attributes": {"animal": "dog"}}
    for split, regions in (("train", {"0": region}), ("val", [region])):
        image(root / split / "a.jpg")
        entries = {"a.jpg99": {"filename": "a.jpg", "size": 99, "regions": regions, "file_attributes": {}}}
        content = entries if split == "train" else {"_via_settings": {}, "_via_img_metadata": entries}
        write(root / split / "via_region_data.json", json.dumps(content))


def via3(root: Path) -> None:
    """A polygon in one split; a rectangle in the other, as far as four points."""
    polygon = [7, *(value for point in CORNERS for value in point)]
    edges = [8, 30, 10, 60, 20, 40, 40, 20, 30]
    for split, shape in (("train", polygon), ("val", edges)):
        image(root / split / "a.jpg")
        write(root / split / "via_project.json", via3_file([("a.jpg", [(shape, {"1": "0"})])]))


def via3_file(files: list[tuple[str, list[Any]]], **more: Any) -> str:
    """A project of VIA 3: of each file its regions, with their shapes and attributes."""
    options = {"0": "dog", "1": "cat"}
    attribute = {"aname": "animal", "anchor_id": "FILE1_Z0_XY1", "type": 3, "options": options}
    regions = {
        f"{view}_{number}": {"vid": str(view), "z": [], "xy": xy, "av": values}
        for view, (_, drawn) in enumerate(files, start=1)
        for number, (xy, values) in enumerate(drawn)
    }
    content = {
        "project": {"pid": "x", "rev": "1", "rev_timestamp": "2", "vid_list": []},
        "config": {"file": {}},
        "attribute": {"1": attribute | more},
        "file": {str(i): {"fid": i, "fname": name, "type": 2} for i, (name, _) in enumerate(files, start=1)},
        "metadata": regions,
        "view": {str(i): {"fid_list": [i]} for i in range(1, len(files) + 1)},
    }
    return json.dumps(content)


def kitti(root: Path) -> None:
    for split in ("training", "val"):
        image(root / split / "image_2" / "000000.png")
        line = "dog 0.00 0 -1.57 20.00 10.00 60.00 40.00 2.85 2.63 12.34 0.47 1.49 69.44 -1.56"
        write(root / split / "label_2" / "000000.txt", f"{line}\n")


def dota(root: Path) -> None:
    corners = " ".join(f"{value:.1f}" for point in CORNERS for value in point)
    for split, header in (("train", "imagesource:GoogleEarth\ngsd:null\n"), ("val", "")):
        image(root / split / "images" / "P0000.png")
        write(root / split / "labelTxt" / "P0000.txt", f"{header}{corners} dog 0\n")


def supervisely(root: Path) -> None:
    """A polygon in one split, a mask with a palette, as the SDK writes it, in the other."""
    for split, name in (("train", "a"), ("val", "b")):
        image(root / split / "img" / f"{name}.jpg")
        common = {"id": 1, "classTitle": "dog", "tags": []}
        drawn = {"geometryType": "polygon", "points": {"exterior": CORNERS, "interior": []}}
        if split == "val":
            bitmap = {"origin": [20, 10], "data": png_of(MASK[10:40, 20:60])}
            drawn = {"geometryType": "bitmap", "bitmap": bitmap}
        size = {"height": HEIGHT, "width": WIDTH}
        content = {"description": "", "tags": [], "size": size, "objects": [common | drawn]}
        write(root / split / "ann" / f"{name}.jpg.json", json.dumps(content))
    write(root / "meta.json", json.dumps({"classes": [{"title": "dog", "shape": "any"}], "tags": []}))


def png_of(mask: np.ndarray, mode: str = "P") -> str:
    """A mask as Supervisely packs it: with a palette whose 0 is transparent, or in colours with opacity."""
    file = io.BytesIO()
    if mode == "P":
        picture = Image.fromarray(mask)
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(file, format="PNG", transparency=0)
    else:
        Image.fromarray(np.repeat(255 * mask[..., None], 4, 2)).save(file, format="PNG")
    return base64.b64encode(zlib.compress(file.getvalue())).decode()


# MASK as Label Studio's brush packs it: written by @thi.ng/rle-pack, which Label Studio uses.
PAINTED = (
    "AABLADkb/wzPANP/+nwDT//p8A0//6fANP/+nwDT//p8A0//6fANP/+nwDT//p8A0//6fANP/+nwDT//p8A0//6fANP/+nwDT//p"
    "8A0//6fANP/+nwDT//p8A0//6fANP/+nwDT//p8A0//6fANP/+nwDT//p8A0//6fANP/+nwDT//p8A0//6fANP/+nwDT//p8A0//"
    "8ZTwAA=="
)


def label_studio(root: Path) -> None:
    """A polygon in one split, a painted mask in the other; one image by its uploaded name."""
    image(root / "images" / "1f0c9d2e-a.jpg")
    image(root / "b.jpg")
    polygon = {"points": [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CORNERS], "closed": True}
    painted = {"format": "rle", "rle": list(base64.b64decode(PAINTED))}
    for split, name, value, kind in (
        ("train", "/data/upload/3/1f0c9d2e-a.jpg", polygon, "polygonlabels"),
        ("val", "/data/local-files/?d=pets%5Cb.jpg", painted, "brushlabels"),
    ):
        task = {"id": 1, "data": {"image": name}, "annotations": [{"result": [region(kind, value, "dog")]}]}
        write(root / f"{split}.json", json.dumps([task]))


def region(kind: str, value: dict[str, Any], label: str = "", **more: Any) -> dict[str, Any]:
    """A region as in Label Studio's JSON; one without a label is only drawn."""
    value = value | ({kind: [label]} if label else {})
    sides = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"type": kind, "from_name": "tag", "to_name": "image", "value": value, **sides, **more}


def voc(root: Path) -> None:
    box = "<bndbox><xmin>21</xmin><ymin>11</ymin><xmax>60</xmax><ymax>40</ymax></bndbox>"
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    for name, split in (("a", "train"), ("b", "val")):
        image(root / "JPEGImages" / f"{name}.jpg")
        objects = f"<object><name>dog</name>{box}</object>"
        text = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
        write(root / "Annotations" / f"{name}.xml", text)
        write(root / "ImageSets" / "Segmentation" / f"{split}.txt", f"{name}\n")
        mask = Image.fromarray(MASK, mode="P")
        mask.putpalette([0, 0, 0, 128, 0, 0])
        (root / "SegmentationObject").mkdir(exist_ok=True)
        mask.save(root / "SegmentationObject" / f"{name}.png")


def voc_beside_images(root: Path) -> None:
    voc(root / "voc")
    for name, split in (("a", "train"), ("b", "valid")):
        image(root / split / f"{name}.jpg")
        (root / "voc" / "Annotations" / f"{name}.xml").rename(root / split / f"{name}.xml")
    (root / "voc" / "Annotations").rmdir()


def cvat(root: Path) -> None:
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("cat", "dog"))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    points = ";".join(f"{x},{y}" for x, y in CORNERS)
    shapes = {
        "Train": f'<polygon label="dog" points="{points}" occluded="0"/>',
        "Validation": '<mask label="dog" rle="0,1200" left="20" top="10" width="40" height="30"/>',
    }
    images = ""
    for subset, shape in shapes.items():
        image(root / "images" / subset / f"{subset}.jpg")
        attributes = f'id="0" name="{subset}.jpg" subset="{subset}" width="80" height="60"'
        images += f"<image {attributes}>{shape}</image>"
    write(root / "annotations.xml", f"<annotations><version>1.1</version>{meta}{images}</annotations>")


def darknet_of_cvat(root: Path) -> None:
    """CVAT's "YOLO 1.1", whose paths begin with a folder that is not in the archive."""
    for split in ("train", "valid"):
        image(root / f"obj_{split}_data" / "a.jpg")
        line = f"1 {40 / WIDTH} {25 / HEIGHT} {40 / WIDTH} {30 / HEIGHT}\n"
        write(root / f"obj_{split}_data" / "a.txt", line)
        write(root / f"{split}.txt", f"data/obj_{split}_data/a.jpg\n")
    write(root / "obj.names", "cat\ndog\n")
    lists = "train = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    write(root / "obj.data", f"classes = 2\n{lists}backup = backup/\n")


def yolo_of_cvat(root: Path) -> None:
    """CVAT's "Ultralytics YOLO Segmentation 1.0": lists of images, with the same folder before them."""
    yolo_names_by_number(root)
    names = "names:\n  0: cat\n  1: dog\n"
    write(root / "dataset.yaml", f"path: .\ntrain: train.txt\nval: val.txt\n{names}")
    for split in ("train", "val"):
        write(root / f"{split}.txt", f"data/images/{split}/a.jpg\n")


def label_img(root: Path) -> None:
    """Labels beside the images and a list of classes: LabelImg, Label Studio, makesense.ai."""
    yolo(root, outlines=False)
    (root / "data.yaml").unlink()
    write(root / "classes.txt", "cat\ndog\n")


def darknet_of_roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        image(root / split / "a.jpg")
        write(root / split / "a.txt", f"1 {40 / WIDTH} {25 / HEIGHT} {40 / WIDTH} {30 / HEIGHT}\n")
        write(root / split / "_darknet.labels", "cat\ndog\n")


def panoptic(root: Path) -> None:
    categories = [{"id": 3, "name": "dog", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}]
    segments = [{"id": 300, "category_id": 3}, {"id": 7, "category_id": 9}]
    colours = np.where(MASK[..., None] == 1, np.uint8([300 % 256, 300 // 256, 0]), np.uint8([7, 0, 0]))
    for split in ("train2017", "val2017"):
        image(root / split / "a.jpg")
        masks = root / "annotations" / f"panoptic_{split}"
        masks.mkdir(parents=True)
        Image.fromarray(colours).save(masks / "a.png")
        images = [{"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}]
        annotations = [{"image_id": 1, "file_name": "a.png", "segments_info": segments}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write(masks.with_suffix(".json"), json.dumps(content))


def masks_of_numbers(root: Path) -> None:
    """One label image for each image, as cells and pedestrians are often given."""
    for split in ("train", "valid"):
        image(root / split / "images" / "a.jpg")
        (root / split / "masks").mkdir()
        cv2.imwrite(str(root / split / "masks" / "a_mask.png"), MASK.astype(np.uint16) * 300)
    write(root / "classes.txt", "dog")


def masks_of_objects(root: Path) -> None:
    """A folder of masks for each image, one of them empty."""
    for name, split in (("a", "train"), ("b", "val")):
        image(root / "images" / split / f"{name}.jpg")
        folder = root / "masks" / split / name
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "0.png"), MASK * 255)
        cv2.imwrite(str(folder / "1.png"), MASK * 0)
    write(root / "classes.txt", "dog")


def folder_an_image(root: Path) -> None:
    """As the Data Science Bowl of 2018: a folder of an image, with its masks."""
    masks_of_objects(root / "other")
    for name, split in (("a", "train"), ("b", "val")):
        folder = root / f"stage1_{split}" / f"{name}0"
        image(folder / "images" / f"{name}0.png")
        (root / "other" / "masks" / split / name).rename(folder / "masks")
        (root / "other" / "images" / split / f"{name}.jpg").unlink()
    write(root / "classes.txt", "dog")


def labelme_to_voc(root: Path) -> None:
    """Masks of objects beside masks of classes, without XML: labelme2voc."""
    for split in ("train", "val"):
        image(root / split / "JPEGImages" / "a.jpg")
        for folder, number in (("SegmentationObject", 4), ("SegmentationClass", 2)):
            (root / split / folder).mkdir()
            cv2.imwrite(str(root / split / folder / "a.png"), MASK * number)
    write(root / "class_names.txt", "_background_\ncat\ndog\n")


def hub_list(root: Path) -> None:
    for split in ("train", "test"):
        image(root / split / "a.jpg")
        objects = {"bbox": [[20, 10, 40, 30]], "category": ["dog"]}
        row = {
            "file_name": "a.jpg",
            "objects": objects if split == "train" else [{"bbox": [20, 10, 40, 30], "label": "dog"}],
        }
        write(root / split / "metadata.jsonl", json.dumps(row) + "\n")
    (root / "test").rename(root / "validation")


FORMATS = [
    *(yolo, yolo_boxes, yolo_names_by_number, darknet, label_img, labelme, via, voc, voc_beside_images, cvat),
    *(isat, supervisely, label_studio, cityscapes, darwin, superannotate, via3, kitti, dota),
    *(
        darknet_of_cvat,
        darknet_of_roboflow,
        yolo_of_cvat,
        panoptic,
        masks_of_numbers,
        masks_of_objects,
        folder_an_image,
        labelme_to_voc,
        hub_list,
    ),
]
BOXES_ONLY = (
    *(kitti, yolo_boxes, darknet, darknet_of_cvat, darknet_of_roboflow, label_img, voc_beside_images),
    hub_list,
)


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_formats_give_the_same_objects(
    make: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path)
    splits = load_splits(tmp_path)
    assert list(splits) == ["train", "valid"]
    for dataset in splits.values():
        (record,) = dataset.records
        (item,) = record.instances
        assert (record.width, record.height) == (WIDTH, HEIGHT)
        assert dataset.class_names[item.label] == ("car" if make is cityscapes else "dog")
        np.testing.assert_allclose(item.box, BOX, atol=1e-6)
        assert item.area == pytest.approx(40 * 30, rel=0.02)
        assert dataset.read_image(0).shape == (HEIGHT, WIDTH, 3)
        if item.segmentation:
            np.testing.assert_array_equal(segmentation_to_mask(item.segmentation, (HEIGHT, WIDTH)), MASK)
    has_outlines = make not in BOXES_ONLY
    assert bool(splits["train"].records[0].instances[0].segmentation) == has_outlines
    told = ("have no outline", "are black and white")
    assert all(any(words in message for words in told) for message in caplog.messages)
    valid = load_split(tmp_path, "valid", splits["train"].class_names)
    assert len(valid.records[0].instances) == 1


def test_shapes_of_label_studio(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Percentages of the sides; what was drawn first and named then is one object; points have no area."""
    square = {"x": 25, "y": 50, "width": 50, "height": 20, "rotation": 0}  # 20, 30 to 60, 42 in pixels
    oval = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 20, "rotation": 90}  # turned: 12 across, 20 down
    regions = [
        region("rectanglelabels", square | {"width": 25, "rotation": 90}, "turned"),
        region("ellipselabels", oval, "oval"),
        region("rectangle", square, id="x"),
        region("labels", square, "named", id="x"),
        region("keypointlabels", {"x": 5, "y": 5, "width": 0.3}, "point"),
        region("brushlabels", {"format": "rle", "rle": [0, 0, 255, 9, 1]}, "damaged"),
        {"type": "choices", "value": {"choices": ["sharp"]}},
    ]
    image(tmp_path / "photos" / "a.jpg")
    task = {"id": 7, "data": {"title": "a cat", "image": "s3://bucket/x/a.jpg"}}
    annotations = [
        {"result": [], "updated_at": "2026-01-02"},
        {"result": regions, "updated_at": "2026-01-03"},
        {"result": [], "updated_at": "2026-01-04", "was_cancelled": True},
    ]
    undone = [
        {"data": {"image": "b.jpg"}, "predictions": [{"result": regions}]},
        {"data": {}, "annotations": []},
    ]
    write(
        tmp_path / "project-1-at-2026-01-05.json", json.dumps([task | {"annotations": annotations}, *undone])
    )
    dataset = load_splits(tmp_path, val_fraction=0)["train"]
    (record,) = dataset.records
    boxes = {dataset.class_names[item.label]: item.box for item in record.instances}
    assert boxes.keys() == {"turned", "oval", "named"}
    np.testing.assert_allclose(boxes["turned"], (20 - 12, 30, 20, 30 + 20), atol=1e-6)
    np.testing.assert_allclose(boxes["oval"], (40 - 12, 30 - 20, 40 + 12, 30 + 20), atol=0.1)
    np.testing.assert_allclose(boxes["named"], (20, 30, 60, 42), atol=1e-6)
    assert "1 of 4 annotations have neither a box nor an outline" in caplog.text
    assert "1 of 3 tasks have no finished annotation (first: b.jpg); left out" in caplog.text
    assert "1 of 3 tasks name no image (first: task 3); left out" in caplog.text
    assert "1 of 3 tasks were annotated several times (first: x/a.jpg); the newest is taken" in caplog.text


@pytest.mark.parametrize("name", ["x" * 300 + ".png", f"data:image/png;base64,{'A' * 999}"])
def test_a_task_of_label_studio_with_no_name_of_a_file(tmp_path: Path, name: str) -> None:
    """Some tasks have the image itself, as text."""
    image(tmp_path / "a.jpg")
    result = [region("polygonlabels", {"points": [[1, 1], [50, 1], [50, 50]]}, "cat")]
    tasks = [{"data": {"image": one}, "annotations": [{"result": result}]} for one in ("a.jpg", name)]
    write(tmp_path / "project.json", json.dumps(tasks))
    with pytest.raises(GCNetError, match=r"^1 of the 2 images listed in .*project\.json are missing"):
        load_splits(tmp_path)


def test_label_studio_has_a_short_form_and_masks_in_colour(tmp_path: Path) -> None:
    """JSON-MIN has the regions in the task; the mask was packed by @thi.ng/rle-pack, colour by colour."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 6, 3), np.uint8))
    runs = [0, 0, 0, 96, 57, 27, 254, 31, 0, 62, *(26, 155, 147, 254) * 3, 26, 155, 147]
    runs += [255, 56, 1, 240, *(212, 220, 159, 240) * 3, 212, 220, 159, 252, 46, 0]
    painted = {
        "format": "rle",
        "rle": runs,
        "brushlabels": ["cat"],
        "original_width": 6,
        "original_height": 4,
    }
    # Label Studio puts eight digits before the names of what is uploaded.
    write(
        tmp_path / "export.json",
        json.dumps([{"image": "/data/upload/1/0123abcd-a.png", "id": 1, "tag": [painted]}]),
    )
    (record,) = load_splits(tmp_path, val_fraction=0)["train"].records
    (item,) = record.instances
    wanted = np.zeros((4, 6), np.uint8)
    wanted[1:3, 2:6] = 1
    np.testing.assert_array_equal(segmentation_to_mask(item.segmentation, (4, 6)), wanted)


def test_shapes_of_supervisely(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A box, a polygon with a hole, a mask in colours; points have no area, damaged masks are counted."""
    hole = [[30, 20], [50, 20], [50, 30], [30, 30]]
    shapes = [
        {"geometryType": "rectangle", "points": {"exterior": [[59, 39], [20, 10]]}},
        {"geometryType": "polygon", "points": {"exterior": CORNERS, "interior": [hole]}},
        {
            "geometryType": "bitmap",
            "bitmap": {"origin": [20, 10], "data": png_of(MASK[10:40, 20:60], "RGBA")},
        },
        {"geometryType": "point", "points": {"exterior": [[5, 5]]}},
        {"geometryType": "bitmap", "bitmap": {"origin": [20, 10], "data": "nothing="}},
        {
            "geometryType": "bitmap",
            "bitmap": {"origin": [20, 10], "data": base64.b64encode(zlib.compress(b"x")).decode()},
        },
        {"geometryType": "polygon", "points": {"exterior": [[0, 0], [None, 1], [2, 2]], "interior": [hole]}},
    ]
    image(tmp_path / "img" / "a.jpg")
    content = {"tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": []}
    content["objects"] = [{"classTitle": f"{i}", **shape} for i, shape in enumerate(shapes)]
    write(tmp_path / "ann" / "a.jpg.json", json.dumps(content))
    (record,) = load_splits(tmp_path, val_fraction=0)["train"].records
    box, ring, mask = record.instances
    assert box.box == ring.box == mask.box == BOX
    with_hole = MASK.copy()
    with_hole[20:30, 30:50] = 0
    np.testing.assert_array_equal(segmentation_to_mask(ring.segmentation, (HEIGHT, WIDTH)), with_hole)
    np.testing.assert_array_equal(segmentation_to_mask(mask.segmentation, (HEIGHT, WIDTH)), MASK)
    assert "4 of 7 annotations have neither a box nor an outline (first: id a.jpg.json:3)" in caplog.text


def test_objects_of_isat(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Group 0 is none; background above an object is a hole in it, and below it nothing."""
    hole = [[30, 20], [50, 20], [50, 30], [30, 30]]
    polygons = [
        ("__background__", 0, [[21, 11], [29, 11], [29, 19]], 1.0, False),
        ("dog", 0, CORNERS, 2.0, False),
        ("dog", 0, [[2, 2], [9, 2], [9, 9]], 3.0, False),
        ("cat", 1, [[62, 42], [70, 42], [70, 50]], 4.0, True),
        ("cat", 1, [[72, 42], [79, 42], [79, 50]], 5.0, False),
        ("__background__", 0, hole, 6.0, False),
        ("dog", 2, [[1, 2], [None, 3], [4, 4]], 7.0, False),
    ]
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "marks" / "a.json", isat_file(polygons))
    dataset = load_splits(tmp_path, val_fraction=0)["train"]
    assert dataset.class_names == ("cat", "dog")
    ring, triangle, crowd, cat = dataset.records[0].instances
    assert [one.crowd for one in (ring, triangle, crowd, cat)] == [False, False, True, False]
    with_hole = MASK.copy()
    with_hole[20:30, 30:50] = 0
    np.testing.assert_array_equal(segmentation_to_mask(ring.segmentation, (HEIGHT, WIDTH)), with_hole)
    assert triangle.box == (2, 2, 9, 9)
    assert "1 of 5 annotations have neither a box nor an outline (first: id a.json:4)" in caplog.text
    with pytest.raises(GCNetError, match=r"1 of the 1 images .* are outside of its folder, first .*a\.jpg"):
        load_splits(tmp_path / "marks")


def test_shapes_of_via3(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of several marks the first is the class; lines and points have no area, a file no shape."""
    regions = [
        ([2, 5, 6, 20, 30], {"1": "1,0"}),
        ([3, 40, 30, 10], {"1": "_DEFAULT"}),
        ([4, 40, 30, 20, 10], {"1": "0"}),
        ([9, 40, 20, 50, 30, 40, 40], {"1": "wolf"}),
        ([6, *(value for point in CORNERS for value in point)], {"1": "1"}),
        ([5, 1, 2, 3, 4], {"1": "0"}),
        ([1, 1, 2], {"1": "0"}),
        ([9, 1, 1, 2, 2, 3, 3], {"1": "0"}),
        ([], {"1": "0"}),
        ([7, "a"], 5),
    ]
    image(tmp_path / "images" / "a b.jpg")
    image(tmp_path / "images" / "c.jpg")
    files = [("https://host/photos/a%20b.jpg", regions), ("c.jpg", [])]
    write(tmp_path / "project.json", via3_file(files, default_option_id="0"))
    dataset = load_splits(tmp_path, val_fraction=0)["train"]
    assert dataset.class_names == ("cat", "dog", "wolf")
    first, second = dataset.records
    names = [dataset.class_names[one.label] for one in first.instances]
    assert names == ["cat", "dog", "dog", "wolf", "cat"]
    boxes = [(5, 6, 25, 36), (30, 20, 50, 40), (20, 20, 60, 40), (30, 20, 50, 40), BOX]
    np.testing.assert_allclose([one.box for one in first.instances], boxes, atol=0.1)
    assert second.instances == ()
    assert "1 of 9 objects have no class (first: https://host/photos/a%20b.jpg:1_9); left out" in caplog.text
    assert "3 of 8 annotations have neither a box nor an outline" in caplog.text


def test_videos_of_via3_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "a.jpg")
    content = json.loads(via3_file([("a.jpg", [([2, 5, 6, 20, 30], {"1": "1"})]), ("b.mp4", [])]))
    content["file"]["2"]["type"] = 4
    content |= {
        "metadata": content["metadata"] | {"x": {"vid": [], "xy": 7}, "y": 8},
        "view": content["view"] | {"3": 9},
    }
    write(tmp_path / "a.json", json.dumps(content))
    (record,) = load_splits(tmp_path, val_fraction=0)["train"].records
    assert len(record.instances) == 1
    assert "1 of 2 files are no images (first: b.mp4); left out" in caplog.text


def test_files_of_one_name_in_two_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What tells people which object it is, is no id of theirs that occurs twice."""
    for folder in ("first", "second"):
        image(tmp_path / folder / "a.jpg")
        write(tmp_path / folder / "a.json", isat_file([("dog", 1, CORNERS, 1.0, False)]))
    dataset = load_splits(tmp_path, val_fraction=0)["train"]
    ids = [one.id for record in dataset.records for one in record.instances]
    assert ids == ["a.json:0", "a.json:0 (2)"]
    assert caplog.messages == []


def test_one_folder_of_labelme_is_divided(tmp_path: Path) -> None:
    labelme(tmp_path)
    (tmp_path / "val" / "a.json").rename(tmp_path / "train" / "b.json")
    (tmp_path / "train").rename(tmp_path / "photos")
    splits = load_splits(tmp_path / "photos")
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 1, "valid": 1}


def test_shapes_of_labelme(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shapes = [
        {"label": "box", "points": [[5, 6], [25, 36]], "shape_type": "rectangle"},
        {"label": "disc", "points": [[40, 30], [40, 40]], "shape_type": "circle"},
        {"label": "two parts", "points": CORNERS, "shape_type": "polygon", "group_id": 3},
        {"label": "two parts", "points": [[0, 0], [9, 0], [9, 9]], "shape_type": "polygon", "group_id": 3},
        {"label": "box", "points": [[5, 6]], "shape_type": "point"},
        {"label": "__ignore__", "points": CORNERS, "shape_type": "polygon"},
    ]
    image(tmp_path / "a.jpg")
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    write(tmp_path / "a.json", json.dumps({"shapes": shapes, "imagePath": r"..\a.jpg", **size}))
    dataset = load_splits(tmp_path)["train"]
    assert dataset.class_names == ("box", "disc", "two parts")
    boxes = {dataset.class_names[item.label]: item.box for item in dataset.records[0].instances}
    assert boxes["box"] == (5, 6, 25, 36)
    np.testing.assert_allclose(boxes["disc"], (30, 20, 50, 40))
    assert boxes["two parts"] == (0, 0, 60, 40)
    (message,) = caplog.messages
    assert "1 of 4 annotations have neither a box nor an outline (first: id a.json:4)" in message


def test_masks_of_one_group_of_labelme_are_one_object(tmp_path: Path) -> None:
    """So are polygons beside them."""
    mask = base64.b64encode(cv2.imencode(".png", np.full((9, 9), 255, np.uint8))[1].tobytes()).decode()
    dog = {"label": "dog", "group_id": 1}
    shapes = [{**dog, "points": [[x, 2], [x + 8, 10]], "shape_type": "mask", "mask": mask} for x in (2, 70)]
    image(tmp_path / "a.jpg")
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    write(tmp_path / "a.json", json.dumps({"shapes": [*shapes, {**dog, "points": CORNERS}], **size}))
    (item,) = load_splits(tmp_path)["train"].records[0].instances
    expected = MASK.copy()
    expected[2:11, 2:11] = expected[2:11, 70:79] = 1
    np.testing.assert_array_equal(segmentation_to_mask(item.segmentation, (HEIGHT, WIDTH)), expected)


def test_broken_lines_of_yolo_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    yolo(tmp_path)
    labels = tmp_path / "train" / "labels" / "a.txt"
    labels.write_text(f"{labels.read_text()}7 0.5 0.5 0.1 0.1\nx y\n1 0.1 0.2 0.3\n")
    assert len(load_splits(tmp_path)["train"].records[0].instances) == 1
    assert "2 of 4 annotations have a category that is not listed (first: id a.txt:2" in caplog.text
    assert "1 of 4 annotations have neither a box nor an outline (first: id a.txt:4)" in caplog.text


def test_masks_of_black_and_white_are_taken_apart(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:20, 5:20] = mask[30:50, 40:70] = 255
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), mask)
    (record,) = load_splits(tmp_path)["train"].records
    assert sorted(item.box for item in record.instances) == [(5, 5, 20, 20), (40, 30, 70, 50)]


def test_masks_whose_numbers_may_be_classes_are_asked_about(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:20, 5:20] = mask[30:50, 40:70] = 1
    mask[40:59, 5:25] = mask[5:20, 60:70] = 2
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), mask)
    with pytest.raises(GCNetError, match=r"are they classes\? Then put there a classes.txt"):
        load_splits(tmp_path)
    write(tmp_path / "classes.txt", "cat\ndog\n")
    dataset = load_splits(tmp_path)["train"]
    assert [dataset.class_names[item.label] for item in dataset.records[0].instances] == ["cat"] * 2 + [
        "dog"
    ] * 2
    write(tmp_path / "classes.txt", "pet\n")
    assert len(load_splits(tmp_path)["train"].records[0].instances) == 2


def test_shades_are_no_masks(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    shades = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), shades)
    with pytest.raises(GCNetError, match="has 4799 values: no mask"):
        load_splits(tmp_path)


@pytest.mark.parametrize("place", ["data/{}-00000-of-00001.parquet", "default/{}/0000.parquet"])
def test_a_table_of_the_hub(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As cppe-5 is laid out: images in the file, lists of boxes and numbers, names among the features."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("GCNET_HOME", str(tmp_path / "home"))
    data = image(tmp_path / "a.png").read_bytes()
    objects = {"id": [1], "area": [1200], "bbox": [[20.0, 10.0, 40.0, 30.0]], "category": [1]}
    rows = {"image_id": [5], "image": [{"bytes": data, "path": "a.png"}], "objects": [objects]}
    label = {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "Sequence"}
    features = {"info": {"features": {"objects": {"category": label}}}}
    table = arrow.table(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
    for split in ("train", "test"):
        path = tmp_path / "hub" / place.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)
    splits = load_splits(tmp_path / "hub")
    assert list(splits) == ["train", "test"]
    (record,) = splits["test"].records
    assert splits["test"].class_names == ("cat", "dog")
    assert [(item.label, item.box) for item in record.instances] == [(1, BOX)]
    assert splits["test"].read_image(0).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "label": [1]}, r"train\.parquet has no columns image and objects; see "),
        (
            {"image": [{"path": "a.jpg"}], "objects": [{"bbox": [[1.0, 2, 3, 4]]}]},
            r"train\.parquet: image 0 is not",
        ),
    ],
)
def test_a_table_that_holds_no_images_or_objects(
    columns: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("GCNET_HOME", str(tmp_path / "home"))
    parquet.write_table(arrow.table(columns), tmp_path / "train.parquet")
    with pytest.raises(GCNetError, match=f"^{tmp_path}/{message}"):
        load_splits(tmp_path / "train.parquet")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xml", "<annotation><object>", "a.xml is not XML"),
        ("annotations.xml", "<annotations><track/></annotations>", "CVAT's format for videos"),
        ("data.yaml", "names: [a]\ntrain: nowhere", "its training images are not there"),
        ("notes.txt", "hello", r"holds no data set that is known \(COCO, .*notes.txt: no labels of YOLO"),
    ],
)
def test_what_cannot_be_read_is_one_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / name, text)
    with pytest.raises(GCNetError, match=message) as caught:
        load_splits(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_was_looked_for_and_found_fits_in_a_line(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / f"{number}.json", '{"a": 1, "b": 2}')
    with pytest.raises(
        GCNetError, match=r"\(COCO, .*; 0.json: has a, b, not .*; and \d more files$"
    ) as caught:
        load_splits(tmp_path)
    assert one_line(str(caught.value)) == str(caught.value)
    for number in range(9):
        write(tmp_path / f"{number}.json", '{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(
        GCNetError, match=r"no annotations and no categories in 0.json \(0 images\).* COCO, .*"
    ) as caught:
        load_splits(tmp_path / "0.json")
    assert one_line(str(caught.value)) == str(caught.value)


def test_a_mask_is_no_larger_than_its_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A few bytes of PNG can say any size: they do not choose how much memory is taken."""
    labelme(tmp_path)
    path = tmp_path / "val" / "a.json"
    content = json.loads(path.read_text())
    large = cv2.imencode(".png", np.zeros((HEIGHT + 1, WIDTH), np.uint8))[1].tobytes()
    content["shapes"][0]["mask"] = base64.b64encode(large).decode()
    path.write_text(json.dumps(content))
    assert load_splits(tmp_path)["valid"].records[0].instances == ()
    assert "1 of 1 annotations have neither a box nor an outline" in caplog.text


def test_an_annotation_file_is_enough(tmp_path: Path) -> None:
    yolo(tmp_path)
    assert list(load_splits(tmp_path / "data.yaml")) == ["train", "valid"]


@pytest.mark.parametrize(
    "points", ["[[1]]", "[[1, 2], [3]]", "7", '[["a", "b"], ["c", "d"]]', "[null, null]", "{}"]
)
@pytest.mark.parametrize("kind", ["polygon", "rectangle", "circle", "mask", "ellipse", "rect"])
def test_values_that_are_not_the_formats_are_counted(
    points: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("labelme", "via"):
        image(tmp_path / name / "a.jpg")
    shape = f'{{"label": "x", "points": {points}, "shape_type": "{kind}", "mask": "!"}}'
    write(tmp_path / "labelme" / "a.json", f'{{"shapes": [{shape}], "imageHeight": 60, "imageWidth": 80}}')
    attributes = f'{{"name": "{kind}", "all_points_x": {points}, "r": {points}, "x": {points}}}'
    regions = f'[{{"shape_attributes": {attributes}, "region_attributes": {points}}}]'
    write(tmp_path / "via" / "via.json", f'{{"a": {{"filename": "a.jpg", "regions": {regions}}}}}')
    for name in ("labelme", "via"):
        assert len(load_splits(tmp_path / name)["train"]) == 1


def test_hostile_shapes_of_xml(tmp_path: Path) -> None:
    """Masks that ask for memory, numbers that are none, entities that grow."""
    image(tmp_path / "a.jpg")
    shapes = (
        '<mask label="x" rle="0,99999999999" left="0" top="0" width="99999" height="99999"/>'
        '<mask label="x" rle="" left="a" top="0" width="1" height="1"/><polygon label="x" points="e;e"/>'
        '<box label="x" xtl="nan" ytl="1e999" xbr="?" ybr="3"/><ellipse label="x"/>'
    )
    text = f'<annotations><image name="a.jpg" width="80" height="60">{shapes}</image></annotations>'
    write(tmp_path / "annotations.xml", text)
    (record,) = load_splits(tmp_path)["train"].records
    assert not record.instances
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE annotations [<!ENTITY a0 "lol">{entities}]><annotations>&a11;</annotations>'
    write(tmp_path / "annotations.xml", bomb)
    with pytest.raises(GCNetError, match="is not XML"):
        load_splits(tmp_path)


def test_hostile_lists_of_yolo(tmp_path: Path) -> None:
    yolo(tmp_path)
    labels = tmp_path / "train" / "labels" / "a.txt"
    labels.write_bytes(labels.read_bytes() + b"\xff\xfe 1\n1 nan inf 1e999 -1\n" + b"1 " * 7 + b"\n")
    assert len(load_splits(tmp_path)["train"].records[0].objects(masks=False)) == 1
    for names in ("5", "[[[]]]", "{a: {b: c}}", "*x", "&a [*a]"):
        write(tmp_path / "data.yaml", f"train: train/images\nnames: {names}\n")
        with pytest.raises(GCNetError, match="holds no data set"):
            load_splits(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "annotations/panoptic_train.json",
        "_annotations.coco.json",
        "annotations.xml",
        "data.yaml",
        "classes.txt",
    ],
)
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "annotations" / "panoptic_train").mkdir(parents=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(GCNetError):
        load_splits(tmp_path)


def test_names_too_long_for_a_file_lead_nowhere(tmp_path: Path) -> None:
    darknet(tmp_path)
    data = tmp_path / "data" / "obj.data"
    text = data.read_text()
    write(data, text.replace("obj.names", "x" * 5000))
    assert list(load_splits(tmp_path)) == ["train", "valid"]  # by the names and labels that are there
    write(data, text.replace("train.txt", "x" * 5000))
    with pytest.raises(GCNetError, match="its training images are not there"):
        load_splits(tmp_path)


def test_folders_above_the_data_set_are_not_searched(tmp_path: Path) -> None:
    image(tmp_path / "private.jpg")
    yolo(tmp_path / "pets" / "set")
    for place in ("/", str(tmp_path), str(tmp_path / "pets")):
        write(tmp_path / "pets" / "set" / "data.yaml", f"train: {place}\nnames: [cat, dog]\n")
        with pytest.raises(GCNetError, match="its training images are not there"):
            load_splits(tmp_path / "pets" / "set")


def test_an_image_that_a_list_names_twice_is_one(tmp_path: Path) -> None:
    for make in (darknet, voc):
        make(tmp_path / make.__name__)
        lists = list((tmp_path / make.__name__).rglob("train.txt"))
        for path in lists:
            path.write_text(path.read_text().rstrip() + "\n" + path.read_text())
        assert lists
        assert len(load_splits(tmp_path / make.__name__)["train"]) == 1


@pytest.fixture(scope="module")
def large_png() -> bytes:
    file = io.BytesIO()
    Image.new("1", (14_000, 12_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("make", [voc, panoptic, masks_of_numbers, masks_of_objects])
def test_a_mask_of_another_size_is_left_out(
    make: Callable[[Path], None], large_png: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A few bytes of PNG can say any size: it is not unpacked."""
    make(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(large_png)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if make is panoptic:  # of all images
        with pytest.raises(GCNetError, match=r"a.png is damaged, missing or not of its image's size"):
            load_splits(tmp_path)
    else:
        record = load_splits(tmp_path)["train"].records[0]
        assert not any(item.segmentation for item in record.instances)
        assert make is voc or "masks are not of their image's size" in caplog.text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("content", ["", "\0\0\0", "not found", "{<"])
@pytest.mark.parametrize("make", [labelme, isat, supervisely, darwin, superannotate, voc_beside_images])
def test_a_file_that_is_damaged_is_counted_and_named(
    make: Callable[[Path], None], content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path)
    (whole,) = (path for path in (tmp_path / "train").rglob("*") if path.suffix in (".json", ".xml"))
    write(whole.with_name(f"damaged{whole.suffix}"), content)
    assert len(load_splits(tmp_path)["train"]) == 1
    assert re.search("1 of 2 files are left out: .*damaged", caplog.text)


def test_without_its_mask_an_image_of_voc_has_its_boxes(tmp_path: Path) -> None:
    voc(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (item,) = load_splits(tmp_path)["train"].records[0].instances
    assert not item.segmentation
    np.testing.assert_allclose(item.box, BOX)


@pytest.mark.parametrize("share", [None, 0.0, 0.6], ids=["missing", "empty", "cut"])
@pytest.mark.parametrize("make", [panoptic, masks_of_numbers])
def test_an_image_whose_mask_cannot_be_read_is_left_out(
    make: Callable[[Path], None], share: float | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file() and path.name[:2] in ("a.", "a_")]:
        content = path.read_bytes()
        if path.suffix == ".png":
            content = content[: int(len(content) * (share or 0))]
        if path.suffix == ".jpg" or share is not None:
            path.with_name(f"b{path.name[1:]}").write_bytes(content)
    for path in tmp_path.rglob("panoptic_*.json"):
        content = json.loads(path.read_text())
        content["images"].append(content["images"][0] | {"id": 2, "file_name": "b.jpg"})
        content["annotations"].append(content["annotations"][0] | {"image_id": 2, "file_name": "b.png"})
        write(path, json.dumps(content))
    (record,) = load_splits(tmp_path)["train"].records
    assert record.path.name == "a.jpg"
    assert record.instances[0].segmentation
    assert re.search("1 of 2 files are left out: .*b(_mask)?.png|2 of 4 images have no mask", caplog.text)
