"""SuperAnnotate's shapes, groups and masks."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from format_files import HEIGHT, WIDTH, image, write

from gcnet.data.load import load_splits
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import segmentation_to_mask


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def file_of(instances: list[dict[str, Any]], **metadata: Any) -> str:
    metadata = {"name": "a.jpg", "width": WIDTH, "height": HEIGHT} | metadata
    return json.dumps({"metadata": metadata, "instances": instances, "tags": [], "comments": []})


def test_shapes_of_superannotate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Polygons of a group and class are one object, what is excluded a hole; angles are degrees."""
    turned = {"x1": 40, "y1": 30, "x2": 50, "y2": 40, "x3": 40, "y3": 50, "x4": 30, "y4": 40}
    oval = {"cx": 40, "cy": 30, "rx": 20, "ry": 10, "angle": 90}
    instances = [
        {"type": "polygon", "className": "cat", "groupId": 1, "points": square(10, 10, 30), "exclude": []},
        {"type": "bbox", "className": "box", "groupId": 1, "points": {"x1": 9, "x2": 3, "y1": 2, "y2": 8}},
        {"type": "rbbox", "className": "turned", "groupId": 0, "points": turned},
        {"type": "ellipse", "className": "oval", **oval},
        {"type": "polygon", "className": "cat", "groupId": 1, "points": square(60, 0, 10)},
        {"type": "polygon", "className": "dog", "groupId": 1, "points": square(0, 0, 9)},
        {"type": "tag", "className": "sunny"},
        {"type": "polyline", "className": "dog", "points": square(0, 0, 9)},
        {"type": "bbox", "className": "dog", "points": {"x1": None}},
        {"className": "dog", "parts": [{"color": "#00000f"}]},
    ]
    instances[4]["exclude"] = [square(20, 20, 5), square(70, 50, 5)]
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "a.jpg___objects.json", file_of(instances, name="b.jpg"))
    dataset = load_splits(tmp_path, val_fraction=0)["train"]
    assert dataset.class_names == ("box", "cat", "dog", "oval", "turned")
    cat, box, diamond, ellipse, dog = dataset.records[0].instances
    assert (box.box, diamond.box, dog.box) == ((3, 2, 9, 8), (30, 30, 50, 50), (0, 0, 9, 9))
    np.testing.assert_allclose(ellipse.box, (30, 10, 50, 50), atol=0.2)
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[10:40, 10:40] = drawn[:10, 60:70] = 1
    drawn[20:25, 20:25] = 0
    np.testing.assert_array_equal(segmentation_to_mask(cat.segmentation, (HEIGHT, WIDTH)), drawn)
    assert "3 of 8 annotations have neither a box nor an outline" in caplog.text
    assert "1 of 1 images have no ___save.png of their size" in caplog.text


def test_the_file_of_the_desktop_program(tmp_path: Path) -> None:
    """It has all images in it, and classes by number."""
    polygon = {"type": "polygon", "classId": 0, "points": square(10, 10, 30), "group_id": 0}
    metadata = {"version": "1.0.0", "width": WIDTH, "height": HEIGHT}
    content: dict[str, Any] = {"___sa_version___": "1.0.0"}
    for name, instances in (("a.jpg", [polygon, polygon]), ("b.jpg", [])):
        image(tmp_path / "images" / name)
        content[name] = {"instances": instances, "tags": [], "metadata": {"name": "", **metadata}}
    write(tmp_path / "annotations.json", json.dumps(content))
    write(tmp_path / "classes.json", json.dumps([{"attribute_groups": [], "id": 0, "name": "log"}]))
    dataset = load_splits(tmp_path, val_fraction=0)["train"]
    assert dataset.class_names == ("log",)
    assert [len(record.instances) for record in dataset.records] == [2, 0]


@pytest.mark.parametrize("name", ["../a.jpg", "x/a.jpg", "y" * 5000 + ".jpg", "", "/", "\0.jpg"])
def test_hostile_names_of_superannotate(name: str, tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    one = {"instances": [{"className": "dog", "parts": [{"color": "#00000f"}]}], "metadata": {}}
    write(tmp_path / "annotations.json", json.dumps({"___sa_version___": "1", "a.jpg": one, name: one}))
    with contextlib.suppress(GCNetError):
        load_splits(tmp_path, val_fraction=0)


@pytest.mark.parametrize("share", [1, 0.6], ids=["of another size", "cut"])
def test_masks_that_do_not_fit_are_not_read(
    share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path / "a.jpg")
    height = HEIGHT + 1 if share == 1 else HEIGHT
    _, file = cv2.imencode(".png", np.full((height, WIDTH, 3), 15, np.uint8))
    (tmp_path / "a.jpg___save.png").write_bytes(file.tobytes()[: int(len(file) * share)])
    parts = [{"color": "#0f0f0f"}]
    write(tmp_path / "a.jpg.json", file_of([{"className": "dog", "parts": parts}], height=HEIGHT + 1))
    assert not load_splits(tmp_path, val_fraction=0)["train"].records[0].instances
    assert "1 of 1 images have no ___save.png of their size (first: a.jpg)" in caplog.text


@pytest.mark.parametrize("points", [None, 7, [1], [1, 2], ["a"] * 6, {}, [[1, 2], [3]]])
@pytest.mark.parametrize("kind", ["polygon", "bbox", "rbbox", "ellipse", [], None])
def test_hostile_instances_of_superannotate(points: Any, kind: Any, tmp_path: Path) -> None:
    one = {
        "type": kind,
        "points": points,
        "parts": points,
        "exclude": points,
        "classId": points,
        "groupId": points,
    }
    image(tmp_path / "a.jpg")
    write(tmp_path / "classes.json", json.dumps([{"id": points, "name": points}, points]))
    write(tmp_path / "a.jpg.json", file_of([one, {}, one], width=WIDTH))
    assert not load_splits(tmp_path, val_fraction=0)["train"].records[0].objects(masks=False)
