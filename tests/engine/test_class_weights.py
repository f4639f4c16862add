"""How much each class counts: exactly, and not at all where all count once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gcnet.data.dataset import DataSet, ImageRecord, Instance, LabelledImage
from gcnet.engine.class_weights import by_frequency, weigh_classes
from gcnet.errors import GCNetError
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.heads import BoxHead
from gcnet.models.spec import CascadeSpec, RoISpec
from gcnet.ops.matching import MISSING
from gcnet.recipe import Recipe
from gcnet.types import Batch, ClassTargets
from gcnet.weights.catalog import find, find_detector

NAMES = ("crack", "rust", "dent")
SPEC = replace(find_detector("mask_rcnn_tiny").spec, class_names=NAMES)
LABELS = torch.tensor([0, 1, 2, 3, 3, MISSING, 0])  # 3 is background


def data_with(labels: Sequence[int]) -> DataSet:
    outline = [np.array([0.0, 0, 9, 0, 9, 9])]
    objects = tuple(Instance(1, label, (0.0, 0.0, 9.0, 9.0), outline, 40.5, crowd=False) for label in labels)
    return DataSet(Path("none.json"), [ImageRecord(1, Path("1.jpg"), 64, 64, objects)], NAMES, (1, 2, 3))


def gradient(weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The classification loss of a box head on random logits, and its gradient to them."""
    torch.manual_seed(0)
    head = BoxHead(4, 3, RoISpec(box_channels=8))
    head.class_weights = weights
    logits = torch.randn(len(LABELS), 4, requires_grad=True)
    zeros = torch.zeros(len(LABELS), 3, 4), LABELS, torch.zeros(len(LABELS), 4)
    loss = head.losses(logits, *zeros)["loss_cls"]
    loss.backward()
    assert logits.grad is not None
    return loss.detach(), logits.grad


def test_the_gradient_of_a_region_is_that_of_its_class_times_its_weight() -> None:
    weights = torch.tensor([3.0, 1.0, 0.5, 1.0])
    _, plain = gradient(None)
    _, weighted = gradient(weights)
    factors = torch.tensor([3.0, 1.0, 0.5, 1.0, 1.0, 0.0, 3.0])
    torch.testing.assert_close(weighted, plain * factors[:, None], rtol=1e-6, atol=0)


def test_ones_are_to_the_bit_no_weights() -> None:
    for one, other in zip(gradient(None), gradient(torch.ones(4)), strict=True):
        assert one.equal(other)


def test_by_frequency() -> None:
    weights = by_frequency([100, 25, 0, 1])
    torch.testing.assert_close(weights, torch.tensor([0.1, 0.2, 1.3 / 3, 1.0]) / (1.3 / 3))
    assert (by_frequency([0, 0]) == 1).all()
    assert (by_frequency([7, 7, 7]) == 1).all()


@pytest.mark.parametrize("cascade", [None, CascadeSpec()])
def test_a_detector_is_given_those_of_its_data(cascade: CascadeSpec | None) -> None:
    detector = Detector(replace(SPEC, cascade=cascade))
    train_set = data_with([0, 0, 0, 0, 1])
    line = weigh_classes(detector, train_set, Recipe(class_weights="auto"), masks=True)
    assert line == "class weights: crack 0.667, rust 1.33, dent 1"
    for head in detector.roi_heads.box_stages:
        assert head.class_weights is not None
        torch.testing.assert_close(head.class_weights, torch.tensor([2 / 3, 4 / 3, 1, 1]))
    assert not [name for name in detector.state_dict() if "class_weights" in name]
    assert weigh_classes(detector, train_set, Recipe(), masks=True) == ""
    assert all(head.class_weights is None for head in detector.roi_heads.box_stages)
    recipe = Recipe(class_weights='{"dent": 3, "rust": 0.5}')
    assert (
        weigh_classes(detector, train_set, recipe, masks=True) == "class weights: crack 1, rust 0.5, dent 3"
    )
    recipe = Recipe(class_weights='{"dent": 1}')
    assert weigh_classes(detector, train_set, recipe, masks=True) == ""
    with pytest.raises(GCNetError, match=r"class_weights has no class 'crak'; .*crack"):
        weigh_classes(detector, train_set, Recipe(class_weights='{"crak": 3}'), masks=True)


def test_a_classifier_is_given_them_too() -> None:
    classifier = Classifier(replace(find("resnet_tiny").spec, class_names=NAMES)).eval()
    images = [LabelledImage(Path(f"{n}.jpg"), label) for n, label in enumerate([0, 0, 0, 0, 1])]
    train_set = DataSet(Path("photos"), images, NAMES, (1, 2, 3))
    shares = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    batch = Batch(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), [(32, 32)] * 2, [(32, 32)] * 2, [1, 2])
    plain: Any = [
        classifier.losses(batch[one : one + 1], ClassTargets(shares[one : one + 1]))["loss_cls"]
        for one in (0, 1)
    ]
    assert weigh_classes(classifier, train_set, Recipe(class_weights="auto"), masks=False)
    both = classifier.losses(batch, ClassTargets(shares))["loss_cls"]
    torch.testing.assert_close(both, (plain[0] * 2 / 3 + plain[1] * 4 / 3) / 2)


@pytest.mark.parametrize(
    "text",
    ["crack", "[1]", '{"a": -1}', '{"a": 0}', '{"a": "x"}', '{"a": NaN}', '{"a": [1]}', "[" * 9999, "3"],
)
def test_what_are_no_weights(text: str) -> None:
    with pytest.raises(
        GCNetError, match=r"recipe: class_weights is .*; give auto, or positive numbers by name"
    ):
        Recipe(class_weights=text)
    with pytest.raises(GCNetError, match="class_weights"):
        Recipe(class_weights='{"a": 1' + "0" * 400 + "}")
