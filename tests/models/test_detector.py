"""Pictures in, detections out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gcnet.context import record
from gcnet.errors import GCNetError
from gcnet.models.detector import Detector, Shapes
from gcnet.types import Batch, Detections
from gcnet.weights.catalog import find
from gcnet.weights.files import save_model
from gcnet.weights.load import load_model


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(replace(find("mask_rcnn_tiny_gc4").spec, class_names=("a", "b", "c"))).eval()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def same(a: Detections, b: Detections) -> bool:
    parts = ("boxes", "scores", "labels", "mask_probs")
    return a.image_size == b.image_size and all(torch.equal(getattr(a, p), getattr(b, p)) for p in parts)


def test_path_pil_and_array_give_the_same(detector: Detector, picture: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    Image.fromarray(picture).save(file)
    kinds = [picture, file, str(file), Image.fromarray(picture)]
    single = [detector.predict_images(kind, score_threshold=0.0) for kind in kinds]
    assert all(len(found) == 1 for found in single)
    together = detector.predict_images(kinds, score_threshold=0.0)
    first = single[0][0]
    assert len(first) > 0
    assert first.image_size == (90, 120)
    assert all(same(found, first) for found in [*(s[0] for s in single), *together])


def test_pictures_of_different_sizes(detector: Detector, picture: np.ndarray) -> None:
    found = detector.predict_images((picture, picture[:33, :111]), score_threshold=0.0)
    assert [f.image_size for f in found] == [(90, 120), (33, 111)]
    assert detector.predict_images([]) == []


def test_score_threshold(detector: Detector, picture: np.ndarray) -> None:
    everything = detector.predict_images(picture, score_threshold=0.0)[0]
    middle = everything.scores.median().item()
    above = detector.predict_images(picture, score_threshold=middle)[0]
    assert 0 < len(above) < len(everything)
    assert above.scores.min() > middle
    nothing = detector.predict_images(picture, score_threshold=1.0)[0]
    assert (len(nothing), nothing.rles(), nothing.masks.shape) == (0, [], (0, 90, 120))
    for wrong in (float("nan"), 1.5, -1):
        with pytest.raises(GCNetError, match=rf"score threshold {wrong} is not in \[0, 1\]"):
            detector.predict_images(picture, score_threshold=wrong)


@pytest.mark.parametrize(
    "image",
    [
        np.full((20, 30, 3), 2.0, np.float32),
        np.zeros((3, 20, 30), np.uint8),
        np.zeros((0, 30, 3), np.uint8),
        42,
        "no/such/picture.jpg",
    ],
    ids=["float beyond 1", "channels first", "empty", "a number", "no file"],
)
def test_what_is_not_a_picture_is_refused(detector: Detector, image: object) -> None:
    with pytest.raises(GCNetError):
        detector.predict_images(image)
    with pytest.raises(GCNetError):
        detector.predict_images([image])


def test_a_gray_array_is_the_picture_with_three_equal_channels(detector: Detector) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    found, expected = (
        detector.predict_images(image, score_threshold=0.0)[0]
        for image in (gray, np.stack([gray] * 3, axis=2))
    )
    assert len(found) > 0
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


def test_training_mode_is_restored(detector: Detector, picture: np.ndarray) -> None:
    detector.train()
    try:
        first = detector.predict_images(picture, score_threshold=0.0)[0]
        assert detector.training
        with pytest.raises(GCNetError):
            detector.predict_images("no/such/picture.jpg")
        assert detector.training
    finally:
        detector.eval()
    assert same(first, detector.predict_images(picture, score_threshold=0.0)[0])
    assert not detector.training


def test_normalising_leaves_padding_zero(detector: Detector) -> None:
    images = torch.full((2, 3, 64, 96), 200, dtype=torch.uint8)
    batch = Batch(images, [(50, 96), (64, 70)], [(50, 96), (64, 70)], [0, 1])
    normalised = detector.normalise(batch)
    expected = (200 - torch.tensor(detector.spec.image_mean)) / torch.tensor(detector.spec.image_std)
    torch.testing.assert_close(normalised[0, :, 49, 95], expected)
    torch.testing.assert_close(normalised[1, :, 63, 69], expected)
    assert not normalised[0, :, 50:].any()
    assert not normalised[1, :, :, 70:].any()
    assert (images == 200).all()


def test_a_batch_gives_what_its_pictures_give_alone(detector: Detector) -> None:
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    size = [(96, 128), (96, 128)]
    together = detector.predict(Batch(images, size, size, [0, 1]), score_threshold=0.0)
    for index, found in enumerate(together):
        alone = detector.predict(Batch(images[index, None], size[:1], size[:1], [0]), score_threshold=0.0)[0]
        near = (alone.scores - found.scores).abs() < 1e-4
        assert near.float().mean() > 0.95
        torch.testing.assert_close(alone.boxes[:5], found.boxes[:5], atol=0.05, rtol=1e-3)


def test_forward_is_prediction_in_a_fixed_number_of_places(detector: Detector) -> None:
    """Of images of any size and type of number; places that nothing was found for come last."""
    images = torch.randint(0, 256, (2, 3, 70, 100), dtype=torch.uint8)
    with torch.no_grad():
        everything = detector(images, 0.0)
        threshold = float(everything.scores.median())
        some, same = detector(images, threshold), detector(images.float(), threshold)
    assert everything.boxes.shape == some.boxes.shape == (2, detector.spec.roi.detections, 4)
    assert 0 < some.valid.sum() < some.valid.numel()
    assert not some.boxes[~some.valid].any()
    assert all(torch.equal(a, b) for a, b in zip(some, same, strict=True))
    for image, valid in enumerate(some.valid):
        alone = Batch(F.pad(images[image, None], (0, 28, 0, 26)), [(70, 100)], [(70, 100)], [0])
        found = detector.predict(alone, score_threshold=threshold)[0]
        assert (valid.int().diff() <= 0).all()
        assert torch.equal(some.labels[image][:5], found.labels[:5])
        torch.testing.assert_close(some.boxes[image][:5], found.boxes[:5], atol=1e-3, rtol=1e-4)


def test_no_proposals_at_all(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:

    def propose(features: list[Tensor], sizes: list[tuple[int, int]], static: bool) -> list[Tensor]:
        return [torch.zeros(0, 4) for _ in sizes]

    monkeypatch.setattr(detector.rpn, "predict", propose)
    found = detector.predict_images(np.zeros((40, 40, 3), np.uint8), score_threshold=0.0)[0]
    assert (len(found), found.masks.shape) == (0, (0, 40, 40))


def test_attention_of_a_prediction(detector: Detector, picture: np.ndarray) -> None:
    with record(detector) as maps:
        detector.predict_images(picture)
    assert list(maps) == [f"backbone.layer{stage}.0.context.pool" for stage in (2, 3, 4)]
    assert all(abs(found.sum().item() - 1) < 1e-4 for found in maps.values())


def test_predictions_carry_no_graph(detector: Detector, picture: np.ndarray) -> None:
    found = detector.predict_images(picture, score_threshold=0.0)[0]
    assert not found.boxes.requires_grad
    assert not found.mask_probs.requires_grad


@pytest.mark.slow
def test_export() -> None:
    """Without the checks of arguments that tests run under."""
    script = Path(__file__).with_name("check_export.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shapes", ["dynamic", "static"])
def test_more_or_fewer_detections_of_an_image(shapes: Shapes, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Detector(replace(find("faster_rcnn_tiny").spec, class_names=("a", "b"))).eval()
    model.shapes = shapes
    image = torch.randint(0, 256, (96, 128, 3), dtype=torch.uint8).numpy()
    counts = []
    for most in (7, 150, 1200):
        model.limit_detections(most)
        (found,) = model.predict_images([image], score_threshold=0.0)
        counts.append(len(found))
        if most == 150:
            save_model(model, tmp_path / "kept.safetensors")
    assert counts[0] == 7
    assert counts[1] == 150
    assert counts[2] > 150
    assert model.spec.rpn.proposals_test == 1200
    assert model.spec.rpn.proposals_train == find("faster_rcnn_tiny").spec.rpn.proposals_train
    kept = load_model(tmp_path / "kept.safetensors")
    assert len(kept.predict_images([image], score_threshold=0.0)[0]) == 150
    for none in (0, 1_000_000):  # of more than its file may say, a model could not be read again
        with pytest.raises(GCNetError, match=f"max_detections is {none}; give 1 to 100000"):
            model.limit_detections(none)


def test_a_model_that_no_file_can_hold_is_refused_before_it_is_trained() -> None:
    spec = find("faster_rcnn_tiny").spec
    with pytest.raises(GCNetError, match=r"no file can hold this model: spec\.class_names\[0\] is 'aaa"):
        Detector(replace(spec, class_names=("a" * 1001,)))
    with pytest.raises(GCNetError, match=r"class_names has 100001 entries, more than 100000"):
        Detector(replace(spec, class_names=("a",) * 100_001))
    with pytest.raises(GCNetError, match="a model has one class or more"):
        Detector(replace(spec, class_names=()))
