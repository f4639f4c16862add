"""A model by name, and its weights from wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from gcnet.errors import GCNetError
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.spec import ClassifierSpec
from gcnet.weights.cache import sha256
from gcnet.weights.catalog import ROWS, Row, find
from gcnet.weights.checkpoint_files import read_checkpoint
from gcnet.weights.class_rows import carry_over, match_classes
from gcnet.weights.classifier_weights import create_classifier, fill_backbone
from gcnet.weights.classifiers import ClassifierRow, unnamed
from gcnet.weights.download import published_weights
from gcnet.weights.files import (
    SUFFIX,
    fill_weights,
    load_detector,
    load_model,
    read_metadata,
    weights_to_come,
)
from gcnet.weights.imagenet import load_imagenet
from gcnet.weights.mmdet_keys import from_mmdet, is_version_1


def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mirrors: Sequence[str] = (),
) -> Detector | Classifier:
    """The model of a row, in eval mode on the CPU: a detector, or a classifier such as `resnet50_gc16`.

    Where the classes are not those of the weights, classes of the same name keep what was learnt of them and
    the others start anew (`gcnet.weights.class_rows`).

    Args:
        name: our name of the row, or mmdetection's (2.x or 3.x).
        weights: None for random ones, "coco" for the published ones, "imagenet" for a trained backbone, or a
            file: our .safetensors, or an mmdetection .pth, of this row; or a classifier's .safetensors, for
            the backbone. Of a classifier: see `gcnet.weights.classifier_weights.create_classifier`.
        num_classes: ignored if `class_names` are given; by default those of the weights, without any 80, of a
            classifier 1000.
        class_names: one name for each class, in the order of the labels; by default those of the weights,
            COCO's without any.
        mirrors: where else to look for what has to be fetched; see `gcnet.weights.download.fetch`.

    Raises:
        GCNetError: the name is unknown, weights cannot be fetched, or the file is missing, damaged or of
            another model.
    """
    row = find(name)
    options: dict[str, Any] = {"num_classes": num_classes, "class_names": class_names, "mirrors": mirrors}
    if isinstance(row, ClassifierRow):
        return create_classifier(row, weights=weights, **options)
    return create_detector(row, weights=weights, **options)


def create_detector(
    row: Row,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mirrors: Sequence[str] = (),
) -> Detector:
    """The detector of a row, as `create_model` describes it."""
    source = None
    if weights is not None and not is_backbone(weights):
        # Rows of new classes are random: as the seed says, after all numbers of the source.
        as_loaded = class_names is None and num_classes is None
        with weights_to_come() if as_loaded else nullcontext():
            source = load_weights(weights, row, mirrors=mirrors)
    known = source.spec.class_names if source else row.spec.class_names
    if class_names is None:
        class_names = known if num_classes in (None, len(known)) else unnamed(num_classes)
    if source:
        return with_classes(source, row, class_names, label=str(weights))
    spec = replace(row.spec, class_names=tuple(class_names))
    detector = Detector(spec)
    if weights is not None:
        _load_backbone(detector, weights, mirrors)
    return detector.eval()


def is_backbone(weights: str | Path) -> bool:
    """Whether these are weights for a backbone alone: "imagenet", or a file of a classifier of ours.

    Raises GCNetError if the file is missing or damaged.
    """
    if weights == "imagenet":
        return True
    return Path(weights).suffix == SUFFIX and isinstance(read_metadata(weights).spec, ClassifierSpec)


def _load_backbone(detector: Detector, weights: str | Path, mirrors: Sequence[str]) -> None:
    """Fills the backbone of `detector` with what `is_backbone`, context blocks too if it has some."""
    if weights == "imagenet":
        load_imagenet(detector.backbone, detector.spec.backbone, mirrors=mirrors)
        detector.provenance = {"backbone": "ImageNet"}
        return
    source = load_model(weights)
    assert isinstance(source, Classifier)
    fill_backbone(detector.backbone, source, label=str(weights))
    origin = {"file": Path(weights).name, "model": source.spec.name, **source.provenance}
    detector.provenance = {"backbone": origin}


def load_weights(weights: str | Path, row: Row, *, mirrors: Sequence[str] = ()) -> Detector:
    """The model that is in a file, or with "coco" the published one of `row`, with its own classes.

    Raises:
        GCNetError: the file is missing, damaged or of another model than `row`, or it cannot be fetched.
    """
    if weights == "coco":
        weights = published_weights(row, mirrors=mirrors)
    if Path(weights).suffix == SUFFIX:
        return load_detector(weights)
    checkpoint = read_checkpoint(weights)
    tensors = from_mmdet(checkpoint.tensors, list(Detector(row.spec).state_dict()))
    logits = [tensor for name, tensor in tensors.items() if name.startswith("roi_heads.") and ".cls." in name]
    count = len(logits[0]) - 1 if logits else row.spec.num_classes
    classes = checkpoint.class_names
    if classes is None or len(classes) != count:
        classes = row.spec.class_names if count == 80 else unnamed(count)
    coordinates = "inclusive" if is_version_1(checkpoint.tensors) else row.spec.coordinates
    detector = Detector(replace(row.spec, class_names=classes, coordinates=coordinates))
    fill_weights(detector, tensors, source=str(weights))
    detector.provenance = {"file": Path(weights).name, **checkpoint.origin, **published_as(Path(weights))}
    return detector.eval()


def with_classes(source: Detector, row: Row, class_names: Sequence[str], *, label: str) -> Detector:
    """The weights of `source` in the model of `row` with other classes; see `gcnet.weights.class_rows`.

    Classes that `source` does not name are taken to be `class_names` if there are as many.

    Raises:
        GCNetError: they differ in more than their classes; `label` says what `source` is.
    """
    if source.spec.class_names == unnamed(len(class_names)):
        rename_classes(source, class_names, label=label)
    spec = replace(row.spec, class_names=tuple(class_names), coordinates=source.spec.coordinates)
    if source.spec == spec:
        return source
    detector = Detector(spec)
    fill_weights(detector, carry_over(source, detector), source=label)
    detector.provenance = dict(source.provenance)
    if source.spec.class_names != spec.class_names:
        rows = match_classes(source.spec.class_names, spec.class_names)
        kept = [name for name, row in zip(spec.class_names, rows, strict=True) if row is not None]
        detector.provenance["classes_kept"] = kept
    return detector.eval()


def published_as(path: Path) -> dict[str, str | float]:
    """The SHA-256 of a file, and if it is a published one what was published about it."""
    digest = sha256(path)
    row = next((row for row in ROWS if row.weights and digest.startswith(row.weights.sha256)), None)
    if row is None or row.box_ap is None or row.mask_ap is None:
        return {"sha256": digest}
    return {
        "sha256": digest,
        "published_as": row.upstream[0],
        "published_box_AP": row.box_ap,
        "published_mask_AP": row.mask_ap,
    }


def rename_classes(model: Detector | Classifier, class_names: Sequence[str], *, label: str) -> None:
    """Gives the classes of `model` other names, in the order of the labels.

    Raises:
        GCNetError: there are more or fewer names than classes; `label` says what `model` is.
    """
    count = model.spec.num_classes
    if len(class_names) != count:
        raise GCNetError(f"{label} has {count} classes, {len(class_names)} names are given: name each class")
    spec = replace(model.spec, class_names=tuple(class_names))
    model.spec = spec  # pyright: ignore[reportAttributeAccessIssue] (it is of the same kind)
