"""Exports find what their models find."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import jaxtyping
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gcnet import create_model, load_model
from gcnet.api.choices import shown_from
from gcnet.cli import main
from gcnet.deploy import exporting
from gcnet.deploy.comparing import ClassComparison, Comparison, apart, compare
from gcnet.deploy.exporting import export
from gcnet.deploy.runtime import ExportedDetector, load_export
from gcnet.errors import GCNetError
from gcnet.found import Found
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.spec import SoftNMSSpec
from gcnet.weights.catalog import find_detector
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


def busy(name: str, *, deformable: bool = False, class_std: float = 0.5, **changes: object) -> Detector:
    """A detector with random weights that finds much, and whose blocks change the map."""
    torch.manual_seed(0)
    spec = replace(find_detector(name).spec, **changes)
    if deformable:
        spec = replace(spec, backbone=replace(spec.backbone, deformable_stages=(False, True, True, True)))
    detector = Detector(spec).eval()
    for head in detector.roi_heads.box_stages:
        nn.init.normal_(head.cls.weight, std=class_std)
    for parameter in detector.backbone.parameters():
        if parameter.dim() == 4 and not parameter.any():  # the last layer of a block, or of offsets
            nn.init.normal_(parameter, std=0.02)
    return detector


def picture(height: int, width: int) -> np.ndarray:
    """Squares, not noise: a resize that rounds otherwise finds the same."""
    coarse = np.random.default_rng(1).integers(0, 256, (height // 12 + 1, width // 12 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(12, axis=0).repeat(12, axis=1)[:height, :width])


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Without the tests' checks of arguments, through which tracers do not see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def run_export(*words: str | Path) -> str:
    """What the command says."""
    with unchecked(), contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["export", *map(str, words)]) == 0
    return said.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "busy.safetensors"
    save_model(busy("mask_rcnn_tiny_gc4"), path, provenance={"score_threshold": 0.25})
    return path


@pytest.fixture(scope="module")
def toned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a mean colour of its own, which is beside images that are smaller than a file's."""
    path = tmp_path_factory.mktemp("toned") / "busy.safetensors"
    detector = busy("mask_rcnn_tiny_gc4", image_mean=(120.0, 115.0, 110.0))
    save_model(detector, path, provenance={"score_threshold": 0.25})
    return path


@pytest.fixture(scope="module")
def exported(toned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all quick tests."""
    out = tmp_path_factory.mktemp("export") / "out" / "busy.onnx"
    said = run_export(toned, "--out", out, "--size", "100x130")
    assert "images of 128x160\nbeside the model: 100 detections, 0 missing and 0 added" in said
    assert list(out.parent.iterdir()) == [out]
    return out


def test_onnx_of_one_size(exported: Path, toned: Path) -> None:
    image = picture(60, 80)
    detector = load_export(exported)
    assert isinstance(detector, ExportedDetector)
    compared = compare(load_model(toned), detector, image)
    assert isinstance(compared, Comparison)
    assert compared.detections > 20
    assert compared.within("fp32"), compared
    (seen,) = detector.predict_images(image)
    assert (seen.boxes[:, 2:] <= (80, 60)).all()
    assert shown_from(detector) == 0.25
    assert detector.spec.image_mean == (120.0, 115.0, 110.0)


def test_weights_are_in_a_file_once(exported: Path) -> None:
    tensors = [one.raw_data for one in onnx.load(exported).graph.initializer if len(one.raw_data) > 1 << 16]
    assert len(tensors) == len(set(tensors)) > 10


def test_a_file_does_not_say_where_it_was_made(exported: Path) -> None:
    assert b"programs.py" not in exported.read_bytes()


WITHOUT_PYTORCH = """
import sys
sys.modules.update(torch=None, torchvision=None)
from gcnet.cli import main
sys.exit(main(sys.argv[1:]))
"""


def predict_without_pytorch(model: Path, folder: Path) -> Path:
    """The results of a run, which are equal to those of one with PyTorch."""
    image = folder / "image.png"
    cv2.imwrite(str(image), picture(100, 130))
    words = ["predict", str(model), str(image), "--out"]
    command = [sys.executable, "-c", WITHOUT_PYTORCH, *words, str(folder / "without")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert main([*words, str(folder / "with")]) == 0
    ours, exact = (json.loads((folder / name / "results.json").read_bytes()) for name in ("without", "with"))
    assert exact
    assert ours == exact
    return folder / "without"


def test_prediction_without_pytorch(exported: Path, tmp_path: Path) -> None:
    out = predict_without_pytorch(exported, tmp_path)
    assert (out / "image.png").stat().st_size > 1000


def check(out: Path, exact: Path, height: int, width: int, *, resizes: bool = False) -> None:
    """A file's detections in an image that it was not compared on."""
    detector = load_export(out)
    compared = compare(load_model(exact), detector, picture(height, width))
    assert isinstance(compared, Comparison)
    assert compared.detections > 20
    assert compared.within("fp32", resizes=resizes), compared


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_files_of_any_size(model: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"busy{suffix}"
    assert "100 detections, 0 missing and 0 added" in run_export(
        model, "--out", out, "--to", {".onnx": "onnx", ".xml": "openvino"}[suffix]
    )
    assert sorted(tmp_path.iterdir()) == ([out] if suffix == ".onnx" else [out.with_suffix(".bin"), out])
    check(out, model, 96, 160)
    check(out, model, 200, 70)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--to", "torch", "--size", "128x160"),
        ("--precision", "fp16"),
        ("--size", "128x160", "--batch-size", "2"),
        ("--to", "openvino", "--precision", "fp16"),
        ("--to", "openvino", "--size", "128x160", "--batch-size", "2"),
    ],
    ids=" ".join,
)
def test_ways(model: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    suffix = {"torch": ".pt2", "openvino": ".xml"}.get(options[1], ".onnx")
    out = tmp_path / f"busy{suffix}"
    assert "100 detections" in run_export(model, "--out", out, *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [(), ("--to", "torch", "--size", "240x320"), ("--to", "openvino", "--size", "240x320")],
    ids=" ".join,
)
def test_a_resize_in_the_file(model: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    suffix = {"torch": ".pt2", "openvino": ".xml"}.get(options[1] if options else "", ".onnx")
    out = tmp_path / f"busy{suffix}"
    run_export(model, "--out", out, "--with-resize", *options)
    if suffix != ".pt2":
        check(out, model, 240, 320, resizes=True)
    if suffix == ".onnx":
        check(out, model, 90, 61, resizes=True)
    elif suffix == ".xml":
        with pytest.raises(GCNetError, match="takes those of 240 x 320"):
            load_export(out).predict_images(picture(90, 61))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_is_smaller_and_needs_images(model: Path, tmp_path: Path, kind: str) -> None:
    pictures = Path(__file__).parents[1] / "golden"
    out = tmp_path / f"busy{'.onnx' if kind == 'onnx' else '.xml'}"
    run_export(model, "--to", kind, "--out", out, "--precision", "int8", "--calibration", pictures)
    if kind == "onnx":
        kinds = [node.op_type for node in onnx.load(out).graph.node]
        assert 10 < kinds.count("QuantizeLinear") < kinds.count("Conv") * 3
    else:
        assert out.with_suffix(".bin").stat().st_size < 0.9 * model.stat().st_size


SOFT = {"class_std": 0.25, "roi": replace(find_detector("mask_rcnn_tiny").spec.roi, soft_nms=SoftNMSSpec())}
OTHERS = {
    "soft nms": ("mask_rcnn_tiny", SOFT),
    "boxes": ("faster_rcnn_tiny", {}),
    "cascade": ("cascade_rcnn_tiny_gc4", {}),
    "deformable": ("mask_rcnn_tiny", {"deformable": True}),
    "inclusive": ("mask_rcnn_tiny_gc4", {"coordinates": "inclusive"}),
    "torchvision": ("mask_rcnn_tiny_gc4", {"coordinates": "torchvision", "resize": "torchvision"}),
    "pillow": ("mask_rcnn_tiny", {"resize": "pillow", "class_std": 0.25}),  # more: best scores of 1 that tie
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("resizes", [False, True], ids=["", "with resize"])
def test_other_detectors(kind: str, resizes: bool, tmp_path: Path) -> None:
    name, changes = OTHERS[kind]
    model, out = tmp_path / "busy.safetensors", tmp_path / "busy.onnx"
    save_model(busy(name, **changes), model)
    run_export(model, "--out", out, *(["--with-resize"] if resizes else []))
    check(out, model, 96, 160, resizes=resizes)


@pytest.mark.slow
def test_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, out = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    save_model(create_model("resnet_tiny", num_classes=3), model)
    assert "fp32, squares of the classifier's size" in run_export(model, "--out", out)
    loaded = load_model(model)
    assert isinstance(loaded, Classifier)
    compared = compare(loaded, load_export(out), picture(200, 300))
    assert isinstance(compared, ClassComparison)
    assert compared.classes == 3
    assert compared.probability < 1e-5
    results = predict_without_pytorch(out, tmp_path)
    assert (results / "overview.jpg").stat().st_size > 1000


def test_a_classifier_for_pytorch(tmp_path: Path) -> None:
    with unchecked():
        compared = export(create_model("resnet_tiny", num_classes=3), tmp_path / "c.pt2", batch=2)
    assert compared.within("fp32")


def test_a_classifier_in_training_stays_so() -> None:
    model = create_model("resnet_tiny", num_classes=3).train()
    with unchecked():
        exporting._trace(model, exporting._details(model, None, 1, "fp32", False), half=False)
    assert model.training


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised = []
    monkeypatch.setattr("os.fsync", lambda handle: synchronised.append(os.fstat(handle).st_ino))
    with unchecked():
        export(create_model("resnet_tiny"), tmp_path / "c.onnx")
    assert (tmp_path / "c.onnx").stat().st_ino in synchronised


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_full_disk_is_one_line(tmp_path: Path, suffix: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with unchecked(), pytest.raises(GCNetError, match=rf"cannot write .*c\{suffix}: File too large"):
            export(create_model("resnet_tiny"), tmp_path / f"c{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = busy("mask_rcnn_tiny")
    wrong = {
        "model.tflite": ({}, r"end in \.onnx, \.xml, \.pt2"),
        "model.pt2": ({}, "of one size"),
        "model.onnx": ({"precision": "int8"}, "--calibration"),
        "model.xml": ({"with_resize": True, "batch": 2}, "one image at a time"),
    }
    for name, (options, reason) in wrong.items():
        with pytest.raises(GCNetError, match=reason):
            export(detector, tmp_path / name, **options)
    with pytest.raises(GCNetError, match="OpenVINO has no rule for"):
        export(busy("mask_rcnn_tiny", deformable=True), tmp_path / "model.xml")
    with pytest.raises(GCNetError, match="soft NMS"):
        export(busy("mask_rcnn_tiny", **SOFT), tmp_path / "model.xml")
    with pytest.raises(GCNetError, match="is a classifier"):
        export(create_model("resnet_tiny"), tmp_path / "model.onnx", with_resize=True)
    for words, reason in {
        ("--to", "torch", "--out", "a.onnx"): "end in .pt2",
        ("--size", "12"): "not 12",
    }.items():
        assert main(["export", "mask_rcnn_tiny", *words]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert reason in said
