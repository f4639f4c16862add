"""COCO's average precision and recall of boxes and masks.

The numbers are those of pycocotools' COCOeval. T IoU thresholds, R recall levels, K classes,
A area ranges (all, small, medium, large), M limits on detections an image (1, 10).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.evaluation.average_precision import (
    AREAS,
    LIMIT,
    LIMITS,
    NONE,
    Matches,
    Objects,
    Scores,
    mask_areas,
    match,
    score,
)
from gcnet.evaluation.operating import Point, best_point
from gcnet.evaluation.results import CocoResults, ImageResults
from gcnet.ops.segmentations import segmentation_to_rle

_AREAS = {"s": 1, "m": 2, "l": 3}


@dataclass(frozen=True)
class Metrics:
    """Average precision and recall, 0 to 1; -1 if there are no objects of that kind.

    Of a detector without mask heads, `mask` is empty.

    `box` and `mask` have AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm and ARl, averaged over
    the classes that have annotations. `per_class` has for each class name `instances` (annotations other
    than crowds) and AP, AP50, AP75, APs, APm, APl and AR100 with the prefix `box_` or `mask_`. All are
    measured with up to 100 detections of an image and class, as COCO has it; of a model that gives up to 300,
    all are with 300, and AR100 is called AR300.

    `best` is the score from which on detections make the best F1 with boxes at IoU 0.5, of all classes
    together, and what it comes to there; none where no object is found.
    """

    box: dict[str, float]
    mask: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int = 0
    best: Point | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain names, None in place of -1."""

        def plain(values: dict[str, float]) -> dict[str, float | None]:
            return {name: None if value == NONE else value for name, value in values.items()}

        return {
            "images": self.images,
            "box": plain(self.box),
            "mask": plain(self.mask),
            "per_class": {name: plain(values) for name, values in self.per_class.items()},
            "best": None if self.best is None else asdict(self.best),
        }


class CocoEvaluator:
    """Scores detections in images, with masks as run-length encodings.

    Images of the data set that are not among them count as images in which nothing was found. All annotated
    objects count, crowds and those too degenerate to train on too, as COCO's own tool has it. Of an image and
    class, the best `limit` detections are looked at.

    `order` has the places in the data set of the images as they are numbered here.
    """

    def __init__(
        self, dataset: DataSet[ImageRecord], found: Iterable[ImageResults] = (), limit: int = LIMIT
    ) -> None:
        self.limit = limit
        self.class_names = dataset.class_names
        self.category_ids = dataset.category_ids
        # COCOeval breaks ties of scores in the order of images' ids.
        ids = {record.id: index for index, record in enumerate(dataset.records)}
        ids = dict(sorted(ids.items(), key=lambda one: (isinstance(one[0], str), one[0])))
        self.order = list(ids.values())
        self.results = CocoResults(found)
        self._numbers = {id: number for number, id in enumerate(ids)}
        self._truth = _truth(dataset, self._numbers)

    def compute(self) -> Metrics:
        """The box and mask metrics of all images."""
        truth, crowd = self._truth
        matches = self.matches()
        kinds = {kind: score(one) for kind, one in matches.items()}
        instances = np.bincount(truth.classes[~crowd], minlength=len(self.category_ids))
        per_class = {name: {"instances": float(instances[k])} for k, name in enumerate(self.class_names)}
        for kind, result in kinds.items():
            for k, name in enumerate(self.class_names):
                per_class[name] |= _class_metrics(kind, result, k, self.limit)
        summaries = {kind: _summary(result, self.limit) for kind, result in kinds.items()}
        best = best_point(matches["box"])
        return Metrics(summaries["box"], summaries.get("mask", {}), per_class, len(self._numbers), best)

    def matches(self, areas: Float[np.ndarray, "A 2"] = AREAS, *, masks: bool = True) -> dict[str, Matches]:
        """Detections matched with objects, by "box", and by "mask" if there are `masks`."""
        truth, crowd = self._truth
        found, scores = self._found()
        classes = len(self.category_ids)
        boxes = replace(found, areas=found.boxes[:, 2:].prod(1), masks=None)
        kinds = {"box": match(replace(truth, masks=None), crowd, boxes, scores, classes, self.limit, areas)}
        if masks and found.masks is not None:
            drawn = np.array([bool(mask) for mask in truth.masks or ()], bool)
            outlined = truth.take(drawn), crowd[drawn]
            kinds["mask"] = match(*outlined, found, scores, classes, self.limit, areas)
        return kinds

    def _found(self) -> tuple[Objects, Float[np.ndarray, " N"]]:
        """What was found, with the areas of masks if there are any, and its scores."""
        masks = all(image.counts is not None for image in self.results.images)
        images = [image for image in self.results.images if len(image)]
        lengths = [len(image) for image in images]
        numbers = [self._numbers[image.image_id] for image in images]
        labels = {category_id: label for label, category_id in enumerate(self.category_ids)}
        ids = np.concatenate([np.zeros(0, np.int64), *(image.category_ids for image in images)])
        found = Objects(
            images=np.repeat(np.array(numbers, np.int64), lengths),
            classes=np.array([labels[id] for id in ids.tolist()], np.int64),
            boxes=np.concatenate([np.zeros((0, 4)), *(image.boxes for image in images)]),
            areas=np.concatenate([np.zeros(0), *map(_areas, images)]),
            masks=[counts for image in images for counts in image.counts or ()] if masks else None,
            sizes=np.repeat(np.array([image.size for image in images], np.int64).reshape(-1, 2), lengths, 0),
        )
        return found, np.concatenate([np.zeros(0), *(image.scores for image in images)])


def _areas(image: ImageResults) -> Float[np.ndarray, " D"]:
    """Pixels of its masks; of boxes without."""
    return image.boxes[:, 2:].prod(1) if image.counts is None else mask_areas(image.counts, image.size)


def _summary(scores: Scores, most: int) -> dict[str, float]:
    limits = {f"AR{limit}": _mean(scores.limited[:, :, m]) for m, limit in enumerate(LIMITS) if limit < most}
    limits[f"AR{most}"] = _mean(scores.recall[:, :, 0])
    areas = {f"AR{name}": _mean(scores.recall[:, :, a]) for name, a in _AREAS.items()}
    return _precisions(scores.precision) | limits | areas


def _class_metrics(prefix: str, scores: Scores, k: int, most: int) -> dict[str, float]:
    values = _precisions(scores.precision[:, :, k : k + 1]) | {f"AR{most}": _mean(scores.recall[:, k, 0])}
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _precisions(precision: Float[np.ndarray, "T R K A"]) -> dict[str, float]:
    whole = precision[:, :, :, 0]
    names = {"AP": whole, "AP50": whole[0], "AP75": whole[5]}  # thresholds are 0.5, 0.55, ..., 0.95
    names |= {f"AP{name}": precision[:, :, :, a] for name, a in _AREAS.items()}
    return {name: _mean(values) for name, values in names.items()}


def _mean(values: np.ndarray) -> float:
    present = values[values > NONE]
    return float(present.mean()) if present.size else NONE


def _truth(
    dataset: DataSet[ImageRecord], numbers: dict[int | str, int]
) -> tuple[Objects, Bool[np.ndarray, " N"]]:
    """All annotated objects, also those too degenerate to train on, and which do not count: crowds, `ignore`.

    One without a segmentation has an empty mask, and counts for boxes only.
    """
    entries = [(record, item) for record in dataset.records for item in record.instances]
    corners = np.array([item.box for _, item in entries], np.float64).reshape(-1, 4)
    masks = [
        segmentation_to_rle(item.segmentation, record.height, record.width)["counts"]
        if item.segmentation
        else b""
        for record, item in entries
    ]
    truth = Objects(
        images=np.array([numbers[record.id] for record, _ in entries], np.int64),
        classes=np.array([item.label for _, item in entries], np.int64),
        boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1),
        areas=np.array([item.area for _, item in entries], np.float64),
        masks=masks,
        sizes=np.array([(record.height, record.width) for record, _ in entries], np.int64).reshape(-1, 2),
    )
    return truth, np.array([item.crowd or item.ignore for _, item in entries], bool)
