"""Images in, objects or classes out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fakes import listed
from pycocotools import mask as coco_mask
from torch import nn

from gcnet.errors import GCNetError
from gcnet.files import DiskFullError
from gcnet.image_files import find_images
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.spec import ClassifierSpec, ModelSpec, ResNetSpec
from gcnet.prediction import beside, files
from gcnet.prediction.predictions import Predictions
from gcnet.prediction.wanted import Wanted
from gcnet.types import Batch, Detections
from lively import lively_detector


class TwoObjects(Detector):
    """Finds a ring and a star in every image; fails at the image whose first pixel is `stop_at`."""

    def __init__(self, stop_at: int = -1, error: type[BaseException] = KeyboardInterrupt) -> None:
        nn.Module.__init__(self)
        self.spec = ModelSpec("two", ("ring", "star"))
        self.stop_at, self.error, self.calls = stop_at, error, 0

    def prepare(self, image: np.ndarray) -> Batch:
        size = image.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        return Batch(pixels, [size], [size], [0])

    def predict(self, batch: Batch, *, score_threshold: float = 0.05) -> list[Detections]:
        self.calls += 1
        assert not self.training
        if batch.images[0, 0, 0, 0] == self.stop_at:
            raise self.error("stopped")
        boxes = torch.tensor([[2.0, 3.0, 12.0, 9.0], [8.0, 8.0, 20.0, 24.0]])
        scores, labels = torch.tensor([0.9, 0.4]), torch.tensor([1, 0])
        found = Detections(boxes, scores, labels, torch.ones(2, 14, 14), batch.original_sizes[0])
        return [found[found.scores > score_threshold]]


def predict_files(model: Any, images: Sequence[Path], *args: Any, **options: Any) -> Predictions:
    return files.predict_files(model, find_images(images), *args, **options)


def write_image(path: Path, value: int = 0, size: tuple[int, int] = (40, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def test_overlays_and_results(tmp_path: Path) -> None:
    first = write_image(tmp_path / "in" / "a.png")
    second = write_image(tmp_path / "in" / "b.JPG", size=(50, 60))
    predictions = predict_files(TwoObjects(), [tmp_path / "in"], tmp_path / "out", progress=False)
    assert (len(predictions.images), len(predictions.results), predictions.failed) == (2, 2, [])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [entry["file_name"] for entry in results] == [first.as_posix(), second.as_posix()]
    assert results[1] | {"segmentation": None} == {
        "image_id": 1,
        "category_id": 1,
        "bbox": [2.0, 3.0, 10.0, 6.0],
        "score": pytest.approx(0.9),
        "segmentation": None,
        "file_name": second.as_posix(),
        "category_name": "star",
    }
    assert coco_mask.area(results[1]["segmentation"]) == 60
    assert results[1]["segmentation"]["size"] == [50, 60]
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert images[1] == {
        "id": 1,
        "file_name": second.as_posix(),
        "height": 50,
        "width": 60,
        "detections": 1,
        "overlay": "b.jpg",
    }
    overlay = cv2.imread(str(tmp_path / "out" / "b.jpg"))
    assert overlay.shape == (50, 60, 3)
    assert np.abs(overlay.astype(int)).max() > 60
    assert listed(tmp_path / "out") == ["a.png", "b.jpg", "images.json", "results.json"]


def test_the_threshold_holds_for_results(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    out = tmp_path / "out"
    predictions = predict_files(
        TwoObjects(), [image], out, score_threshold=0.3, wanted=Wanted(overlays=False), progress=False
    )
    assert len(predictions.results) == 2
    assert listed(out) == ["images.json", "results.json"]


def test_broken_images_are_reported_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in" / "c.png")
    (tmp_path / "in" / "a.jpg").write_text("not an image")
    whole = write_image(tmp_path / "in" / "b.png", size=(100, 100)).read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[: len(whole) // 2])
    predictions = predict_files(TwoObjects(), [tmp_path / "in"], tmp_path / "out")
    assert [Path(entry["file_name"]).name for entry in predictions.failed] == ["a.jpg", "b.png"]
    assert len(predictions.images) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(lines) == 2
    assert "a.jpg" in lines[0]
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert ["error" in image for image in images] == [True, True, False]
    assert {entry["image_id"] for entry in json.loads((tmp_path / "out" / "results.json").read_text())} == {2}


def test_images_without_any_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("")
    predictions = predict_files(TwoObjects(), [tmp_path / "a.jpg"], tmp_path / "out", progress=False)
    assert (len(predictions.images), len(predictions.failed)) == (1, 1)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_found_survives_the_end_of_the_run(tmp_path: Path, error: type[BaseException]) -> None:
    for value in (1, 2, 3):
        write_image(tmp_path / "in" / f"{value}.png", value)
    with pytest.raises(error, match="stopped"):
        predict_files(TwoObjects(3, error), [tmp_path / "in"], tmp_path / "out", progress=False)
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 2
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())) == 2
    assert (tmp_path / "out" / "2.png").exists()


def test_a_call_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for value in (1, 2, 3):
        write_image(folder / f"{value}.png", value)
    predict_files(TwoObjects(), [folder], tmp_path / "whole", progress=False)
    monkeypatch.setattr(files, "WHOLE", {})  # a killed process writes no more
    monkeypatch.setattr(files, "write_json", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        predict_files(TwoObjects(3), [folder], out, progress=False)
    monkeypatch.undo()
    assert listed(out) == ["1.png", "2.png", "unfinished.jsonl"]
    with open(out / "unfinished.jsonl", "a") as file:
        file.write('["in/3.png", {"stamp": [')  # torn
    with pytest.raises(GCNetError, match=r"unfinished work of another call, with .*1\.png and 1 more"):
        predict_files(TwoObjects(), [folder / "3.png"], out, progress=False)
    with pytest.raises(GCNetError, match=r"another call \(its score_threshold differs"):
        predict_files(TwoObjects(), [folder], out, score_threshold=0.1, progress=False)
    write_image(folder / "2.png", 2, (33, 44))  # another image by now
    write_image(folder / "0.png", 4)
    again = TwoObjects().eval()
    predictions = predict_files(again, [folder], out, progress=False)
    assert again.calls == 3
    assert [entry["id"] for entry in predictions.images] == [0, 1, 2, 3]
    assert [entry["image_id"] for entry in predictions.results] == [0, 1, 2, 3]
    assert predictions.images[2]["height"] == 33
    assert json.loads((out / "results.json").read_text()) == predictions.results
    before = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert predictions.results[3] == before[2] | {"image_id": 3}
    assert listed(out) == [f"{n}.png" for n in range(4)] + ["images.json", "results.json"]


def test_a_call_goes_on_without_the_images_that_are_gone(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for value in (1, 2, 3):
        write_image(folder / f"{value}.png", value)
    with pytest.raises(KeyboardInterrupt):
        predict_files(TwoObjects(3), [folder], out, progress=False)
    (folder / "1.png").unlink()
    again = TwoObjects().eval()
    predictions = predict_files(again, [folder], out, progress=False)
    assert again.calls == 1
    assert [Path(entry["file_name"]).name for entry in predictions.images] == ["2.png", "3.png"]
    with pytest.raises(KeyboardInterrupt):
        predict_files(TwoObjects(3), [folder], out, progress=False)
    (folder / "2.png").unlink()  # all that was done: it may be the work of any call
    with pytest.raises(GCNetError, match="unfinished work of another call"):
        predict_files(TwoObjects(), [folder], out, progress=False)


def test_a_call_that_goes_on_draws_each_image_under_its_own_name(tmp_path: Path) -> None:
    out, images = tmp_path / "out", tmp_path / "in" / "*" / "*.png"
    write_image(tmp_path / "in" / "b" / "x.png", 10)
    write_image(tmp_path / "in" / "c" / "y.png", 2)
    with pytest.raises(KeyboardInterrupt):
        predict_files(TwoObjects(2), [images], out, progress=False)
    write_image(tmp_path / "in" / "a" / "x.png", 200)  # takes the name of the one that is done
    predictions = predict_files(TwoObjects(), [images], out, progress=False)
    overlays = [out / entry["overlay"] for entry in predictions.images]
    assert [path.name for path in overlays] == ["x.png", "x-2.png", "y.png"]
    assert [cv2.imread(str(path))[-1, -1, 0] for path in overlays] == [200, 10, 2]


def test_pictures_of_others_are_not_replaced(tmp_path: Path) -> None:
    image, out = write_image(tmp_path / "in" / "dog.png"), tmp_path / "out"
    mine = write_image(out / "Dog.png", 200).read_bytes()
    for _ in range(2):  # its own overlay of the first time is replaced
        predict_files(TwoObjects(), [image], out, progress=False)
        assert (out / "Dog.png").read_bytes() == mine
        assert listed(out) == ["Dog.png", "dog-2.png", "images.json", "results.json"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    with pytest.raises(GCNetError, match=r"holds the metrics\.json of something else"):
        predict_files(TwoObjects(), [image], tmp_path / "run", progress=False)


def test_an_overlay_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [write_image(tmp_path / "in" / ("x" * length + ".png")) for length in (245, 251)]
    write_image(tmp_path / "in" / "wide.png", size=(1, 66000)).rename(tmp_path / "in" / "wide.jpg")
    images += [tmp_path / "in" / "twin" / images[1].name, tmp_path / "in" / "wide.jpg"]
    write_image(images[2])  # its overlay's name would have two letters more
    predictions = predict_files(TwoObjects(), images, tmp_path / "out", progress=False)
    assert len(predictions.results) == 4
    assert not predictions.failed
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == sorted(
        image.name for image in images[:2]
    )
    assert [record.getMessage()[:36] for record in caplog.records] == ["files of 2 images are not written, f"]


def test_images_come_in_order_however_long_each_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_first(path: Path, image: np.ndarray) -> None:
        time.sleep(0.2 if path.stem == "10" else 0)

    monkeypatch.setattr(beside, "write_image", slow_first)
    for value in range(10, 30):
        write_image(tmp_path / "in" / f"{value}.png", value)
    detector = TwoObjects().train()
    predictions = predict_files(detector, [tmp_path / "in"], tmp_path / "out", progress=False)
    assert (len(predictions.images), detector.training) == (20, True)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(entry["image_id"], Path(entry["file_name"]).stem) for entry in results] == [
        (index, str(index + 10)) for index in range(20)
    ]


def test_a_full_disk_loses_pictures_for_now_but_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = beside.write_image

    def full(path: Path, image: np.ndarray) -> None:
        if path.stem >= "3":
            raise DiskFullError("no space left")
        write(path, image)

    monkeypatch.setattr(beside, "write_image", full)
    for value in range(1, 6):
        write_image(tmp_path / "in" / f"{value}.png", value)
    detector = TwoObjects()
    with pytest.raises(GCNetError, match="no space left"):
        predict_files(detector, [tmp_path / "in"], tmp_path / "out", progress=False)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [entry["image_id"] for entry in results][:3] == [0, 1, 2]
    monkeypatch.undo()  # there is room
    again = TwoObjects().eval()
    predict_files(again, [tmp_path / "in"], tmp_path / "out", progress=False)
    assert again.calls == 3
    assert listed(tmp_path / "out") == [f"{n}.png" for n in range(1, 6)] + ["images.json", "results.json"]


def test_equal_names_get_files_of_their_own(tmp_path: Path) -> None:
    for folder in "abc":
        write_image(tmp_path / folder / ("X.png" if folder == "b" else "x.png"))
    write_image(tmp_path / "d" / "x.bmp")
    out = tmp_path / "out"
    predict_files(TwoObjects(), [tmp_path / folder for folder in "abcd"], out, progress=False)
    assert listed(out) == [
        "X-2.png",
        "images.json",
        "results.json",
        "x-3.png",
        "x-4.png",
        "x.png",
    ]


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    before = image.read_bytes()
    detector = TwoObjects()
    with pytest.raises(GCNetError, match=r"a\.png would replace an input image"):
        predict_files(detector, [image], tmp_path, progress=False)
    assert image.read_bytes() == before
    assert detector.calls == 0
    assert listed(tmp_path) == ["a.png"]
    predict_files(detector, [image], tmp_path, wanted=Wanted(overlays=False, crops=True), progress=False)
    assert image.read_bytes() == before
    assert listed(tmp_path / "crops") == ["a-0.png"]


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    detector = TwoObjects()
    with pytest.raises(GCNetError, match="cannot write in"):
        predict_files(detector, [image], image / "out", progress=False)
    assert detector.calls == 0


def test_a_threshold_that_no_score_can_reach(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    with pytest.raises(GCNetError, match=r"50 is not in \[0, 1\]"):
        predict_files(TwoObjects(), [image], tmp_path / "out", score_threshold=50)


def test_without_a_folder_detections_are_kept_and_nothing_is_written(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not an image")
    predictions = predict_files(TwoObjects(), [tmp_path], progress=False)
    assert predictions.out is None
    assert [len(found) for found in predictions.found] == [1]
    assert [result["file_name"] for result in predictions.results] == [image.as_posix()]
    assert ["error" in entry for entry in predictions.images] == [False, True]
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


BACKBONE = ResNetSpec((1, 1, 1, 1), stem_channels=16, base_channels=16, norm="batch", frozen_stages=0)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    names = ("cat", "dog $5", "a class whose name is much too long for a sheet", "owl", "bee", "elk")
    return Classifier(ClassifierSpec("small", names, BACKBONE, image_size=(40, 32))).eval()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(7):
        assert cv2.imwrite(
            str(tmp_path / "photos" / f"{i}.png"), rng.integers(0, 256, (30 + i, 300, 3), dtype=np.uint8)
        )
    return tmp_path / "photos"


def test_classes_as_json_and_sheet(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    (photos / "3.png").write_bytes(b"broken")
    predictions = predict_files(classifier, [photos], tmp_path / "out", top=2, progress=False)
    entries = json.loads((tmp_path / "out" / "results.json").read_text())
    assert entries == predictions.images
    assert [Path(entry["file_name"]).name for entry in entries] == [f"{i}.png" for i in range(7)]
    assert "not an image" in entries[3]["error"]
    assert [Path(entry["file_name"]).name for entry in predictions.failed] == ["3.png"]
    expected = classifier.predict_images(photos / "0.png", top=2)[0]
    assert entries[0]["predicted"] == list(expected.names)
    assert entries[0]["probabilities"] == pytest.approx(expected.probabilities.tolist(), abs=1e-5)
    sheet = cv2.imread(str(tmp_path / "out" / "overview.jpg"))
    assert sheet is not None
    assert sheet.shape[0] < sheet.shape[1]  # two rows of five


def test_a_classifier_without_a_sheet(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    predict_files(
        classifier, [photos / "0.png"], tmp_path / "out", wanted=Wanted(overlays=False), progress=False
    )
    assert listed(tmp_path / "out") == ["results.json"]


def test_the_sheet_replaces_no_picture(classifier: Classifier, photos: Path) -> None:
    (photos / "0.png").rename(photos / "overview.jpg")
    with pytest.raises(GCNetError, match="would replace an input image"):
        predict_files(classifier, [photos], photos, progress=False)
    out = photos.with_name("out")
    predict_files(classifier, [photos], out, progress=False)
    (out / "overview.jpg").write_bytes(b"mine")
    with pytest.raises(GCNetError, match=r"overview\.jpg would be replaced"):
        predict_files(classifier, [photos], out, progress=False)


def test_batches_give_what_single_images_give(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = lively_detector(None)
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number, size in enumerate([(60, 80), (64, 90), (90, 60), (60, 80), (61, 83)]):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), image)
    alone, together = (
        predict_files(detector, [tmp_path / "in"], batch_size=size, score_threshold=0.0, progress=False)
        for size in (1, 3)
    )
    assert alone.images == together.images
    assert alone.counts.objects > 20
    for one, other in zip(alone.results, together.results, strict=True):
        assert one["category_id"] == other["category_id"]
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.01)
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
