"""Weights into classifiers, and from classifiers into the backbones of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from gcnet.errors import GCNetError
from gcnet.models.build import build_classifier
from gcnet.models.class_rows import match_classes
from gcnet.models.classifier import Classifier
from gcnet.models.weights import SUFFIX, fill_weights, load_model
from gcnet.zoo.checkpoint_files import read_checkpoint
from gcnet.zoo.classifiers import ClassifierRow
from gcnet.zoo.imagenet import imagenet_file, load_imagenet


def create_classifier(
    row: ClassifierRow,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mirrors: Sequence[str] = (),
) -> Classifier:
    """The classifier of `row`, in eval mode; see `gcnet.create_model`.

    `weights` are None, "imagenet", our .safetensors of a classifier with this backbone, or a .pth of
    torchvision's ResNet. Context blocks that they do not have are new, and change nothing until they are
    trained. Rows of the last layer go to the classes of the same name; other classes start anew.

    Raises:
        GCNetError: the weights cannot be had, are damaged, or are of another model.
    """
    if weights is None:
        return _fresh(row, class_names, num_classes, row.spec.class_names)
    if weights == "coco":
        raise GCNetError(f"{row.name} is a classifier and has no COCO weights; try weights imagenet")
    if weights != "imagenet" and Path(weights).suffix == SUFFIX:
        source = load_model(weights)
        if not isinstance(source, Classifier):
            raise GCNetError(f"{weights} is a detector ({source.spec.name}); {row.name} is a classifier")
    else:
        source = _from_torchvision(row, weights, mirrors)
    classifier = _fresh(row, class_names, num_classes, source.spec.class_names)
    if source.spec != classifier.spec:
        fill_backbone(classifier.backbone, source, label=str(weights))
        _carry_rows(source, classifier)
        classifier.provenance = dict(source.provenance)
        return classifier
    return source


def fill_backbone(backbone: nn.Module, source: Classifier, *, label: str) -> None:
    """Copies a classifier's backbone, context blocks included, into one that may have more.

    Blocks and deformable offsets that `source` does not have keep their initial weights.

    Raises:
        GCNetError: the backbones differ in more than that; `label` says what `source` is.
    """
    tensors, own = source.backbone.state_dict(), backbone.state_dict()
    has_blocks, wants_blocks = (any(".context." in name for name in names) for names in (tensors, own))
    if has_blocks and not wants_blocks:
        raise GCNetError(
            f"{label} is a {source.spec.name}, whose context blocks have no place in this model: "
            "take a model with such blocks, or weights without"
        )
    fresh = {
        name: tensor
        for name, tensor in own.items()
        if ".offset." in name or (".context." in name and not has_blocks)
    }
    fill_weights(backbone, fresh | tensors, source=label)


def _fresh(
    row: ClassifierRow, names: Sequence[str] | None, count: int | None, known: Sequence[str]
) -> Classifier:
    if names is None:
        names = known if count in (None, len(known)) else [f"class {index}" for index in range(count)]
    return build_classifier(replace(row.spec, class_names=tuple(names))).eval()


def _from_torchvision(row: ClassifierRow, weights: str | Path, mirrors: Sequence[str]) -> Classifier:
    """The model of `row` with torchvision's weights, and ImageNet's class names if they are 1000."""
    path = imagenet_file(row.spec.backbone, mirrors=mirrors) if weights == "imagenet" else Path(weights)
    tensors = read_checkpoint(path).tensors
    fc = {name.removeprefix("fc."): tensor for name, tensor in tensors.items() if name.startswith("fc.")}
    if "weight" not in fc or fc["weight"].dim() != 2:
        raise GCNetError(f"{path} has no fc layer: it is no classifier of torchvision's making")
    classifier = _fresh(row, _names(len(fc["weight"])), None, ())
    load_imagenet(classifier.backbone, row.spec.backbone, path)
    fill_weights(classifier.fc, fc, source=str(path))
    classifier.provenance = {"file": path.name}
    return classifier


def _names(count: int) -> Sequence[str]:
    if count != 1000:
        return [f"class {index}" for index in range(count)]
    from torchvision.models import ResNet50_Weights

    return ResNet50_Weights.IMAGENET1K_V1.meta["categories"]


def _carry_rows(source: Classifier, target: Classifier) -> None:
    """Rows of the last layer to the classes of the same name."""
    weight, bias = target.fc.weight.data, target.fc.bias.data
    for label, row in enumerate(match_classes(source.spec.class_names, target.spec.class_names)):
        if row is not None:
            weight[label], bias[label] = source.fc.weight.data[row], source.fc.bias.data[row]
