"""Darwin JSON of V7: its shapes, and where files and images lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_files import HEIGHT, WIDTH, image, write

from gcnet.data.load import load_splits
from gcnet.ops.segmentations import segmentation_to_mask


def path(*corners: tuple[float, float]) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in corners]


def square(x: float, y: float, side: float) -> list[dict[str, float]]:
    return path((x, y), (x + side, y), (x + side, y + side), (x, y + side))


def darwin_file(annotations: list[dict[str, Any]], folder: str = "/", **more: Any) -> str:
    slot = {"type": "image", "slot_name": "0", "width": WIDTH, "height": HEIGHT, **more}
    item = {"name": "a.jpg", "path": folder, "slots": [slot, {"slot_name": "1"}]}
    return json.dumps({"version": "2.0", "item": item, "annotations": annotations})


def test_shapes_of_darwin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A path in another one is a hole, and one in that an island; lines have no area, tags are no objects."""
    box = {"x": 1, "y": 2, "w": 3, "h": 4}
    rings = [square(10, 10, 30), square(15, 15, 20), square(20, 20, 5), square(60, 0, 10)]
    oval = {"center": {"x": 40, "y": 30}, "radius": {"x": 20, "y": 10}, "angle": np.pi / 2}
    annotations = [
        {"name": "box", "bounding_box": box},
        {"name": "rings", "polygon": {"paths": rings}, "bounding_box": box},
        {"name": "oval", "ellipse": oval},
        {"name": "box", "bounding_box": box, "slot_names": ["1"]},
        {"name": "sunny", "tag": {}},
        {"name": "line", "line": {"path": square(0, 0, 9)}},
        {"name": "mask", "mask": {}, "id": "x"},
        {"name": "rings", "polygon": {"paths": [[{"x": None, "y": 1}] * 3, square(0, 0, 9)]}},
        {"name": "rings", "polygon": {"paths": 7}},
    ]
    image(tmp_path / "a.jpg")
    write(tmp_path / "a.json", darwin_file(annotations))
    dataset = load_splits(tmp_path, val_fraction=0)["train"]
    assert dataset.class_names == ("box", "line", "mask", "oval", "rings")
    plain, ring, turned = dataset.records[0].instances
    assert plain.box == (1, 2, 4, 6)
    np.testing.assert_allclose(turned.box, (30, 10, 50, 50), atol=0.2)
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[10:40, 10:40] = drawn[:10, 60:70] = 1
    drawn[15:35, 15:35] = 0
    drawn[20:25, 20:25] = 1
    np.testing.assert_array_equal(segmentation_to_mask(ring.segmentation, (HEIGHT, WIDTH)), drawn)
    assert "1 of 8 annotations are not of the first image of their item (first: a.json:4)" in caplog.text
    assert "4 of 7 annotations have neither a box nor an outline (first: id a.json:6)" in caplog.text


@pytest.mark.parametrize(
    "rows", [[0, WIDTH * HEIGHT - 1], [0, 10**18, 1, 10**18], [1, -1], [1], [], None, [10**30, 1]]
)
def test_masks_that_do_not_fill_their_image(
    rows: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer = {"dense_rle": rows, "mask_annotation_ids_mapping": {"x": 1}}
    image(tmp_path / "a.jpg")
    masks = [{"id": "x", "name": "dog", "mask": {}}, {"name": "", "raster_layer": layer}]
    write(tmp_path / "a.json", darwin_file(masks))
    assert not load_splits(tmp_path, val_fraction=0)["train"].records[0].instances
    assert "1 of 1 annotations have neither a box nor an outline" in caplog.text


def test_a_folder_that_was_pulled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of several releases the latest is read; images of one name lie in the folders of their items."""
    dog = {"name": "dog", "polygon": {"paths": [square(10, 10, 30)]}}
    for folder in ("first", "second"):
        image(tmp_path / "pets" / "images" / folder / "a.jpg")
    for release, count in (("old", 1), ("new", 2)):
        for folder in ("first", "second"):
            file = tmp_path / "pets" / "releases" / release / "annotations" / folder / "a.json"
            write(file, darwin_file([dog] * count, f"/{folder}"))
    (tmp_path / "pets" / "releases" / "latest").symlink_to(tmp_path / "pets" / "releases" / "new")
    dataset = load_splits(tmp_path / "pets", val_fraction=0)["train"]
    assert [record.path.parent.name for record in dataset.records] == ["first", "second"]
    assert [len(record.instances) for record in dataset.records] == [2, 2]
    assert caplog.messages == []


def test_a_large_file_of_darwin_is_not_coco(tmp_path: Path) -> None:
    dog = {"name": "dog", "polygon": {"paths": [square(10, 10, 30)]}}
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "annotations" / "a.json", darwin_file([dog] * 2000))
    assert len(load_splits(tmp_path, val_fraction=0)["train"].records[0].instances) == 2000
