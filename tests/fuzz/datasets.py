"""Data sets in every format but COCO's, with one to three things wrong in their files."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import annotations
import cv2
import numpy as np
import pictures
import pyarrow
import pyarrow.parquet

SIZE = (40, 48)
SQUARE = [[4, 4], [30, 4], [30, 30], [4, 30]]
LARGEST = 1 << 18  # bytes of a text: what takes long because it is long does no harm
WORDS = (
    *("", "0", "-1", "1e7", "1e18", "-1e300", "1e999", "nan", "inf", "1" * 5000, "0x10", "1_0", "٣", "½"),
    *("cat", "\x1b[31mred", "bolt [m8]", "\u202e", "x" * 5000, "a\nb", "~", "[", "{", "- ", ": ", "&a", "*a"),
    *("../../etc/passwd", "/etc/passwd", "/dev/zero", "..", "/", ".", "y" * 300, "C:\\x\\1.png", "\x00"),
)
LINES = ("path: /", "train: ..", "names: {}", "a: &a [*a]", "[" * 2000, "0 " * 3000)
LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">{}]>'.format(
    "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefghi", "bcdefghij", strict=True))
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY j SYSTEM "file:///etc/passwd">]>'


def write(chance: random.Random, folder: Path) -> Path:
    """A folder with a hostile data set of two images."""
    make = chance.choice(FORMATS)
    make(folder)
    for _ in range(chance.randint(1, 3)):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        if not files:
            break
        path = chance.choice(files)
        if chance.random() < 0.1:
            chance.choice((_replace, _damage_bytes, _repeat))(chance, path)
        else:
            DAMAGES.get(path.suffix, _damage_bytes)(chance, path)
    return folder


def read(path: Path) -> None:
    """As of COCO files; tables are unpacked into a folder of their own."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["GCNET_HOME"] = home
        annotations.read(path)


# Sound data sets ---------------------------------------------------------------------------------------


def _images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((*SIZE, 3), 90 * number, np.uint8))


def _mask(path: Path, values: tuple[int, ...] = (1, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(SIZE, np.uint8)
    for place, value in enumerate(values):
        mask[4:20, 4 + 20 * place : 20 + 20 * place] = value
    cv2.imwrite(str(path), mask)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _yolo(folder: Path) -> None:
    _images(folder / "images" / "train")
    _text(
        folder / "data.yaml", "path: .\ntrain: images/train\nval: images/train\nnames:\n  0: cat\n  1: dog\n"
    )
    outline = "1 0.1 0.1 0.6 0.1 0.6 0.7 0.1 0.7\n"
    for number in (1, 2):
        _text(folder / "labels" / "train" / f"{number}.txt", f"0 0.5 0.5 0.4 0.4\n{outline * 2}")


def _darknet(folder: Path) -> None:
    _images(folder / "obj")
    _text(
        folder / "obj.data",
        "classes = 2\ntrain = data/train.txt\nvalid = data/train.txt\nnames = data/obj.names\n",
    )
    _text(folder / "obj.names", "cat\ndog\n")
    _text(folder / "train.txt", "data/obj/1.png\ndata/obj/2.png\n")
    for number in (1, 2):
        _text(folder / "obj" / f"{number}.txt", "0 0.5 0.5 0.4 0.4\n1 0.1 0.1 0.6 0.1 0.6 0.7\n")


def _bare_yolo(folder: Path) -> None:
    _images(folder)
    _text(folder / "classes.txt", "cat\ndog\n")
    for number in (1, 2):
        _text(folder / f"{number}.txt", "1 0.1 0.1 0.6 0.1 0.6 0.7\n")


def _voc(folder: Path) -> None:
    _images(folder / "JPEGImages")
    box = "<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
    outline = "<polygon><x1>4</x1><y1>4</y1><x2>30</x2><y2>4</y2><x3>9</x3><y3>30</y3></polygon>"
    items = f"<object><name>cat</name>{box}{outline}</object><object><name>dog</name>{box}</object>"
    for number in (1, 2):
        head = f"<filename>{number}.png</filename><size><width>48</width><height>40</height></size>"
        _text(folder / "Annotations" / f"{number}.xml", f"<annotation>{head}{items}</annotation>")
        _mask(folder / "SegmentationObject" / f"{number}.png")
    _text(folder / "ImageSets" / "Segmentation" / "train.txt", "1\n2\n")


def _via(folder: Path) -> None:
    _images(folder / "train")
    xs, ys = zip(*SQUARE, strict=True)
    shapes = [
        {"name": "polygon", "all_points_x": list(xs), "all_points_y": list(ys)},
        {"name": "rect", "x": 4, "y": 4, "width": 20, "height": 20},
        {"name": "circle", "cx": 20, "cy": 20, "r": 9},
        {"name": "ellipse", "cx": 20, "cy": 20, "rx": 9, "ry": 5, "theta": 0.5},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "cat"}} for shape in shapes]
    entries = {f"{n}.png9": {"filename": f"{n}.png", "size": 9, "regions": regions} for n in (1, 2)}
    _text(folder / "train" / "via_region_data.json", json.dumps(entries))


def _cvat(folder: Path) -> None:
    _images(folder / "images")
    points = ";".join(f"{x},{y}" for x, y in SQUARE)
    shapes = (
        f'<polygon label="cat" points="{points}"/><box label="dog" xtl="4" ytl="4" xbr="30" ybr="30"/>'
        '<ellipse label="cat" cx="20" cy="20" rx="9" ry="5"/>'
        '<mask label="dog" rle="3, 4, 9" left="4" top="5" width="4" height="4"/>'
    )
    items = "".join(f'<image id="{n}" name="{n}.png" width="48" height="40">{shapes}</image>' for n in (1, 2))
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("cat", "dog"))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    _text(folder / "annotations.xml", f"<annotations>{meta}{items}</annotations>")


def _labelme(folder: Path) -> None:
    _images(folder)
    bits = cv2.imencode(".png", np.ones((16, 20), np.uint8))[1].tobytes()
    mask = {"label": "cat", "shape_type": "mask", "points": [[4, 4], [23, 19]]}
    shapes = [
        {"label": "cat", "points": SQUARE, "group_id": None, "shape_type": "polygon"},
        {"label": "dog", "points": [[4, 4], [30, 30]], "group_id": 1, "shape_type": "rectangle"},
        {"label": "dog", "points": [[20, 20], [9, 9]], "group_id": 1, "shape_type": "circle"},
        mask | {"mask": base64.b64encode(bits).decode()},
    ]
    size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
    for number in (1, 2):
        _text(folder / f"{number}.json", json.dumps({"shapes": shapes, "imagePath": f"{number}.png", **size}))


def _isat(folder: Path) -> None:
    _images(folder)
    hole = [[9, 9], [20, 9], [20, 20]]
    objects = [
        {"category": "cat", "group": 1, "segmentation": SQUARE, "layer": 1.0, "iscrowd": False},
        {"category": "cat", "group": 1, "segmentation": hole, "layer": 2.0, "iscrowd": False},
        {"category": "__background__", "group": 0, "segmentation": hole, "layer": 3.0, "iscrowd": False},
    ]
    info = {"description": "ISAT", "folder": "", "height": SIZE[0], "width": SIZE[1]}
    for number in (1, 2):
        content = {"info": {**info, "name": f"{number}.png"}, "objects": objects}
        _text(folder / f"{number}.json", json.dumps(content))


def _createml(folder: Path) -> None:
    _images(folder / "train")
    boxes = [
        {"label": label, "coordinates": {"x": 15, "y": 20.5, "width": 12, "height": 8}}
        for label in ("cat", "dog")
    ]
    content = [{"image": f"{number}.png", "annotations": boxes} for number in (1, 2)]
    _text(folder / "train" / "_annotations.createml.json", json.dumps(content))


def _supervisely(folder: Path) -> None:
    _images(folder / "train" / "img")
    bits = cv2.imencode(".png", np.ones((16, 20), np.uint8))[1].tobytes()
    packed = base64.b64encode(zlib.compress(bits)).decode()
    hole = [[9, 9], [20, 9], [20, 20]]
    objects = [
        {"classTitle": "cat", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": [hole]}},
        {"classTitle": "dog", "geometryType": "rectangle", "points": {"exterior": [[4, 4], [30, 30]]}},
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"origin": [4, 4], "data": packed}},
    ]
    size = {"height": SIZE[0], "width": SIZE[1]}
    for number in (1, 2):
        content = {"tags": [], "size": size, "objects": objects}
        _text(folder / "train" / "ann" / f"{number}.png.json", json.dumps(content))


def _cityscapes(folder: Path) -> None:
    _images(folder / "leftImg8bit" / "train")
    hole = [[9, 9], [20, 9], [20, 20]]
    labels = {"cat": SQUARE, "sky": hole, "dog": [[20, 9], [40, 9], [40, 20]]}
    objects = [{"label": label, "polygon": points, "deleted": 0} for label, points in labels.items()]
    content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": objects}
    for number in (1, 2):
        image = folder / "leftImg8bit" / "train" / f"{number}.png"
        image.rename(image.with_stem(f"{number}_leftImg8bit"))
        _text(folder / "gtFine" / "train" / f"{number}_gtFine_polygons.json", json.dumps(content))


def _darwin(folder: Path) -> None:
    _images(folder / "images")
    paths = [[{"x": x, "y": y} for x, y in points] for points in (SQUARE, [[9, 9], [20, 9], [20, 20]])]
    box = {"x": 4, "y": 4, "w": 20, "h": 20}
    oval = {"center": {"x": 20, "y": 20}, "radius": {"x": 9, "y": 5}, "angle": 0.5}
    rows = [0, 480, 1, 48, 0, 48, 2, 40, 0, SIZE[0] * SIZE[1] - 616]
    layer = {"dense_rle": rows, "mask_annotation_ids_mapping": {"a": 1, "b": 2}, "total_pixels": 1920}
    objects = [
        {"id": "0", "name": "cat", "polygon": {"paths": paths}, "bounding_box": box},
        {"id": "1", "name": "dog", "ellipse": oval, "slot_names": ["0"]},
        {"id": "2", "name": "dog", "bounding_box": box},
        {"id": "a", "name": "cat", "mask": {}},
        {"id": "b", "name": "dog", "mask": {}},
        {"id": "c", "name": "__raster_layer__", "raster_layer": layer},
    ]
    slot = {"type": "image", "slot_name": "0", "width": SIZE[1], "height": SIZE[0]}
    for number in (1, 2):
        item = {"name": f"{number}.png", "path": "/", "slots": [slot]}
        content = {"version": "2.0", "item": item, "annotations": objects}
        _text(folder / "annotations" / f"{number}.json", json.dumps(content))


def _superannotate(folder: Path) -> None:
    _images(folder)
    outline = [value for point in SQUARE for value in point]
    hole = [9, 9, 20, 9, 20, 20]
    instances = [
        {"type": "polygon", "classId": 1, "groupId": 1, "points": outline, "exclude": [hole]},
        {"type": "polygon", "classId": 1, "groupId": 1, "points": hole, "exclude": []},
        {"type": "bbox", "className": "dog", "points": {"x1": 4, "y1": 4, "x2": 30, "y2": 30}},
        {"type": "ellipse", "className": "dog", "cx": 20, "cy": 20, "rx": 9, "ry": 5, "angle": 10},
        {"classId": 1, "parts": [{"color": "#010101"}, {"color": "#020202"}]},
    ]
    metadata = {"name": "1.png", "width": SIZE[1], "height": SIZE[0]}
    content = json.dumps({"metadata": metadata, "instances": instances, "tags": [], "comments": []})
    for number in (1, 2):
        _text(folder / f"{number}.png___pixel.json", content)
        mask = np.zeros((*SIZE, 3), np.uint8)
        mask[4:20, 4:20], mask[4:20, 20:40] = 1, 2
        cv2.imwrite(str(folder / f"{number}.png___save.png"), mask)
    _text(folder / "classes" / "classes.json", json.dumps([{"id": 1, "name": "cat"}]))


def _via3(folder: Path) -> None:
    _images(folder)
    outline = [value for point in SQUARE for value in point]
    shapes = [[7, *outline], [2, 4, 4, 20, 20], [3, 20, 20, 9], [8, *outline], [9, 4, 20, 20, 4, 20, 30]]
    attribute = {"aname": "pet", "anchor_id": "FILE1_Z0_XY1", "type": 3, "options": {"0": "cat", "1": "dog"}}
    content = {
        "project": {"pid": "x", "rev": "1", "rev_timestamp": "2", "vid_list": ["1", "2"]},
        "attribute": {"1": attribute | {"default_option_id": "0"}},
        "file": {str(n): {"fid": n, "fname": f"{n}.png", "type": 2} for n in (1, 2)},
        "view": {str(n): {"fid_list": [n]} for n in (1, 2)},
        "metadata": {
            f"{n}_{i}": {"vid": str(n), "z": [], "xy": xy, "av": {"1": str(i % 2)}}
            for n in (1, 2)
            for i, xy in enumerate(shapes)
        },
    }
    _text(folder / "project.json", json.dumps(content))


def _kitti(folder: Path) -> None:
    _images(folder / "training" / "image_2")
    lines = (
        f"{name} 0.00 0 -1.57 4.00 4.00 30.00 30.00 1 1 1 1 1 1 0" for name in ("cat", "dog", "DontCare")
    )
    text = "\n".join(lines)
    for number in (1, 2):
        _text(folder / "training" / "label_2" / f"{number}.txt", text)


def _dota(folder: Path) -> None:
    _images(folder / "images")
    corners = " ".join(f"{value:.1f}" for point in SQUARE for value in point)
    for number in (1, 2):
        _text(folder / "labelTxt" / f"{number}.txt", f"gsd:0.1\n{corners} cat 0\n{corners} dog 1\n")


def _label_studio(folder: Path) -> None:
    _images(folder)
    sides = {"original_width": SIZE[1], "original_height": SIZE[0]}
    runs = list(
        base64.b64decode("AAAeADkb/wfPAMT/+lwDE//pcAxP/6XAMT/+lwDE//pcAxP/6XAMT/+lwDE//pcAxP/6XAMT//D0cAA=")
    )
    values = [
        {"points": SQUARE, "polygonlabels": ["cat"]},
        {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 10, "rectanglelabels": ["dog"]},
        {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 0, "ellipselabels": ["dog"]},
        {"format": "rle", "rle": runs, "brushlabels": ["cat"]},
    ]
    results = [{**sides, "id": str(n), "value": value} for n, value in enumerate(values)]
    done = [{"result": results, "updated_at": "2026-01-01", "was_cancelled": False}]
    tasks = [{"id": n, "data": {"image": f"/data/upload/{n}.png"}, "annotations": done} for n in (1, 2)]
    _text(folder / "export.json", json.dumps(tasks))


def _box_table(folder: Path) -> None:
    _images(folder / "images")
    rows = [f"{n}.png,48,40,{name},4,4,30,30" for n in (1, 2) for name in ("cat", "dog")]
    head = "filename,width,height,class,xmin,ymin,xmax,ymax"
    _text(folder / "data" / "train_labels.csv", "\n".join([head, *rows]))


def _run_lengths(folder: Path) -> None:
    _images(folder / "train")
    runs = " ".join(f"{5 + 48 * row} 20" for row in range(4, 30))
    rows = [f"{n},{runs},40,48,{name}" for n in (1, 2) for name in ("cat", "dog")]
    _text(folder / "train.csv", "\n".join(["ImageId,EncodedPixels,Height,Width,ClassId", *rows]))


def _panoptic(folder: Path) -> None:
    _images(folder / "train2017")
    content = annotations.sound()
    segments = [{"id": 1, "category_id": 1, "iscrowd": 0}, {"id": 2, "category_id": 2, "iscrowd": 0}]
    content["annotations"] = [
        {"image_id": n, "file_name": f"{n}.png", "segments_info": segments} for n in (1, 2)
    ]
    _text(folder / "annotations" / "panoptic_train2017.json", json.dumps(content))
    for number in (1, 2):
        _mask(folder / "annotations" / "panoptic_train2017" / f"{number}.png")


def _lines(folder: Path) -> None:
    _images(folder / "train")
    objects = {"bbox": [[4, 4, 20, 20]], "category": ["cat"], "segmentation": [[[4, 4, 30, 4, 30, 30]]]}
    rows = [json.dumps({"file_name": f"{number}.png", "objects": objects}) for number in (1, 2)]
    _text(folder / "train" / "metadata.jsonl", "\n".join(rows))


def _parquet(folder: Path) -> None:
    data = cv2.imencode(".png", np.full((*SIZE, 3), 90, np.uint8))[1].tobytes()
    objects = {
        "bbox": [[4.0, 4.0, 20.0, 20.0]],
        "category": ["cat"],
        "segmentation": [[[4.0, 4.0, 30.0, 4.0, 9.0, 30.0]]],
    }
    rows = pyarrow.table({"image": [{"bytes": data, "path": "1.png"}] * 2, "objects": [objects] * 2})
    (folder / "data").mkdir()
    pyarrow.parquet.write_table(rows, folder / "data" / "train-00000-of-00001.parquet")


def _masks(folder: Path) -> None:
    _images(folder / "images")
    for number in (1, 2):
        _mask(folder / "masks" / f"{number}.png")
    _text(folder / "classes.txt", "cat\ndog\n")


def _object_masks(folder: Path) -> None:
    for number in (1, 2):
        _images(folder / str(number) / "images")
        (folder / str(number) / "images" / f"{3 - number}.png").unlink()
        for place in range(2):
            _mask(folder / str(number) / "masks" / f"{place}.png", (255,))
    _text(folder / "classes.txt", "cat\n")


FORMATS: tuple[Callable[[Path], None], ...] = (
    *(_yolo, _darknet, _bare_yolo, _voc, _via, _cvat, _labelme, _panoptic, _lines, _parquet),
    *(_masks, _object_masks, _isat, _supervisely, _label_studio, _box_table, _run_lengths),
    *(_cityscapes, _darwin, _superannotate, _via3, _kitti, _dota, _createml),
)

# Damage ------------------------------------------------------------------------------------------------


def _damage_json(chance: random.Random, path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        content = (
            [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        )
    except (ValueError, RecursionError):
        return _damage_bytes(chance, path)
    path.write_bytes(annotations.damaged(chance, content, lines=path.suffix == ".jsonl"))
    return None


def _damage_xml(chance: random.Random, path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    if chance.random() < 0.1:  # entities that grow, or are elsewhere
        text = chance.choice((LAUGHS, OUTSIDE)) + re.sub(r"cat|1\.png|48", "&j;", text, count=1)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeError):
        _damage_bytes(chance, path)
        return
    element, word = chance.choice(list(root.iter())), _word(chance)
    if element.attrib and chance.random() < 0.7:
        key = chance.choice(list(element.attrib))
        element.set(key, word)
        if chance.random() < 0.2:
            del element.attrib[key]
    elif len(element) and chance.random() < 0.5:
        child = chance.choice(list(element))
        change = chance.choice((element.remove, element.append, lambda one: element.extend([one] * 3000)))
        change(child)
    elif chance.random() < 0.2:
        element.tag = chance.choice(("x", "object", "image", "polygon", "mask", "x99999999999"))
    else:
        element.text = word
    path.write_bytes(ElementTree.tostring(root, encoding="unicode").encode("utf-8", "surrogatepass"))


def _damage_text(chance: random.Random, path: Path) -> None:
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() or [""]
    at = chance.randrange(len(lines))
    between = "," if path.suffix == ".csv" else " "
    words = lines[at].split(between)
    words[chance.randrange(len(words))] = _word(chance)
    change = chance.choice(
        (
            lambda: lines.__setitem__(at, between.join(words)),
            lambda: lines.__setitem__(at, between.join(words)),
            lambda: lines.__setitem__(at, lines[at] * chance.choice((2, 3000))),
            lambda: lines.insert(at, chance.choice((*LINES, _word(chance) * 2))),
            lambda: lines.pop(at),
            lambda: lines.extend(lines * (3000 if len(lines[at]) < 100 else 3)),
        )
    )
    change()
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass")[:LARGEST])


def _damage_picture(chance: random.Random, path: Path) -> None:
    """Another image, of another size, damaged, a bomb, or no image."""
    kind = chance.choice(("size", "noise", "damaged", "special"))
    if kind in ("size", "noise"):
        shape = SIZE if kind == "noise" else (chance.choice((1, 7, 400)), chance.choice((1, 7, 400)))
        noise = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, (*shape, 3), np.uint8)
        cv2.imwrite(str(path), noise)
        return
    with tempfile.TemporaryDirectory() as other:
        special = kind == "special"
        made = (
            chance.choice(pictures.SPECIALS)(chance, Path(other))
            if special
            else pictures.write(chance, Path(other))
        )
        if made.is_file() and not made.is_symlink():
            path.write_bytes(made.read_bytes())
        else:
            _replace(chance, path)


def _damage_bytes(chance: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 2, 5, 30))):
        data = chance.choice(pictures.DAMAGES)(chance, data)
    path.write_bytes(data)


def _repeat(chance: random.Random, path: Path) -> None:
    path.write_bytes((path.read_bytes() * chance.choice((2, 100)))[:LARGEST])


def _replace(chance: random.Random, path: Path) -> None:
    path.unlink()
    pictures.put_no_file(chance, path)


def _word(chance: random.Random) -> str:
    return chance.choice(WORDS)


DAMAGES: dict[str, Callable[[random.Random, Path], Any]] = {
    ".json": _damage_json,
    ".jsonl": _damage_json,
    ".xml": _damage_xml,
    ".png": _damage_picture,
    ".txt": _damage_text,
    ".csv": _damage_text,
    ".yaml": _damage_text,
    ".data": _damage_text,
    ".names": _damage_text,
}
