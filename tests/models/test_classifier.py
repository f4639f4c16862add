"""The classifier is torchvision's ResNet where it has no blocks, and starts as it where it has some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet50
from torchvision.transforms.v2 import CenterCrop, Resize

from gcnet.errors import GCNetError
from gcnet.models.classifier import Classifier
from gcnet.models.spec import ClassifierSpec, ContextSpec, ResNetSpec
from gcnet.ops.images import middle_square
from gcnet.types import Batch, ClassTargets

SMALL = ResNetSpec((1, 1, 1, 1), stem_channels=16, base_channels=16, norm="batch", frozen_stages=0)
SPEC = ClassifierSpec("small", ("cat", "dog", "owl"), SMALL, image_size=(40, 32))


def small(seed: int = 0, context: ContextSpec | None = None) -> Classifier:
    torch.manual_seed(seed)
    spec = replace(SPEC, backbone=replace(SMALL, context=context, zero_init_residual=False))
    return Classifier(spec).eval()


def pictures(count: int, size: tuple[int, int] = (50, 70)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def batch_of(images: torch.Tensor) -> Batch:
    sizes = [(images.shape[2], images.shape[3])] * len(images)
    return Batch(images, sizes, sizes, list(range(len(images))))


@pytest.mark.parametrize("context", [None, ContextSpec(), ContextSpec(ratio=1 / 4)])
def test_equal_weights_give_torchvisions_logits(context: ContextSpec | None) -> None:
    """Random weights and statistics, copied over; blocks of a fresh network add nothing."""
    torch.manual_seed(0)
    theirs = resnet50(num_classes=7).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.3, 0.6)
    backbone = ResNetSpec(norm="batch", frozen_stages=0, context=context)
    ours = Classifier(ClassifierSpec("r50", tuple("abcdefg"), backbone)).eval()
    state = {n if n.startswith("fc.") else f"backbone.{n}": t for n, t in theirs.state_dict().items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all(".context." in name for name in missing)
    assert bool(missing) == (context is not None)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = theirs((images.float() - ours.mean) / ours.std)
        torch.testing.assert_close(ours.logits(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.predict(batch_of(images)), expected.softmax(1))


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (301, 299), (100, 100), (64, 1000)])
def test_the_square_is_torchvisions(size: tuple[int, int]) -> None:
    """Same place and size; its antialiased resize differs from ours by interpolation alone."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.stack([127 + 60 * np.sin(x / 9) + 60 * np.cos(y / length) for length in (7, 8, 11)], 2)
    image = waves.astype(np.uint8)
    ours = middle_square(image, (256, 224)).astype(int)
    theirs = np.asarray(CenterCrop(224)(Resize(256)(Image.fromarray(image)))).astype(int)
    assert ours.shape == theirs.shape == (224, 224, 3)
    assert np.abs(ours - theirs).mean() < 1.0


def test_the_loss_is_the_cross_entropy_of_shares() -> None:
    classifier = small()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    shares = torch.tensor([[1.0, 0, 0], [0.9, 0.05, 0.05], [0, 0.5, 0.5], [0, 0, 1]])
    losses = classifier.losses(batch_of(images), ClassTargets(shares))
    expected = -(shares * classifier.logits(images).log_softmax(1)).sum(1).mean()
    assert list(losses) == ["loss_cls"]
    torch.testing.assert_close(losses["loss_cls"], expected)
    losses["loss_cls"].backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())


def test_pictures_as_they_come(tmp_path: Path) -> None:
    classifier = small()
    array = pictures(1)[0]
    Image.fromarray(array).save(tmp_path / "x.png")
    classifier.train()
    found = classifier.predict_images([array, Image.fromarray(array), tmp_path / "x.png"], top=2)
    assert classifier.training
    assert [len(one) for one in found] == [2, 2, 2]
    assert all(torch.equal(found[0].probabilities, other.probabilities) for other in found[1:])
    everything = classifier.predict_images(array)[0]
    assert len(everything) == 3  # not five
    assert everything.names == tuple(SPEC.class_names[label] for label in everything.labels.tolist())
    assert everything.probabilities.tolist() == sorted(everything.probabilities.tolist(), reverse=True)
    assert float(everything.probabilities.sum()) == pytest.approx(1, abs=1e-6)
    square = torch.from_numpy(middle_square(array, SPEC.image_size)).permute(2, 0, 1)[None]
    expected = classifier.eval().predict(batch_of(square))[0]
    torch.testing.assert_close(everything.probabilities, expected[everything.labels])


@pytest.mark.parametrize(("images", "top"), [("nowhere.png", 1), (np.zeros((4, 4, 5), np.uint8), 1), ([], 0)])
def test_mistakes(images: Any, top: int) -> None:
    with pytest.raises(GCNetError):
        small().predict_images(images, top=top)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_classifier_can_be_cast(dtype: torch.dtype) -> None:
    classifier = small()
    exact = classifier.predict_images(pictures(2))
    for ours, theirs in zip(classifier.to(dtype).predict_images(pictures(2)), exact, strict=True):
        torch.testing.assert_close(ours.probabilities, theirs.probabilities, atol=0.02, rtol=0)


def test_specs_survive_json() -> None:
    import json
    from dataclasses import asdict

    spec = replace(SPEC, backbone=replace(SMALL, context=ContextSpec(ratio=1 / 4)))
    assert ClassifierSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec
