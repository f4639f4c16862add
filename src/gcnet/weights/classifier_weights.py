"""Weights into classifiers, and from classifiers into the backbones of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from gcnet.errors import GCNetError
from gcnet.models.classifier import Classifier
from gcnet.weights.checkpoint_files import read_checkpoint
from gcnet.weights.class_rows import match_classes
from gcnet.weights.classifiers import ClassifierRow, unnamed
from gcnet.weights.files import SUFFIX, fill_weights, load_model
from gcnet.weights.imagenet import imagenet_file, load_imagenet


def create_classifier(
    row: ClassifierRow,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mirrors: Sequence[str] = (),
) -> Classifier:
    """The classifier of `row`, in eval mode; see `gcnet.create_model`.

    `weights` are None or what `load_source` takes. Context blocks that they do not have are new, and change
    nothing until they are trained. Rows of the last layer go to the classes of the same name; other classes
    start anew.

    Raises:
        GCNetError: the weights cannot be had, are damaged, or are of another model.
    """
    source = None if weights is None else load_source(row, weights, mirrors=mirrors)
    if class_names is None:
        known = source.spec.class_names if source else row.spec.class_names
        class_names = known if num_classes in (None, len(known)) else unnamed(num_classes)
    if source is None:
        return _fresh(row, class_names)
    return with_row(source, row, class_names, label=str(weights))


def load_source(row: ClassifierRow, weights: str | Path, *, mirrors: Sequence[str] = ()) -> Classifier:
    """The classifier that `weights` are of, with its own classes.

    They are "imagenet", our .safetensors of a classifier with the backbone of `row`, or a .pth of
    torchvision's ResNet. Raises GCNetError as `create_classifier` does.
    """
    if weights == "coco":
        raise GCNetError(f"{row.name} is a classifier and has no COCO weights; try weights imagenet")
    if weights != "imagenet" and Path(weights).suffix == SUFFIX:
        source = load_model(weights)
        if not isinstance(source, Classifier):
            raise GCNetError(f"{weights} is a detector ({source.spec.name}); {row.name} is a classifier")
        return source
    return _from_torchvision(row, weights, mirrors)


def with_row(source: Classifier, row: ClassifierRow, class_names: Sequence[str], *, label: str) -> Classifier:
    """The weights of `source` in the model of `row` with other classes; `label` says what `source` is."""
    if source.spec == replace(row.spec, class_names=tuple(class_names)):
        return source
    classifier = _fresh(row, class_names)
    fill_backbone(classifier.backbone, source, label=label)
    _carry_rows(source, classifier)
    classifier.provenance = dict(source.provenance)
    return classifier


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


def _fresh(row: ClassifierRow, names: Sequence[str]) -> Classifier:
    return Classifier(replace(row.spec, class_names=tuple(names))).eval()


def _from_torchvision(row: ClassifierRow, weights: str | Path, mirrors: Sequence[str]) -> Classifier:
    """The model of `row` with torchvision's weights, and ImageNet's class names if they are 1000."""
    path = imagenet_file(row.spec.backbone, mirrors=mirrors) if weights == "imagenet" else Path(weights)
    tensors = read_checkpoint(path).tensors
    fc = {name.removeprefix("fc."): tensor for name, tensor in tensors.items() if name.startswith("fc.")}
    if "weight" not in fc or fc["weight"].dim() != 2:
        raise GCNetError(f"{path} has no fc layer: it is no classifier of torchvision's making")
    classifier = _fresh(row, _names(len(fc["weight"])))
    load_imagenet(classifier.backbone, row.spec.backbone, path)
    fill_weights(classifier.fc, fc, source=str(path))
    classifier.provenance = {"file": path.name}
    return classifier


def _names(count: int) -> Sequence[str]:
    if count != 1000:
        return unnamed(count)
    from torchvision.models import ResNet50_Weights

    return ResNet50_Weights.IMAGENET1K_V1.meta["categories"]


def _carry_rows(source: Classifier, target: Classifier) -> None:
    """Rows of the last layer to the classes of the same name."""
    weight, bias = target.fc.weight.data, target.fc.bias.data
    for label, row in enumerate(match_classes(source.spec.class_names, target.spec.class_names)):
        if row is not None:
            weight[label], bias[label] = source.fc.weight.data[row], source.fc.bias.data[row]
