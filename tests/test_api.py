"""`gcnet.train`, `gcnet.evaluate` and `gcnet.predict`, and their page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import gcnet
from gcnet.api.choices import shown_from
from gcnet.api.train import check_recipe
from gcnet.evaluation.coco_ap import Metrics
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.models.detector import Detector
from gcnet.recipe import DIVISION
from gcnet.weights import start
from gcnet.weights.fetch import find_source

TINY = "mask_rcnn_tiny_gc4"
PAGE = Path(__file__).parent.parent / "docs" / "python.md"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_context_shapes(tmp_path_factory.mktemp("api") / "photos", train=4, valid=2, size=96)


@pytest.fixture(scope="module")
def detector(photos: Path) -> Detector:
    torch.manual_seed(0)
    return gcnet.create_model(TINY, class_names=gcnet.load_splits(photos)["train"].class_names)


def test_the_page_runs(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(example, names)
    assert Path("runs/photos/last.safetensors").is_file()
    assert Path("found/results.json").is_file()


def test_options_that_two_take_are_the_same_in_both() -> None:
    functions = (gcnet.predict, gcnet.evaluate, gcnet.train, gcnet.export)
    own = {"batch_size", "score_threshold", "weights", "images", "device", "precision", "out"}
    known: dict[str, object] = {}
    for function in functions:
        for name, one in inspect.signature(function).parameters.items():
            if name not in own:
                assert known.setdefault(name, one.default) == one.default, (function, name)
    recipe, evaluated = gcnet.Recipe(), inspect.signature(gcnet.evaluate).parameters
    for name in (*DIVISION, "skip_bad_images", "max_pixels"):
        assert evaluated[name].default == getattr(recipe, name), name


def test_a_model_and_a_data_set_do_as_well_as_their_names(detector: Detector, photos: Path) -> None:
    splits = gcnet.load_splits(photos)
    valid = splits["valid"]
    by_folder, _ = gcnet.evaluate(detector, photos, workers=0, progress=False)
    by_set, _ = gcnet.evaluate(detector, valid, workers=0, progress=False)
    by_splits, _ = gcnet.evaluate(detector, splits, workers=0, progress=False)
    assert by_folder == by_set == by_splits
    predictions = gcnet.predict(detector, str(photos / "valid"), score_threshold=0.05, progress=False)
    expected = detector.predict_images([entry["file_name"] for entry in predictions.images])
    for ours, theirs in zip(predictions.found, expected, strict=True):
        assert torch.equal(ours.boxes, theirs.boxes)
    few = gcnet.predict(
        detector, str(photos / "valid"), score_threshold=0.0, max_detections=2, progress=False
    )
    assert {len(found) for found in few.found} == {2}
    metrics, _ = gcnet.evaluate(detector, valid, max_detections=3, workers=0, progress=False)
    assert isinstance(metrics, Metrics)
    assert "AR3" in metrics.box
    assert detector.spec.roi.detections == 100


def test_the_threshold_of_a_file_is_what_its_model_shows_from(
    detector: Detector,
    photos: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, words = tmp_path / "m.safetensors", {"workers": 0, "progress": False}
    gcnet.save_model(detector, path)
    assert shown_from(gcnet.load_model(path)) == 0.5
    before = gcnet.load_model(path).state_dict()
    metrics, _ = gcnet.evaluate(path, photos, score_threshold=0.0, **words)
    assert shown_from(gcnet.load_model(path)) == 0.5  # an evaluation changes no file unless it is asked to
    gcnet.evaluate(path, photos, score_threshold=0.0, keep_threshold=True, **words)
    kept = gcnet.load_model(path)
    assert isinstance(metrics, Metrics)
    assert metrics.best is not None
    assert shown_from(kept) == pytest.approx(metrics.best.score, abs=1e-4)
    assert all(torch.equal(before[name], value) for name, value in kept.state_dict().items())
    gcnet.evaluate(path, photos, score_threshold=1.0, keep_threshold=True, **words)
    assert "no object is found, so that no score is best; the model stays as it is" in caplog.text
    assert gcnet.load_model(path).provenance == kept.provenance
    detector.provenance["score_threshold"] = 0.0
    try:
        shown = gcnet.predict(detector, str(photos / "valid"), progress=False)
    finally:
        detector.provenance.clear()
    assert "score threshold 0.00" in caplog.text
    assert {len(found) for found in shown.found} == {100}
    with pytest.raises(gcnet.GCNetError, match="a file of ours"):
        gcnet.evaluate(detector, photos, keep_threshold=True)
    monkeypatch.setattr("os.access", lambda place, mode: place != path.parent)
    with pytest.raises(gcnet.GCNetError, match="no permission to write in"):
        gcnet.evaluate(path, photos, keep_threshold=True, **words)


def test_a_file_is_trained_on_from_its_weights(
    detector: Detector, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gcnet.save_model(detector, tmp_path / "old.safetensors")
    splits = gcnet.load_splits(photos)
    result = gcnet.train(
        tmp_path / "old.safetensors", splits, out=tmp_path / "run", epochs=1, workers=0, lr=1e-9
    )
    printed = capsys.readouterr().out
    assert f"weights: {tmp_path / 'old.safetensors'}" in printed
    assert "all 6 keep their trained weights" in printed
    trained = gcnet.load_model(result.last)
    assert "trained_on" not in trained.provenance  # which is a folder or file, and here is none
    for name, value in detector.state_dict().items():
        if "running" not in name and value.is_floating_point():
            assert torch.allclose(trained.state_dict()[name], value, atol=1e-6), name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model, data: gcnet.predict(model, [np.zeros((9, 9, 3), np.uint8)]),
            "call model.predict_images",
        ),
        (lambda model, data: gcnet.predict(model, "nowhere.jpg"), "nowhere.jpg does not exist"),
        (lambda model, data: gcnet.predict(model, data / "valid", weights="x"), "this one has its own"),
        (lambda model, data: gcnet.predict("mask_rcnn_tinny", data / "valid"), "did you mean"),
        (lambda model, data: gcnet.predict(TINY, data / "valid"), "no published weights"),
        (lambda model, data: gcnet.evaluate(model, data / "none"), "does not exist"),
        (lambda model, data: gcnet.evaluate(model, data, split="test"), "no split 'test'"),
        (lambda model, data: gcnet.evaluate(model, {}), "the data has no split 'valid'"),
        (lambda model, data: gcnet.evaluate(model, [data]), "data is a list; give a path, a data set"),
        (lambda model, data: gcnet.evaluate(model, data, device="gpu"), "no such device"),
        (
            lambda model, data: gcnet.predict(model, data / "valid", batch_size=0),
            "batch_size is 0; give 1 or",
        ),
        (lambda model, data: gcnet.predict("m.onnx", data / "valid", device="cpu"), "leave out device"),
        (lambda model, data: gcnet.evaluate("m.onnx", data, batch_size=2), "leave out batch_size"),
        (lambda model, data: gcnet.evaluate("m.onnx", data, keep_threshold=True), "in a file of ours"),
        (lambda model, data: gcnet.compare(model, "m.onnx", data, out="x"), "m.onnx does not exist"),
        (lambda model, data: gcnet.compare(model, "m.onnx", data, out="x", flip=True), "m.onnx is an export"),
        (lambda model, data: gcnet.compare("m.onnx", model, data, out="x", batch_size=2), "leave out batch"),
        (lambda model, data: gcnet.compare(model, model, data, out="x", worker=1), 'did you mean "workers"'),
        (lambda model, data: gcnet.train(TINY, data, out="x", epoch=3), 'did you mean "epochs"'),
        (lambda model, data: gcnet.train(TINY, [data], out="x"), "data is a list; give a path, a data set"),
        (lambda model, data: gcnet.train(TINY, data, out="x", epochs=0), "give 1 or more"),
        (lambda model, data: gcnet.train(TINY, data / "none", out="x"), "does not exist"),
        (lambda model, data: gcnet.train("mask_rcnn_tinny", data, out="x"), "did you mean"),
    ],
)
def test_a_mistake_is_one_line(call, message, detector, photos, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gcnet.GCNetError, match=re.escape(message)):
        call(detector, photos)
    assert not list(tmp_path.iterdir())


def test_a_word_in_place_of_several_is_one(detector, tmp_path) -> None:
    """Its letters were the classes, the folders and the mirrors."""
    gcnet.save_model(gcnet.create_model(TINY, class_names="cat"), tmp_path / "cat.safetensors")
    assert gcnet.load_model(tmp_path / "cat.safetensors").spec.class_names == ("cat",)
    assert gcnet.load_model(tmp_path / "cat.safetensors", class_names="dog").spec.class_names == ("dog",)
    with pytest.raises(gcnet.GCNetError, match=re.escape(f"no images in {tmp_path}")):
        gcnet.export(detector, tmp_path / "x.onnx", precision="int8", calibration=str(tmp_path))


def test_a_path_is_a_word_of_the_recipe() -> None:
    assert check_recipe(gcnet.Recipe(), {"split_file": Path("run/split.json")}).split_file == "run/split.json"


def test_commands_on_a_cpu_keep_freed_memory(detector, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(start, "keep_freed_memory", lambda: kept.append(True))
    gcnet.save_model(detector, tmp_path / "m.safetensors")
    start.load_trained(find_source(tmp_path / "m.safetensors"), "cpu")
    assert kept == [True]
