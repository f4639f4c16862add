"""Test-time augmentation: images in several sizes and mirrored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import gcnet
from gcnet.commands.predict import _parser
from gcnet.errors import GCNetError
from gcnet.lab.context_shapes import CLASS_NAMES, write_context_shapes
from gcnet.models.augmented import Augmented, _merge
from gcnet.models.spec import CascadeSpec, RoISpec
from gcnet.models.tiles import Tiles
from gcnet.models.views import Views
from gcnet.types import Detections
from lively import lively_detector

KINDS: dict[str, dict[str, Any]] = {
    "masks": {},
    "boxes": {"roi": RoISpec(masks=False)},
    "cascade": {"cascade": CascadeSpec()},
    "inclusive": {"coordinates": "inclusive"},
    "torchvision": {"coordinates": "torchvision", "resize": "torchvision"},
}
LEAST = 0.3


def finder(kind: str = "masks", **changes: Any) -> Any:
    """A detector that finds many things, with masks that have a left and a right."""
    detector = lively_detector(None, **KINDS[kind], **changes).eval()
    detector.limit_detections(200)  # it finds fewer: no limit parts two that are as good
    torch.manual_seed(1)
    for name, parameter in detector.roi_heads.named_parameters():
        if name.endswith("weight"):
            parameter.data.normal_(std=0.03)
    return detector


@pytest.fixture(scope="module", params=KINDS)
def detector(request):
    return finder(request.param)


def looked(detector: Any, views: Views, image: np.ndarray, batch_size: int = 1) -> Detections:
    augmented = Augmented(detector, flip=views.flip, scales=views.scales, batch_size=batch_size)
    return augmented.predict(augmented.prepare(image), score_threshold=LEAST)[0]


def mirrored(found: Detections) -> Detections:
    x1, y1, x2, y2 = found.boxes.unbind(1)
    width = found.image_size[1]
    probs = None if found.mask_probs is None else found.mask_probs.flip(-1)
    return replace(
        found, boxes=torch.stack([width - x2, y1, width - x1, y2], 1), mask_probs=probs, frames=None
    )


def assert_same(ours: Detections, theirs: Detections, pixels: float = 0.02) -> None:
    """The same detections in any order, as scores can be equal."""
    assert len(ours) == len(theirs) > 3
    apart = (ours.boxes[:, None] - theirs.boxes).abs().amax(-1) + (ours.scores[:, None] - theirs.scores).abs()
    apart = apart + 1000 * (ours.labels[:, None] != theirs.labels)
    nearest = apart.argmin(1)
    assert sorted(nearest.tolist()) == list(range(len(ours)))
    torch.testing.assert_close(ours.boxes, theirs.boxes[nearest], atol=pixels, rtol=0)
    torch.testing.assert_close(ours.scores, theirs.scores[nearest], atol=1e-4, rtol=0)
    if ours.mask_probs is not None:
        assert theirs.mask_probs is not None
        torch.testing.assert_close(ours.mask_probs, theirs.mask_probs[nearest], atol=1e-3, rtol=0)


def test_one_view_gives_what_the_detector_finds(detector, image):
    # Through the same way as many views: into the image, merged, and back for the masks.
    (plain,) = detector.predict_images(image[:90, :], score_threshold=LEAST)
    ours = looked(detector, Views(), image[:90, :])
    assert_same(ours, plain)
    torch.testing.assert_close(ours.mask_frames, plain.mask_frames, atol=1.01, rtol=0)


def test_a_mirror_image_gives_the_mirror_image_of_what_is_found(detector, image):
    views = Views(flip=True, scales=(1.0, 1.5))
    assert_same(looked(detector, views, image[:, ::-1]), mirrored(looked(detector, views, image)))


def test_of_a_symmetric_image_what_is_found_is_symmetric(detector, image):
    symmetric = np.concatenate([image[:, :64], image[:, 63::-1]], 1)
    found = looked(detector, Views(flip=True), symmetric)
    assert_same(found, mirrored(found))


def test_batches_and_static_shapes_find_the_same(image):
    detector, views = finder(), Views(flip=True, scales=(0.75, 1.0))
    one = looked(detector, views, image)
    assert_same(looked(detector, views, image, batch_size=2), one)
    detector.shapes = "static"
    assert_same(looked(detector, views, image), one)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_nothing_found_is_nothing(image, batch_size):
    augmented = Augmented(finder(), flip=True, scales=(1.0, 0.1), batch_size=batch_size)
    (found,) = augmented.predict(augmented.prepare(image), score_threshold=1.0)
    assert len(found) == 0
    assert found.mask_probs is not None
    with pytest.raises(GCNetError, match="score threshold nan is not in"):
        augmented.predict(augmented.prepare(image), score_threshold=float("nan"))


def test_boxes_of_an_object_become_their_mean_and_other_objects_stay():
    def seen(boxes, scores, labels):
        return Detections(
            torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), None, image_size=(100, 100)
        )

    first = seen([[10.0, 10.0, 30.0, 30.0], [60.0, 60.0, 60.0, 60.0]], [0.6, 0.5], [0, 0])
    second = seen([[12.0, 10.0, 32.0, 30.0], [11.0, 11.0, 31.0, 31.0]], [0.2, 0.7], [0, 1])
    merged = _merge([first, second], 0.5)
    assert merged.labels.tolist() == [1, 0, 0]
    torch.testing.assert_close(merged.scores, torch.tensor([0.7, 0.6, 0.5]))
    torch.testing.assert_close(merged.boxes[1], torch.tensor([10.5, 10.0, 30.5, 30.0]))  # 3 : 1
    assert merged.boxes[2].tolist() == [60.0, 60.0, 60.0, 60.0]  # without area


@pytest.mark.parametrize("scales", [(), (1.0, 1.0), (0.0,), (11.0,), (float("nan"),), tuple(range(1, 12))])
def test_scales_that_make_no_sense_are_refused(scales):
    with pytest.raises(GCNetError, match=r"scales|a scale of"):
        Views(scales=scales)


@pytest.mark.parametrize("word", ["", "1;2", "one", "1,,2"])
def test_words_that_are_no_scales_are_refused(word):
    with pytest.raises(GCNetError, match=r"--scales: give numbers such as 0.8,1,1.25"):
        _parser().parse(["m", "a.png", "--scales", word])


def test_predict_and_evaluate_take_flip_and_scales(tmp_path):
    data = write_context_shapes(tmp_path / "data", train=1, valid=2, size=96)
    model = finder("boxes", class_names=CLASS_NAMES)
    file = sorted((data / "valid").glob("*.png"))[0]
    words: dict[str, Any] = {"flip": True, "scales": (1, 0.5), "score_threshold": LEAST, "progress": False}
    alone = looked(model, Views(flip=True, scales=(1.0, 0.5)), cv2.imread(str(file))[..., ::-1])
    (held,) = gcnet.predict(model, file, **words).found
    assert len(held)
    assert torch.equal(held.boxes, alone.boxes)
    (tiled,) = gcnet.predict(model, file, tile=64, **words).found
    assert tiled.image_size == (96, 96)
    _, results = gcnet.evaluate(model, data, out=tmp_path / "e", workers=0, **words)
    assert results
    with pytest.raises(GCNetError, match="flip, scales differs"):
        gcnet.evaluate(model, data, score_threshold=LEAST, out=tmp_path / "e", progress=False)


def test_one_plain_view_is_plain_prediction_to_the_bit(tmp_path, image):
    cv2.imwrite(str(tmp_path / "a.png"), image)
    detector = finder()
    (plain,) = gcnet.predict(detector, tmp_path / "a.png", score_threshold=LEAST).found
    (ours,) = gcnet.predict(detector, tmp_path / "a.png", score_threshold=LEAST, flip=False, scales=[1]).found
    for name in ("boxes", "scores", "labels", "mask_probs"):
        assert torch.equal(getattr(ours, name), getattr(plain, name))
    assert Views().through(detector, 4) is detector
    assert Views(Tiles(64)).as_dict() == {"tile": 64, "overlap": 0.2}


def test_a_classifier_and_an_export_take_none(tmp_path, image):
    cv2.imwrite(str(tmp_path / "a.png"), image)
    classifier = gcnet.create_model("resnet_tiny_gc4", weights=None)
    with pytest.raises(GCNetError, match="flip and scales are for detectors"):
        gcnet.predict(classifier, tmp_path / "a.png", flip=True)
    with pytest.raises(GCNetError, match="give --flip and --scales the model"):
        gcnet.predict(tmp_path / "m.onnx", tmp_path / "a.png", scales=(1, 2))


@pytest.fixture(scope="module")
def image():
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)
