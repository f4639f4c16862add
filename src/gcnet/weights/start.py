"""What a training starts from: whose weights, which classes keep what was learnt of them, what is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gcnet.console import listed
from gcnet.errors import GCNetError
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.weights.cache import store
from gcnet.weights.catalog import Row
from gcnet.weights.class_rows import match_classes
from gcnet.weights.classifier_weights import create_classifier, load_source, with_row
from gcnet.weights.classifiers import ClassifierRow
from gcnet.weights.create import create_detector, is_backbone, load_weights, with_classes
from gcnet.weights.download import published_weights
from gcnet.weights.files import read_metadata
from gcnet.weights.imagenet import is_published

NOTHING = "none, all numbers are random"
STAGES = ("the stem", "c2", "c3", "c4", "c5")


@dataclass(frozen=True)
class Start:
    """A model about to be trained.

    `weights` is what does the same again: "coco", "imagenet", "none" or a file. `report` says in three lines
    whose weights these are, which classes are new, and what is frozen.
    """

    model: Detector | Classifier
    weights: str
    report: tuple[str, str, str]


def start_model(
    row: Row | ClassifierRow,
    weights: str | None,
    class_names: Sequence[str],
    *,
    mirrors: Sequence[str] = (),
) -> Start:
    """The model of `row` for `class_names`, ready to be trained.

    Args:
        weights: None for random ones, "coco", "imagenet", a file, or "auto": the published ones of the row,
            where they cannot be had ImageNet's for the backbone, and none for a row that trains all of it.
            A classifier starts from ImageNet's if there are some for its backbone.

    Raises:
        GCNetError: the weights cannot be had, or are of another model.
    """
    if isinstance(row, ClassifierRow):
        return _classifier(row, weights, class_names, mirrors)
    if weights == "auto" and row.weights is None:
        weights = "imagenet" if row.spec.backbone.frozen_stages else None
    if weights == "auto":
        try:
            published_weights(row, mirrors=mirrors)
        except GCNetError as error:
            return _without_published(row, class_names, mirrors, error)
        weights = "coco"
    if weights is None:
        return _started(create_detector(row, class_names=class_names), "none", NOTHING, ())
    if is_backbone(weights):
        return _from_backbone(row, weights, class_names, mirrors, "")
    source = load_weights(weights, row, mirrors=mirrors)
    detector = with_classes(source, row, class_names, label=str(weights))
    whose = f"{row.name} as published (COCO, mask AP {row.mask_ap})" if weights == "coco" else str(weights)
    if weights != "coco" and source.spec.name != row.name:
        whose += f", a {source.spec.name}"
    return _started(detector, weights, whose, source.spec.class_names)


def _without_published(
    row: Row, class_names: Sequence[str], mirrors: Sequence[str], reason: GCNetError
) -> Start:
    try:
        why = f"; those of the whole model: {reason}"
        return _from_backbone(row, "imagenet", class_names, mirrors, why)
    except GCNetError as error:
        assert row.weights is not None
        raise GCNetError(
            f"no weights to start from: neither {row.weights.file} nor those of ImageNet can be had; put the "
            f"file into {store()}, name a mirror (--mirror), or train from nothing with --weights none "
            f"({reason}; {error})"
        ) from error


def _from_backbone(
    row: Row, weights: str, class_names: Sequence[str], mirrors: Sequence[str], why: str
) -> Start:
    whose = "ImageNet's"
    if weights != "imagenet":
        spec = read_metadata(weights).spec
        whose = f"{weights}, a {spec.name}," + (" with its context blocks" if spec.backbone.context else "")
    detector = create_detector(row, weights=weights, class_names=class_names, mirrors=mirrors)
    return _started(detector, weights, f"{whose} for the backbone, random for the rest{why}", ())


def _classifier(
    row: ClassifierRow, weights: str | None, class_names: Sequence[str], mirrors: Sequence[str]
) -> Start:
    if weights == "auto":
        weights = "imagenet" if is_published(row.spec.backbone) else None
    if weights is None:
        return _started(create_classifier(row, class_names=class_names), "none", NOTHING, ())
    source = load_source(row, weights, mirrors=mirrors)
    known, whose = source.spec.class_names, "ImageNet's" if weights == "imagenet" else weights
    return _started(with_row(source, row, class_names, label=weights), weights, whose, known)


def _started(model: Detector | Classifier, weights: str, whose: str, known: Sequence[str]) -> Start:
    """The model with what is to be said of it; `known` are the classes that the weights know."""
    return Start(
        model, weights, (f"weights: {whose}", _classes(known, model.spec.class_names), _frozen(model))
    )


def _classes(source: Sequence[str], target: Sequence[str]) -> str:
    rows = match_classes(source, target)
    kept = [name for name, row in zip(target, rows, strict=True) if row is not None]
    new = [name for name, row in zip(target, rows, strict=True) if row is None]
    if not kept:
        return f"classes: all {len(new)} are new: {listed(new)}"
    if not new:
        return f"classes: all {len(kept)} keep their trained rows: {listed(kept)}"
    return f"classes: {len(kept)} of {len(rows)} keep their trained rows ({listed(kept)}); new: {listed(new)}"


def _frozen(model: Detector | Classifier) -> str:
    backbone = model.spec.backbone
    parts = []
    if backbone.frozen_stages:
        counts = [parameter.numel() for parameter in model.parameters() if not parameter.requires_grad]
        whole = sum(parameter.numel() for parameter in model.parameters())
        stages = " and ".join(STAGES[: backbone.frozen_stages])
        parts.append(f"{stages} ({sum(counts) / 1e6:.1f} of {whole / 1e6:.1f} M parameters)")
    if backbone.norm == "frozen_stats":
        parts.append("the statistics of the backbone's norm")
    return f"frozen: {'; '.join(parts) or 'nothing'}"
