"""COCO's average precision and recall of boxes and masks.

The numbers are those of COCOeval, computed by faster-coco-eval. T IoU thresholds, R recall levels,
K classes, A area ranges (all, small, medium, large), M limits on detections an image (1, 10, 100).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Float

from gcnet.data.coco import CocoDataset
from gcnet.errors import GCNetError
from gcnet.evaluation.results import coco_results
from gcnet.ops.segmentations import parse_segmentation, segmentation_area
from gcnet.types import Detections

NONE = -1.0  # COCO's value where there is nothing to measure against
_KINDS: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm")
_AREAS = {"": 0, "s": 1, "m": 2, "l": 3}
_LIMITS = {"1": 0, "10": 1, "100": 2}


@dataclass(frozen=True)
class Metrics:
    """Average precision and recall, 0 to 1, or -1 where no annotation could have been found.

    `box` and `mask` have AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm and ARl, averaged over
    the classes that have annotations. `per_class` has for each class name `instances` (annotations other
    than crowds) and AP, AP50, AP75, APs, APm, APl and AR100 with the prefix `box_` or `mask_`.
    """

    box: dict[str, float]
    mask: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain names, None in place of -1."""

        def plain(values: dict[str, float]) -> dict[str, float | None]:
            return {name: None if value == NONE else value for name, value in values.items()}

        return {
            "images": self.images,
            "box": plain(self.box),
            "mask": plain(self.mask),
            "per_class": {name: plain(values) for name, values in self.per_class.items()},
        }


class CocoEvaluator:
    """Collects detections image by image, as COCO results, and scores them at the end.

    Masks are kept run-length encoded. Images of the data set that no detections came for count as images
    in which nothing was found. The annotation file is read anew and counts in full: crowds, and objects too
    degenerate to train on, as COCO's own tool has it.
    """

    def __init__(self, dataset: CocoDataset) -> None:
        self.class_names = dataset.class_names
        self.category_ids = dataset.category_ids
        self.image_ids = {record.id for record in dataset.records}
        self.results: list[dict[str, Any]] = []
        self._seen: set[int | str] = set()
        self._truth = _ground_truth(dataset)

    def update(self, image_ids: Sequence[int | str], detections: Sequence[Detections]) -> None:
        """Adds the detections of some images.

        Raises GCNetError for an image that is not in the data set or came before, or a label without class.
        """
        for image_id, found in zip(image_ids, detections, strict=True):
            if image_id not in self.image_ids:
                raise GCNetError(
                    f"detections are for image {image_id}, which the data set does not have; "
                    "evaluate on the data set that was predicted on"
                )
            if image_id in self._seen:
                raise GCNetError(f"detections for image {image_id} came twice; give each image once")
            classes = len(self.category_ids)
            if len(found) and int(found.labels.max()) >= classes:
                raise GCNetError(
                    f"detections in image {image_id} have label {int(found.labels.max())}, the data set has "
                    f"{classes} classes; use a model that was trained for these classes"
                )
            self._seen.add(image_id)
            self.results += coco_results(found, image_id, self.category_ids)

    def compute(self) -> Metrics:
        """Box and mask metrics of all that was collected."""
        box, mask = (_scores(self._truth, self.results, kind) for kind in _KINDS)
        # COCOeval orders classes by category id, the data set by label.
        order = np.argsort(np.argsort(self.category_ids))
        instances = _count_instances(self._truth)
        per_class = {
            name: {"instances": float(instances.get(category_id, 0))}
            | _class_metrics("box", box, int(k))
            | _class_metrics("mask", mask, int(k))
            for name, category_id, k in zip(self.class_names, self.category_ids, order, strict=True)
        }
        return Metrics(_summary(box), _summary(mask), per_class, len(self.image_ids))


@dataclass(frozen=True)
class _Scores:
    precision: Float[np.ndarray, "T R K A M"]
    recall: Float[np.ndarray, "T K A M"]


def _scores(truth: dict[str, Any], results: list[dict[str, Any]], kind: Literal["bbox", "segm"]) -> _Scores:
    # For masks the boxes of results are left out: with them, COCO would sort masks into small, medium and
    # large by the area of the box. Entries are copied because COCO adds fields to them.
    shape = "bbox" if kind == "bbox" else "segmentation"
    # COCO wants numbers for ids of images, and breaks ties of scores in their order.
    ids = sorted((image["id"] for image in truth["images"]), key=lambda id: (isinstance(id, str), id))
    numbers = {id: number for number, id in enumerate(ids)}

    def renumbered(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [entry | {"image_id": numbers[entry["image_id"]]} for entry in entries]

    images = [image | {"id": numbers[image["id"]]} for image in truth["images"]]
    objects = renumbered([entry for entry in truth["annotations"] if shape in entry])
    annotations = COCO(truth | {"images": images, "annotations": objects})
    columns = ("image_id", "category_id", "score", shape)
    found = annotations.loadRes(renumbered([{name: entry[name] for name in columns} for entry in results]))
    evaluation = COCOeval_faster(annotations, found, kind, print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    return _Scores(*(np.asarray(evaluation.eval[name]) for name in ("precision", "recall")))


def _summary(scores: _Scores) -> dict[str, float]:
    return (
        _precisions(scores.precision)
        | {f"AR{name}": _mean(scores.recall[:, :, 0, m]) for name, m in _LIMITS.items()}
        | {f"AR{name}": _mean(scores.recall[:, :, a, 2]) for name, a in _AREAS.items() if name}
    )


def _class_metrics(prefix: str, scores: _Scores, k: int) -> dict[str, float]:
    values = _precisions(scores.precision[:, :, k : k + 1]) | {"AR100": _mean(scores.recall[:, k, 0, 2])}
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _precisions(precision: Float[np.ndarray, "T R K A M"]) -> dict[str, float]:
    whole = precision[:, :, :, 0, 2]
    names = {"AP": whole, "AP50": whole[0], "AP75": whole[5]}  # thresholds are 0.5, 0.55, ..., 0.95
    names |= {f"AP{name}": precision[:, :, :, a, 2] for name, a in _AREAS.items() if name}
    return {name: _mean(values) for name, values in names.items()}


def _mean(values: np.ndarray) -> float:
    present = values[values > NONE]
    return float(present.mean()) if present.size else NONE


def _ground_truth(dataset: CocoDataset) -> dict[str, Any]:
    """The annotation file cut down to the classes and images of the data set, with gaps filled.

    Annotations are numbered anew from 1, for COCOeval takes an object with id 0 (some tools start there) as
    never found. Without a segmentation an object has none here either, and counts for boxes only.
    """
    content = json.loads(dataset.annotation_file.read_bytes())
    sizes = {record.id: (record.height, record.width) for record in dataset.records}
    categories = set(dataset.category_ids)
    annotations = []
    for raw in content["annotations"]:
        image_id, segmentation, area = raw["image_id"], raw.get("segmentation"), raw.get("area")
        if image_id not in sizes or raw["category_id"] not in categories:
            continue
        if area is None:
            parsed = parse_segmentation(segmentation or [], *sizes[image_id])
            area = segmentation_area(parsed, *sizes[image_id])
        entry = {"id": len(annotations) + 1, "iscrowd": int(raw.get("iscrowd", 0)), "area": area}
        entry |= {name: raw[name] for name in ("image_id", "category_id", "bbox")}
        annotations.append(entry | ({"segmentation": segmentation} if segmentation else {}))
    return {
        "images": [{"id": id, "height": height, "width": width} for id, (height, width) in sizes.items()],
        "categories": [
            {"id": category_id, "name": name}
            for category_id, name in zip(dataset.category_ids, dataset.class_names, strict=True)
        ],
        "annotations": annotations,
    }


def _count_instances(truth: dict[str, Any]) -> dict[int, int]:
    categories = [entry["category_id"] for entry in truth["annotations"] if not entry["iscrowd"]]
    values, counts = np.unique(np.asarray(categories, dtype=np.int64), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
