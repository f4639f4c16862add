"""Reading exports: what a file must say, and images in their frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gcnet.deploy.runtime import (
    Details,
    ExportedClassifier,
    ExportedDetector,
    Prepared,
    as_found,
    load_export,
    prepare,
)
from gcnet.errors import GCNetError, needs
from gcnet.models.coordinates import resize_inclusive, whole_pixel_frames

DETAILS = Details("tiny", ("a", "b"), (160, 96), masks=True)


def test_an_image_is_resized_as_the_model_says() -> None:
    image = np.full((50, 100, 3), 7, np.uint8)
    prepared = prepare(image, DETAILS)
    assert prepared.size == (80, 160)
    assert prepared.images.shape == (1, 3, 80, 160)
    assert (prepared.images == 7).all()


def test_a_file_of_one_size_gets_the_image_on_what_the_network_takes_for_zeros() -> None:
    image = np.full((50, 100, 3), 7, np.uint8)
    of_one_size = replace(DETAILS, size=(96, 128), image_mean=(10.4, 20.0, 30.5))
    prepared = prepare(image, of_one_size)
    assert prepared.size == (64, 128)
    assert prepared.images.shape == (1, 3, 96, 128)
    assert (prepared.images[:, :, :64] == 7).all()
    assert (prepared.images[:, :, 64:] == np.reshape([10, 20, 30], (3, 1, 1))).all()
    exact = prepare(image, replace(of_one_size, resize="torchvision")).images[:, :, 64:]
    np.testing.assert_array_equal(exact - np.float32([[[10.4]], [[20.0]], [[30.5]]]), 0)


@pytest.mark.parametrize("size", [(200, 300), (200, 271), (49, 98), (61, 107)])
def test_a_file_of_the_model_s_own_size_gets_the_image_as_large_as_the_model(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    model = replace(DETAILS, image_size=(256, 192))
    assert prepare(image, replace(model, size=(192, 256))).size == prepare(image, model).size


def test_a_file_that_resizes_gets_the_image_as_it_is() -> None:
    image = np.full((50, 100, 3), 7, np.uint8)
    resizes = replace(DETAILS, resizes=True)
    prepared = prepare(image, resizes)
    assert prepared.size == (50, 100)
    assert prepared.images is image
    with pytest.raises(GCNetError, match=r"an image is 50 x 100 .* takes those of 60 x 80"):
        prepare(image, replace(resizes, size=(60, 80)))


def test_a_threshold_that_is_no_share_is_refused() -> None:
    detector = ExportedDetector(DETAILS, lambda images: [])
    with pytest.raises(GCNetError, match=r"score threshold nan is not in \[0, 1\]"):
        detector.predict_images(np.zeros((50, 100, 3), np.uint8), score_threshold=float("nan"))


def test_the_resize_of_the_model() -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 77, 3), np.uint8)
    assert prepare(image, replace(DETAILS, resize="torchvision")).images.dtype == np.float32
    pillow = prepare(image, replace(DETAILS, resize="pillow", image_size=(20, 10)))
    plain = prepare(image, replace(DETAILS, image_size=(20, 10)))
    assert pillow.images.std() < plain.images.std()  # every pixel counts


OUTPUTS: list[Any] = [
    np.array([[[16, 8, 161, 81], [0, 0, 9, 9]]], np.float32),
    np.array([[0.9, 0.0]], np.float32),
    np.array([[1, 0]]),
    np.array([[True, False]]),
]
RESIZED = Prepared(np.zeros((1, 3, 80, 160), np.uint8), (50, 100), (80, 160))


def test_boxes_come_back_to_the_image_as_given() -> None:
    boxes_only = replace(DETAILS, masks=False)
    found = as_found(OUTPUTS, RESIZED, boxes_only)
    np.testing.assert_allclose(found.boxes, [[10, 5, 100, 50]])  # cut to the image
    assert found.labels.tolist() == [1]
    assert found.mask_probs is None
    inclusive = as_found(OUTPUTS, RESIZED, replace(boxes_only, coordinates="inclusive"))
    exact = resize_inclusive(torch.tensor([[16.0, 8, 161, 81]]), 100 / 160, 50 / 80).numpy()
    np.testing.assert_allclose(inclusive.boxes, exact.clip(0, [100, 50, 100, 50]))


def test_what_is_found_in_the_padding_is_left_out() -> None:
    below = np.array([[[0, 81, 9, 96], [16, 8, 161, 96]]], np.float32)
    found = as_found([below, *OUTPUTS[1:3], np.array([[True, True]])], RESIZED, replace(DETAILS, masks=False))
    np.testing.assert_allclose(found.boxes, [[10, 5, 100, 50]])


def test_masks_lie_where_torchvision_draws_them() -> None:
    masks = np.full((1, 2, 28, 28), 0.9, np.float32)
    found = as_found([*OUTPUTS, masks], RESIZED, replace(DETAILS, coordinates="torchvision"))
    exact = whole_pixel_frames(torch.from_numpy(found.boxes), 28)
    np.testing.assert_allclose(found.frames, exact.numpy(), rtol=1e-6)
    plain = as_found([*OUTPUTS, masks], RESIZED, DETAILS)
    np.testing.assert_array_equal(plain.frames, plain.boxes)


def test_a_classifier_names_the_most_probable() -> None:
    details = replace(DETAILS, kind="classifier", class_names=("a", "b", "c"), image_size=(10, 8))
    seen = []

    def run(squares: np.ndarray) -> list[np.ndarray]:
        seen.append(squares.shape)
        return [np.array([[0.25, 0.5, 0.25]])]

    image = np.zeros((20, 30, 3), np.uint8)
    (found,) = ExportedClassifier(details, run).predict_images(image, top=2)
    assert seen == [(1, 3, 8, 8)]
    assert found.names == ("b", "a")
    assert found.probabilities.tolist() == [0.5, 0.25]


def test_images_that_a_batch_lacks_are_repeated() -> None:
    seen = []

    def run(images: np.ndarray) -> list[np.ndarray]:
        seen.append(images.shape)
        return OUTPUTS

    detector = ExportedDetector(replace(DETAILS, masks=False, batch=3), run)
    assert len(detector.predict_images(np.zeros((50, 100, 3), np.uint8))[0]) == 1
    assert seen == [(3, 3, 80, 160)]


def test_as_many_images_as_the_file_takes_are_predicted_together() -> None:
    seen = []

    def run(images: np.ndarray) -> list[np.ndarray]:
        """Each image's colour as its score."""
        seen.append(images[:, 0, 0, 0].tolist())
        scores = images[:, :1, 0, 0] / np.float32(100)
        boxes = np.tile(np.array([[[0, 0, 9, 9]]], np.float32), (len(images), 1, 1))
        return [boxes, scores, np.zeros((len(images), 1), int), np.ones((len(images), 1), bool)]

    detector = ExportedDetector(replace(DETAILS, masks=False, batch=2), run)
    wide = [np.full((50, 100, 3), colour, np.uint8) for colour in (10, 20, 30, 50)]
    images = [*wide[:3], np.full((100, 50, 3), 40, np.uint8), wide[3]]
    found = detector.predict_images(images)
    assert [round(float(one.scores[0]), 2) for one in found] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert seen == [[10, 20], [30, 30], [40, 40], [50, 50]]  # one size at a time
    seen.clear()
    prepared = Prepared.together([detector.prepare(image) for image in wide])
    assert [len(one) for one in detector.predict(prepared, score_threshold=0.25)] == [0, 0, 1, 1]
    assert seen == [[10, 20], [30, 50]]


def test_squares_are_classified_together() -> None:
    seen = []

    def run(squares: np.ndarray) -> list[np.ndarray]:
        seen.append(len(squares))
        share = squares[:, :1, 0, 0] / 100
        return [np.concatenate([share, 1 - share], axis=1)]

    details = replace(DETAILS, kind="classifier", class_names=("a", "b"), image_size=(10, 8), batch=2)
    images = [np.full((20, 30, 3), colour, np.uint8) for colour in (10, 80, 60)]
    found = ExportedClassifier(details, run).predict_images(images, top=1)
    assert [one.names for one in found] == [("b",), ("a",), ("a",)]
    assert seen == [2, 2]


SAID = asdict(DETAILS)


def test_what_a_file_says_of_itself() -> None:
    details = replace(DETAILS, size=(96, 128), provenance={"score_threshold": 0.25})
    assert Details.parse(json.dumps(asdict(details)), Path("model.onnx")) == details
    before = {name: value for name, value in SAID.items() if name != "provenance"}
    assert Details.parse(json.dumps(before), Path("model.onnx")) == DETAILS


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{",
        '{"name": "x"}',
        '{"size": [1], "image_size": 3, "class_names": 1}',
        json.dumps(SAID | {"provenance": "a file"}),
        json.dumps(SAID | {"batch": 0}),
        json.dumps(SAID | {"image_size": [160, float("inf")]}),
        json.dumps(SAID | {"resize": "somehow"}),
        '{"name": ' + "[" * 100_000,
    ],
)
def test_other_people_s_files(text: str | None) -> None:
    with pytest.raises(GCNetError, match=r"model\.onnx does not say how images are prepared"):
        Details.parse(text, Path("model.onnx"))


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="does not exist"):
        load_export(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"<nothing>")
    with pytest.raises(GCNetError, match="ONNX Runtime cannot read") as error:
        load_export(tmp_path / "model.onnx")
    assert "\n" not in str(error.value)


def test_a_file_that_is_overwritten_stays_as_it_was_read(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    ops = openvino.opset13
    images = ops.parameter([1, 3, 8, 8], np.uint8, name="images")
    total = ops.reduce_sum(ops.convert(images, "f32"), np.array([1, 2, 3]), keep_dims=False)
    weights = np.linspace(0, 1, 10_000, dtype=np.float32)[None]
    result = ops.multiply(ops.unsqueeze(total, np.array(1)), ops.constant(weights))
    result.output(0).set_names({"probabilities"})
    model = openvino.Model([result], [images])
    classes = tuple(map(str, range(10_000)))
    details = Details("tiny", classes, (8, 8), masks=False, kind="classifier")
    model.set_rt_info(json.dumps(asdict(details)), "gcnet")
    openvino.save_model(model, file := tmp_path / "tiny.xml", compress_to_fp16=False)
    classifier, square = load_export(file), np.ones((1, 3, 8, 8), np.uint8)
    weights_file = file.with_suffix(".bin")
    with open(weights_file, "r+b") as opened:
        opened.write(bytes(weights_file.stat().st_size))
    np.testing.assert_allclose(classifier.predict(square), 192 * weights, rtol=1e-6)
    with pytest.raises(GCNetError, match=r"OpenVINO cannot run .*tiny\.xml"):
        classifier.predict(square[..., :7, :7])


def test_what_onnx_runtime_cannot_run_is_one_line(tmp_path: Path) -> None:
    onnx, parser = pytest.importorskip("onnx"), pytest.importorskip("onnx.parser")
    pytest.importorskip("onnxruntime")
    text = """<ir_version: 10, opset_import: ["" : 20]>
    tiny (uint8[1, 3, 8, 8] images) => (float[1, 192] probabilities) {
        numbers = Cast <to = 1> (images)
        probabilities = Flatten (numbers)
    }"""
    model = parser.parse_model(text)
    details = Details("tiny", tuple(map(str, range(192))), (8, 8), masks=False, kind="classifier")
    onnx.helper.set_model_props(model, {"gcnet": json.dumps(asdict(details))})
    onnx.save(model, tmp_path / "tiny.onnx")
    with pytest.raises(GCNetError, match=r"ONNX Runtime cannot run .*tiny\.onnx: ") as error:
        load_export(tmp_path / "tiny.onnx").predict(np.ones((1, 3, 7, 7), np.uint8))
    assert "\n" not in str(error.value)


def test_what_is_no_openvino_model(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "model.xml").write_bytes(b"<nothing>")
    with pytest.raises(GCNetError, match=r"model\.xml has its weights in model\.bin, which is not beside it"):
        load_export(tmp_path / "model.xml")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(GCNetError, match="OpenVINO cannot read") as error:
        load_export(tmp_path / "model.xml")
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GCNetError, match=r"pip install 'gcnet\[onnx\]'"):
        needs("onnxruntime", "onnx")


def test_onnx_runtime_tells_nobody_of_its_uses(tmp_path: Path) -> None:
    needs("onnxruntime")
    switches = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI")
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    words = [sys.executable, "-c", "import gcnet.deploy.runtime, onnxruntime"]
    subprocess.run(words, env=environment | {"HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("onnxruntime.db"))
