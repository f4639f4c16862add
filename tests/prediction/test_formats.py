"""What is found, in the formats of other tools: read back, it is what was found."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fakes import Finds, listed, write_photos
from pycocotools.coco import COCO

import gcnet
from gcnet.data.load import load_split
from gcnet.errors import GCNetError
from gcnet.image_files import find_images
from gcnet.ops.segmentations import segmentation_to_mask
from gcnet.prediction.files import predict_files
from gcnet.prediction.formats import category_ids
from gcnet.prediction.wanted import FORMATS, Wanted, parse_shard
from gcnet.weights.catalog import COCO_CLASSES
from lively import lively_detector


def predict(model: Any, photos: Path, out: Path | None, **wanted: Any) -> Any:
    paths = find_images([photos])
    return predict_files(model, paths, out, score_threshold=0.3, wanted=Wanted(**wanted), progress=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All formats of three images and a broken one."""
    folder = tmp_path_factory.mktemp("formats")
    photos = write_photos(folder / "photos", 3)
    (photos / "999.jpg").write_bytes(b"broken")
    predict(Finds(), photos, folder / "out", formats=FORMATS, crops=True, cutouts=True, images_a_file=2)
    return folder / "out"


@pytest.mark.parametrize("kind", ["labelme", "yolo", "coco.json"])
def test_our_readers_read_it_back(out: Path, kind: str) -> None:
    """The round trip of annotating with a model: what it found is what is trained on."""
    images = None if kind == "yolo" else out.parent / "photos"  # YOLO's has links to them
    parts = [load_split(out / kind, split, images=images) for split in ("train", "valid")]
    records = [record for part in parts for record in part.records]
    assert len(records) == 3
    for record in records:
        assert (record.width, record.height) == (32, 40)
        assert record.path.resolve().parent == (out.parent / "photos").resolve()
        labels = [parts[0].class_names[item.label] for item in record.instances]
        assert labels == ["ring", "star"]
        ring, star = record.instances
        np.testing.assert_allclose(star.box, (8, 8, 20, 24), atol=0.01)
        np.testing.assert_allclose(ring.box, (2, 3, 12, 9), atol=0.01)
        assert segmentation_to_mask(star.segmentation, (40, 32)).sum() == 12 * 16
        assert segmentation_to_mask(ring.segmentation, (40, 32)).sum() == pytest.approx(8 * 6, abs=12)


def test_a_data_set_in_coco_s_format(out: Path) -> None:
    coco = COCO(out / "coco.json")
    assert [category["id"] for category in coco.loadCats(coco.getCatIds())] == [1, 2]
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [
        f"00{i}.jpg" for i in range(3)
    ]
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len({one["id"] for one in annotations}) == 6
    assert [one["category_id"] for one in annotations] == [1, 2] * 3
    assert annotations[1]["area"] == coco.annToMask(annotations[1]).sum() == 12 * 16
    assert annotations[1]["score"] == pytest.approx(0.4)


def test_coco_s_classes_have_coco_s_ids() -> None:
    ids = dict(zip(COCO_CLASSES, category_ids(COCO_CLASSES), strict=True))
    assert (ids["person"], ids["stop sign"], ids["toothbrush"]) == (1, 13, 90)


def test_a_table(out: Path) -> None:
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[1] | {"file_name": ""} == {
        "image_id": "0",
        "file_name": "",
        "width": "32",
        "height": "40",
        "label": "1",
        "class_name": "star",
        "score": "0.4",
        "x1": "8.0",
        "y1": "8.0",
        "x2": "20.0",
        "y2": "24.0",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_name_that_is_no_utf8_is_written_with_escapes(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    photo = write_photos(tmp_path / "photos", 1) / "000.jpg"
    photo.rename(os.fsdecode(os.fsencode(photo.parent) + b"/caf\xe9.jpg"))
    predict(Finds(), photo.parent, tmp_path / "out", formats=FORMATS)
    with open(tmp_path / "out" / "results.csv", encoding="utf-8") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    assert names == [f"{photo.parent}/caf\\udce9.jpg"] * 2
    (row,) = parquet.read_table(tmp_path / "out" / "results-00000.parquet").to_pylist()
    assert row["file_name"] == names[0]


def test_a_missing_package_is_named_before_images_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(GCNetError, match=r"needs pyarrow, .* pip install 'gcnet\[parquet\]'"):
        Wanted(("jsonl", "parquet"))


def test_so_many_images_a_file(out: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    names = sorted(path.name for path in out.glob("results-*"))
    assert names == [f"results-0000{i}.{suffix}" for i in (0, 1) for suffix in ("jsonl", "parquet")]
    texts = [(out / f"results-0000{i}.jsonl").read_text() for i in (0, 1)]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    assert [line["id"] for line in lines] == [0, 1, 2, 3]
    assert lines[1]["detections"][1]["box"] == [8, 8, 20, 24]
    assert lines[1]["detections"][1]["mask"]["size"] == [40, 32]
    assert "not an image" in lines[3]["error"]
    rows = [row for i in (0, 1) for row in parquet.read_table(out / f"results-0000{i}.parquet").to_pylist()]
    assert rows[:3] == [line | {"error": None} for line in lines[:3]]
    assert rows[3]["error"] == lines[3]["error"]


def test_crops_and_cutouts(out: Path) -> None:
    assert sorted(os.listdir(out / "crops")) == [f"00{i}-{k}.jpg" for i in range(3) for k in (0, 1)]
    assert cv2.imread(str(out / "crops" / "001-1.jpg")).shape == (16, 12, 3)
    cutout = cv2.imread(str(out / "cutouts" / "001-0.png"), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(out.parent / "photos" / "001.jpg"))
    assert cutout.shape[2] == 4
    assert 0 < (cutout[..., 3] == 255).mean() < 1
    rows, columns = (cutout[..., 3] == 255).nonzero()
    top, left = 2, 1  # a pixel around the box
    np.testing.assert_array_equal(cutout[rows, columns, :3], image[rows + top, columns + left])


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    predictions = predict(Finds(masks=False), photos, tmp_path / "out", formats=("labelme",), overlays=False)
    assert listed(tmp_path / "out") == ["images.json", "labelme"]
    content = json.loads((tmp_path / "out" / "labelme" / "000.json").read_text())
    assert content["shapes"][1]["points"] == [[8, 8], [20, 24]]  # boxes alone
    assert (tmp_path / "out" / "labelme" / content["imagePath"]).resolve() == (photos / "000.jpg").resolve()
    with pytest.raises(GCNetError, match="its format was not asked for"):
        predictions.results  # noqa: B018


def test_fewer_images_leave_no_older_parts(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 5)
    for count in (5, 2):
        paths = find_images([photos])[:count]
        wanted = Wanted(("jsonl",), overlays=False, images_a_file=2)
        predict_files(Finds(), paths, tmp_path / "out", wanted=wanted, progress=False)
    assert listed(tmp_path / "out") == ["images.json", "results-00000.jsonl"]


def test_without_a_folder_nothing_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results-00007.jsonl").write_text("mine")
    predict(Finds(), write_photos(tmp_path / "photos", 1), None, formats=("jsonl",))
    assert sorted(os.listdir(tmp_path)) == ["photos", "results-00007.jsonl"]


def test_shards_share_the_images(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 7)
    whole = predict(Finds(), photos, tmp_path / "whole", overlays=False)
    parts = [predict(Finds(), photos, tmp_path / "out", shard=(i, 3)) for i in range(3)]
    assert [part.out.name for part in parts] == ["shard-0-of-3", "shard-1-of-3", "shard-2-of-3"]
    assert [part.counts.images for part in parts] == [3, 2, 2]
    together = sorted((one for part in parts for one in part.results), key=lambda one: one["image_id"])
    assert together == whole.results


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Wanted(("jason",)), "no format 'jason'; did you mean \"jsonl\"?"),
        (lambda: Wanted(shard=(4, 4)), "there is no shard 4/4: the first of N is 0/N"),
        (lambda: parse_shard("1:3"), "give 0/4 for the first of four parts, 3/4 for the last, not 1:3"),
        (lambda: Wanted(images_a_file=0), "images_a_file is 0"),
        (lambda: predict(Finds(masks=False), Path(__file__), None, cutouts=True), "two finds boxes alone"),
    ],
)
def test_words_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(GCNetError, match=message):
        make()


def test_links_to_images_are_not_written_over(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    predict(Finds(), photos, tmp_path / "out", formats=("yolo",))
    links = tmp_path / "out" / "yolo" / "images"
    with pytest.raises(GCNetError, match=r"images holds some of the images and is to be written in"):
        predict(Finds(), links, tmp_path / "out", formats=("yolo",))
    assert (links / "000.jpg").is_file()


def test_images_in_a_folder_that_is_written_in(tmp_path: Path) -> None:
    crops = write_photos(tmp_path / "out" / "crops", 1)
    with pytest.raises(GCNetError, match="holds some of the images"):
        predict(Finds(), crops, tmp_path / "out", crops=True)


def test_processes_of_a_launcher_share_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 5)
    model = lively_detector(None)
    for name, value in {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    part = gcnet.predict(model, photos, out=tmp_path / "out", overlays=False)
    assert part.out == tmp_path / "out" / "shard-1-of-2"
    assert [entry["id"] for entry in part.images] == [1, 3]
