"""What a stranger's file may hold: each ends in one short line or is left out, in little memory and time."""

from __future__ import annotations

import gzip
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import annotation, content, write_split

from gcnet.console import printable, shown
from gcnet.data.load import load_splits
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import rle_to_mask, segmentation_to_rle

SIZES = [(48, 64), (64, 48)]


def load(folder: Path, values: dict[str, Any]) -> Any:
    write_split(folder / "train", values)
    return load_splits(folder)["train"]


@pytest.fixture
def values() -> dict[str, Any]:
    return content(SIZES)


@pytest.mark.parametrize("far", [1e5, 1e8, 1e300])
def test_outlines_far_out_are_cut_at_the_border(
    far: float, values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A triangle of 1e8 pixels took 14.8 GB, and from 1e7 on pycocotools may crash."""
    triangle = [-1, -1, far, -1, -1, far]
    values["annotations"].append(annotation(7, 100, area=None, segmentation=[triangle], bbox=None))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (_, item) = load(tmp_path, values).records[0].instances
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert item.box == (0, 0, 64, 48)
    assert item.area == 64 * 48
    assert "1 of 3 annotations reach far beyond their image (first: id 7); cut at its border" in caplog.text


def test_an_outline_that_never_ends_is_not_used(
    values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zigzag = [0, 0, 63, 47] * 5000
    values["annotations"].append(annotation(7, 100, segmentation=[zigzag], box=(0, 0, 64, 48)))
    (_, item) = load(tmp_path, values).records[0].instances
    assert not item.segmentation
    assert "longer than a line through all pixels" in caplog.text


def test_a_long_outline_in_a_small_view_is_drawn_by_its_pixels() -> None:
    square = np.array([[0, 0], [4e6, 0], [4e6, 4e6], [0, 4e6]], np.float64)
    rle = segmentation_to_rle([square - 1e6], 10, 10)
    assert rle["size"] == [10, 10]
    assert rle_to_mask(rle).all()


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [1e308, 1e308, 1e308, 1e308], "segmentation": []},
        {"bbox": [-1e9, -1e9, 2e9, 2e9], "segmentation": []},
        {"segmentation": [[10**400, 1, 2, 3, 4, 5]]},
        {"segmentation": [[[[[1]]]]]},
        {"id": 10**400},
        {"image_id": 10**400},
        {"category_id": 10**400},
        {"area": 1e400},
        {"id": "\ud800", "image_id": "\udfff"},
        {"segmentation": [["\ud800", 1, 2, 3, 4, 5]]},
    ],
)
def test_absurd_values_end_in_nothing_worse_than_a_warning(
    change: dict[str, Any], values: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values["annotations"].append(annotation(7, 100) | change)
    dataset = load(tmp_path, values)
    for item in dataset.records[0].instances:
        assert all(-200 <= value <= 200 for value in item.box)
    assert all(message.isprintable() and len(message) < 400 for message in caplog.messages)


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [48, 64], "counts": [48 * 64, 10**400, -(10**400)]},
        {"size": [48, 64], "counts": [2**32 - 10, 48 * 64 + 10]},
        {"size": [48, 64], "counts": "é\ud800"},
        {"size": [10**400, 64], "counts": [1]},
        {"size": [48, 64], "counts": "o" * 100_000},
        {"size": [[[48]], {}], "counts": None},
    ],
)
def test_hostile_rle_is_one_short_line(rle: Any, values: dict[str, Any], tmp_path: Path) -> None:
    values["annotations"].append(annotation(7, 100, segmentation=rle))
    with pytest.raises(GCNetError, match="annotation id 7: its RLE") as caught:
        load(tmp_path, values)
    assert len(str(caught.value)) - len(str(tmp_path)) < 300


@pytest.mark.parametrize(
    "change",
    [
        {"width": 10**400},
        {"width": 1e9, "height": 1e9},
        {"id": [1]},
        {"id": 10**400},
        {"file_name": "a" * 5000},
        {"file_name": "\x1b[2J\n\ud800.png"},
        {"file_name": "a\0b"},
        {"file_name": 7},
    ],
)
def test_hostile_images_are_one_short_line(
    change: dict[str, Any], values: dict[str, Any], tmp_path: Path
) -> None:
    path = write_split(tmp_path / "train", values)
    values["images"][0] |= change
    path.write_text(json.dumps(values))
    with pytest.raises(GCNetError) as caught:
        load_splits(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) - 2 * len(str(tmp_path)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "a thousand deep"),
        ('{"a":' * 100_000, "a thousand deep"),
        ('{"images": ' + "9" * 5000 + "}", "thousands of digits"),
    ],
)
def test_hostile_json_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.coco.json").write_text(text)
    with pytest.raises(GCNetError, match=message):
        load_splits(tmp_path)


def test_what_is_compressed_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "instances.json.gz"
    path.write_bytes(gzip.compress(b'{"images": [' + b" " * (1 << 26), compresslevel=1))
    with pytest.raises(GCNetError, match="unpacks to more than 200 times its size"):
        load_splits(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(GCNetError, match="is not whole"):
        load_splits(path)


def test_many_categories_take_no_time(values: dict[str, Any], tmp_path: Path) -> None:
    """20,000 took 8 s."""
    values["categories"] = [
        {"id": i, "name": f"c{i // 2}", "supercategory": f"c{i - i % 4}"} for i in range(20_000)
    ]
    began = time.process_time()
    dataset = load(tmp_path, values)
    assert len(dataset.class_names) > 7_000
    assert time.process_time() - began < 4


def test_an_image_outside_of_the_data_set_is_not_read(values: dict[str, Any], tmp_path: Path) -> None:
    """Unless its folder is named."""
    path = write_split(tmp_path / "data" / "train", values)
    (tmp_path / "data" / "train" / "0.png").rename(tmp_path / "secret.png")
    for name in ("../../secret.png", str(tmp_path / "secret.png")):
        values["images"][0]["file_name"] = name
        path.write_text(json.dumps(values))
        with pytest.raises(GCNetError, match="or say where they are with --images DIR"):
            load_splits(tmp_path / "data")
    path.rename(tmp_path / "a.json")
    values["images"][0]["file_name"] = "secret.png"
    values["images"][1]["file_name"] = "data/train/1.png"
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert len(load_splits(tmp_path / "a.json", images=tmp_path)["train"]) == 1


def test_names_are_shown_on_one_line() -> None:
    assert printable("é[m8] nut") == "é[m8] nut"
    assert printable("a\x1b[2J\nb\ud800") == r"a\x1b[2J\nb\ud800"
    assert len(shown("a" * 1000)) == 60
    assert len(shown([list(range(1000))] * 1000)) == 60
