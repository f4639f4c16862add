"""Reading exports: what a file must say, and images in their frames."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcnet.deploy.runtime import Details, ExportedDetector, as_found, needs, prepare
from gcnet.errors import GCNetError

DETAILS = Details("tiny", ("a", "b"), (160, 96), masks=True)


def test_an_image_is_resized_as_the_model_says() -> None:
    image = np.full((50, 100, 3), 7, np.uint8)
    pixels, size = prepare(image, DETAILS)
    assert size == (80, 160)
    assert pixels.shape == (1, 3, 80, 160)
    assert (pixels == 7).all()


def test_a_file_of_one_size_gets_the_image_on_zeros() -> None:
    image = np.full((50, 100, 3), 7, np.uint8)
    pixels, size = prepare(image, Details("tiny", ("a",), (160, 96), masks=True, size=(96, 128)))
    assert size == (64, 128)
    assert pixels.shape == (1, 3, 96, 128)
    assert (pixels[:, :, :64] == 7).all()
    assert not pixels[:, :, 64:].any()


def test_boxes_come_back_to_the_image_as_given() -> None:
    outputs: list[Any] = [
        np.array([[[16, 8, 160, 80], [0, 0, 9, 9]]], np.float32),
        np.array([[0.9, 0.0]], np.float32),
        np.array([[1, 0]]),
        np.array([[True, False]]),
    ]
    found = as_found(outputs, 0, (50, 100), (80, 160))
    np.testing.assert_allclose(found.boxes, [[10, 5, 100, 50]])
    assert found.labels.tolist() == [1]
    assert found.mask_probs is None


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{", '{"name": "x"}', '{"size": [1], "image_size": 3, "class_names": 1}']
)
def test_other_people_s_files(text: str | None) -> None:
    with pytest.raises(GCNetError, match=r"model\.onnx does not say how images are prepared"):
        Details.parse(text, Path("model.onnx"))


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="does not exist"):
        ExportedDetector.load(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"<nothing>")
    with pytest.raises(GCNetError, match="ONNX Runtime cannot read") as error:
        ExportedDetector.load(tmp_path / "model.onnx")
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GCNetError, match=r"pip install 'gcnet\[onnx\]'"):
        needs("onnxruntime", "onnx")
