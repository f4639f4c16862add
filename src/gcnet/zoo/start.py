"""What a training starts from: whose weights, which classes keep what was learnt of them, what is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gcnet.errors import GCNetError
from gcnet.models.build import build_detector
from gcnet.models.class_rows import match_classes
from gcnet.models.detector import Detector
from gcnet.zoo.cache import store
from gcnet.zoo.catalog import Row
from gcnet.zoo.create import load_weights, with_classes
from gcnet.zoo.download import published_weights
from gcnet.zoo.imagenet import load_imagenet

LISTED = 8  # how many classes are spelled out
STAGES = ("the stem", "c2", "c3", "c4", "c5")


@dataclass(frozen=True)
class Start:
    """A model about to be trained.

    `weights` is what does the same again: "coco", "imagenet", "none" or a file. `report` says in three lines
    whose weights these are, which classes are new, and what is frozen.
    """

    detector: Detector
    weights: str
    report: tuple[str, str, str]


def start_model(
    row: Row, weights: str | None, class_names: Sequence[str], *, mirrors: Sequence[str] = ()
) -> Start:
    """The model of `row` for `class_names`, ready to be trained.

    Args:
        weights: None for random ones, "coco", "imagenet", a file, or "auto": the published ones of the row,
            where they cannot be had ImageNet's for the backbone, and none for a row that trains all of it.

    Raises:
        GCNetError: the weights cannot be had, or are of another model.
    """
    if weights == "auto" and row.weights is None:
        weights = "imagenet" if row.spec.backbone.frozen_stages else None
    if weights == "auto":
        try:
            published_weights(row, mirrors=mirrors)
        except GCNetError as error:
            return _without_published(row, class_names, mirrors, error)
        weights = "coco"
    if weights is None:
        return _from_nothing(row, class_names, "none", "weights: none, all numbers are random")
    if weights == "imagenet":
        return _from_imagenet(row, class_names, mirrors, "")
    source = load_weights(weights, row, mirrors=mirrors)
    detector = with_classes(source, row, class_names, label=str(weights))
    whose = f"{row.name} as published (COCO, mask AP {row.mask_ap})" if weights == "coco" else str(weights)
    if weights != "coco" and source.spec.name != row.name:
        whose += f", a {source.spec.name}"
    lines = (f"weights: {whose}", _classes(source.spec.class_names, class_names), _frozen(detector))
    return Start(detector, weights, lines)


def _without_published(
    row: Row, class_names: Sequence[str], mirrors: Sequence[str], reason: GCNetError
) -> Start:
    try:
        return _from_imagenet(row, class_names, mirrors, f"; those of the whole model: {reason}")
    except GCNetError as error:
        assert row.weights is not None
        raise GCNetError(
            f"no weights to start from: neither {row.weights.file} nor those of ImageNet can be had; put the "
            f"file into {store()}, name a mirror (--mirror), or train from nothing with --weights none "
            f"({reason}; {error})"
        ) from error


def _from_imagenet(row: Row, class_names: Sequence[str], mirrors: Sequence[str], why: str) -> Start:
    line = f"weights: ImageNet's for the backbone, random for the rest{why}"
    start = _from_nothing(row, class_names, "imagenet", line)
    load_imagenet(start.detector.backbone, row.spec.backbone, mirrors=mirrors)
    start.detector.provenance = {"backbone": "ImageNet"}
    return start


def _from_nothing(row: Row, class_names: Sequence[str], weights: str, line: str) -> Start:
    detector = build_detector(replace(row.spec, class_names=tuple(class_names)))
    return Start(detector, weights, (line, _classes((), class_names), _frozen(detector)))


def _classes(source: Sequence[str], target: Sequence[str]) -> str:
    rows = match_classes(source, target)
    kept = [name for name, row in zip(target, rows, strict=True) if row is not None]
    new = [name for name, row in zip(target, rows, strict=True) if row is None]
    if not kept:
        return f"classes: all {len(new)} are new: {_listed(new)}"
    if not new:
        return f"classes: all {len(kept)} keep their trained rows: {_listed(kept)}"
    return (
        f"classes: {len(kept)} of {len(rows)} keep their trained rows ({_listed(kept)}); new: {_listed(new)}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _frozen(detector: Detector) -> str:
    backbone = detector.spec.backbone
    parts = []
    if backbone.frozen_stages:
        counts = [parameter.numel() for parameter in detector.parameters() if not parameter.requires_grad]
        whole = sum(parameter.numel() for parameter in detector.parameters())
        stages = " and ".join(STAGES[: backbone.frozen_stages])
        parts.append(f"{stages} ({sum(counts) / 1e6:.1f} of {whole / 1e6:.1f} M parameters)")
    if backbone.norm == "frozen_stats":
        parts.append("the statistics of the backbone's norm")
    return f"frozen: {'; '.join(parts) or 'nothing'}"
