"""Exports find what their models find."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from gcnet.deploy.exporting import apart, export
from gcnet.deploy.runtime import ExportedDetector
from gcnet.errors import GCNetError
from gcnet.found import Found
from gcnet.lab.subjects import busy_detector
from gcnet.weights.files import save_model

SQUARE = np.full((1, 28, 28), 0.9, np.float32)


def found(*boxes: tuple[float, ...], score: float = 0.9, label: int = 1) -> Found:
    count = len(boxes)
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Found(
        corners,
        np.full(count, score, np.float32),
        np.full(count, label, np.int64),
        SQUARE.repeat(count, axis=0),
        (100, 120),
        corners,
    )


def test_what_differs() -> None:
    exact = found((10, 10, 50, 50), (60, 60, 90, 90))
    same = apart(exact, exact)
    assert (same.missing, same.added, same.box_px, same.score, same.mask_share) == (0, 0, 0, 0, 0)
    assert same.within("fp32")
    moved = apart(found((10, 10.5, 50, 50), (60, 60, 90, 90)), exact)
    assert moved.box_px == pytest.approx(0.5)
    assert 0 < moved.mask_share < 0.05
    assert not moved.within("fp32")
    assert moved.within("fp16")
    other = apart(replace(exact, scores=exact.scores - np.float32(0.01)), exact)
    assert other.score == pytest.approx(0.01, abs=1e-6)
    assert not other.within("fp32")
    lost = apart(exact[:0], exact)
    assert (lost.missing, lost.added) == (2, 0)
    assert not lost.within("int8")
    assert apart(replace(exact, labels=exact.labels + 1), exact).missing == 2  # a pair is of one class


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "busy.safetensors"
    save_model(busy_detector("mask_rcnn_tiny_gc4"), path)
    return path


def run_export(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: tracers do not see through the tests' checks of arguments."""
    command = [sys.executable, "-m", "gcnet", "export", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_predictions(out: Path, model: Path, height: int, width: int) -> None:
    """The file's detections in an image that it was not compared on."""
    from gcnet import load_model

    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    compared = apart(
        ExportedDetector.load(out).predict_images(image)[0],
        load_model(model).predict_images(image)[0].arrays(),
    )
    assert compared.detections > 20
    assert compared.within("fp32"), compared


def test_onnx_of_one_size(tmp_path: Path) -> None:
    model, out = tmp_path / "busy.safetensors", tmp_path / "out" / "busy.onnx"
    save_model(busy_detector("faster_rcnn_tiny"), model)
    done = run_export(model, "--out", out, "--size", "100x130")
    assert done.returncode == 0, done.stderr
    assert "100 detections, 0 missing and 0 added" in done.stdout
    assert list(out.parent.iterdir()) == [out]
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    (seen,) = ExportedDetector.load(out).predict_images(image)
    assert len(seen) == 100
    assert seen.mask_probs is None
    assert (seen.boxes[:, 2:] <= (80, 60)).all()


@pytest.mark.slow
def test_onnx_of_any_size(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "busy.onnx"
    done = run_export(file, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "100 detections, 0 missing and 0 added" in done.stdout
    assert list(tmp_path.iterdir()) == [out]
    check_predictions(out, file, 96, 160)
    check_predictions(out, file, 200, 70)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--to", "torch", "--size", "128x160"),
        ("--precision", "fp16"),
        ("--size", "100x130"),
        ("--size", "128x160", "--batch-size", "2"),
    ],
    ids=" ".join,
)
def test_ways(file: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    suffix = ".pt2" if "torch" in options else ".onnx"
    out = tmp_path / f"busy{suffix}"
    done = run_export(file, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert "100 detections" in done.stdout


@pytest.mark.slow
def test_int8_is_smaller_and_needs_images(file: Path, tmp_path: Path) -> None:
    pictures = Path(__file__).parents[1] / "golden"
    out = tmp_path / "busy.onnx"
    done = run_export(file, "--out", out, "--precision", "int8", "--calibration", pictures)
    assert done.returncode == 0, done.stderr
    kinds = [node.op_type for node in onnx.load(out).graph.node]
    assert 10 < kinds.count("QuantizeLinear") < kinds.count("Conv") * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faster_rcnn_tiny", "cascade_rcnn_tiny_gc4"])
def test_other_detectors(name: str, tmp_path: Path) -> None:
    model, out = tmp_path / "busy.safetensors", tmp_path / "busy.onnx"
    save_model(busy_detector(name), model)
    done = run_export(model, "--out", out)
    assert done.returncode == 0, done.stderr
    check_predictions(out, model, 96, 160)


def test_wrong_words(file: Path, tmp_path: Path) -> None:
    detector = busy_detector("mask_rcnn_tiny")
    with pytest.raises(GCNetError, match=r"end in \.onnx, \.pt2"):
        export(detector, tmp_path / "model.tflite")
    with pytest.raises(GCNetError, match="of one size"):
        export(detector, tmp_path / "model.pt2")
    with pytest.raises(GCNetError, match="--calibration"):
        export(detector, tmp_path / "model.onnx", precision="int8")
    done = run_export(file, "--to", "torch", "--out", tmp_path / "model.onnx")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "end in .pt2" in done.stderr
    assert run_export(file, "--size", "12").returncode == 2
