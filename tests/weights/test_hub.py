"""The hub's layout on disk, and what its absence says. Nothing here leaves this machine."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

import gcnet
from gcnet.context_spec import ContextSpec
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.weights.create import create_model
from gcnet.weights.hub import download_model
from gcnet.weights.load import with_context


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    detector = create_model("mask_rcnn_tiny_gc4", class_names=["cat", "größe", "a, b"])
    detector.provenance = {
        "file": "old.pth",
        "epoch": 12,
        "told_by": {"style": "name", "image_size": "option"},
    }
    return detector


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    classifier = create_model("resnet_tiny_gc4", class_names=["cat", "dog"])
    assert isinstance(classifier, Classifier)
    classifier.provenance = {"epoch": 3}
    return classifier


def test_there_and_back_to_the_bit(detector: Detector, tmp_path: Path) -> None:
    detector.save_pretrained(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    expected = detector.predict_images(picture, score_threshold=0.0)[0]
    for loaded in (Detector.from_pretrained(folder), gcnet.load_model(folder / "model.safetensors")):
        assert (loaded.spec, loaded.provenance) == (detector.spec, detector.provenance)
        assert not loaded.training
        found = loaded.predict_images(picture, score_threshold=0.0)[0]
        assert len(found) > 10
        assert torch.equal(found.boxes, expected.boxes)
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.mask_probs, expected.mask_probs)


def test_a_classifier_there_and_back(classifier: Classifier, tmp_path: Path) -> None:
    classifier.save_pretrained(tmp_path)
    loaded = Classifier.from_pretrained(tmp_path)
    assert (loaded.spec, loaded.provenance, loaded.training) == (classifier.spec, {"epoch": 3}, False)
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert {"gcnet", "resnet"} <= set(card.data.tags or [])
    assert (
        "Image classifier on a ResNet with global context blocks (arXiv 1904.11492) of 2 classes" in card.text
    )
    assert "gcnet.Classifier.from_pretrained(" in card.text
    assert "the middle 192 x 192" in card.text


def test_the_wrong_kind(detector: Detector, classifier: Classifier, tmp_path: Path) -> None:
    classifier.save_pretrained(tmp_path / "c")
    detector.save_pretrained(tmp_path / "d")
    with pytest.raises(gcnet.GCNetError, match=r"is a classifier .*: use gcnet\.Classifier\.from_pretrained"):
        Detector.from_pretrained(tmp_path / "c")
    with pytest.raises(gcnet.GCNetError, match=r"is a detector .*: use gcnet\.Detector\.from_pretrained"):
        Classifier.from_pretrained(tmp_path / "d")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("faster_rcnn_tiny", "Faster R-CNN"),
        ("cascade_rcnn_tiny_gc4", "Cascade R-CNN with global context blocks (arXiv 1904.11492)"),
    ],
)
def test_the_card_of_a_model_without_masks(name: str, kind: str, tmp_path: Path) -> None:
    create_model(name, num_classes=2).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert f"{kind} of 2 classes: class 0, class 1." in card.text
    assert card.data.pipeline_tag == "object-detection"
    assert "found.boxes, found.scores, found.labels  # pixels" in card.text
    assert "mask" not in card.text


def test_the_card_names_other_blocks(detector: Detector, tmp_path: Path) -> None:
    with_context(with_context(detector, None), ContextSpec(block="nl")).save_pretrained(tmp_path)
    assert "Mask R-CNN with context blocks (nl) of 3 classes" in (tmp_path / "README.md").read_text()


def test_config_and_card_say_what_it_is(detector: Detector, tmp_path: Path) -> None:
    detector.save_pretrained(tmp_path, card={"license": "mit"})
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["spec"]["class_names"] == ["cat", "größe", "a, b"]
    assert config["preprocessing"]["normalise"]["mean"] == [123.675, 116.28, 103.53]
    assert config["provenance"]["file"] == "old.pth"
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "gcnet")
    assert "- told_by: style name, image size option\n" in card.text
    assert {"gcnet", "instance-segmentation"} <= set(card.data.tags or [])
    assert card.data.pipeline_tag == "image-segmentation"
    assert "3 classes: cat, größe, a, b." in card.text
    assert "- epoch: 12" in card.text

    (tmp_path / "README.md").write_text("mine")
    detector.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("someone/no-such-model", "there is no folder someone/no-such-model either"),
        ("no/such/folder", "there is no folder no/such/folder"),
        ("/no/such/folder", "no name of a repository"),
    ],
)
def test_what_is_not_there_offline(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(gcnet.GCNetError, match=expected) as raised:
        Detector.from_pretrained(name, cache_dir=tmp_path)
    assert "\n" not in str(raised.value)


def test_a_name_that_is_neither_a_folder_nor_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(kind: type[Exception], *_: object, **__: object) -> None:
        raise kind.__new__(kind)

    for kind, words in (
        (RepositoryNotFoundError, "there is no run/mien: no such folder, and no repository"),
        (HfHubHTTPError, "hub does not give or take run/mien: HfHubHTTPError"),  # it may say nothing
    ):
        monkeypatch.setattr("gcnet.weights.hub.hf_hub_download", partial(missing, kind))
        with pytest.raises(gcnet.GCNetError, match=words):
            download_model("run/mien")


def test_pushing_offline(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(gcnet.GCNetError, match=r"HF_HUB_OFFLINE is set\); save_pretrained"):
        detector.push_to_hub("someone/model", token="none")


def test_folders_that_hold_something_else(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(gcnet.GCNetError, match=r"no model file .*model\.safetensors"):
        Detector.from_pretrained(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(gcnet.GCNetError, match="cannot write in"):
        detector.save_pretrained(tmp_path / "file" / "folder")
