"""The content of a detector's `report.json`: what an evaluation says of it, in plain values.

All figures except AP and the kinds of error, which masks have too, are counted from matches of boxes. N1
objects, N2 detections, I images, K classes, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.evaluation.average_precision import NONE, Matches, score
from gcnet.evaluation.bootstrap import DRAWN, ap_samples, image_weights, interval, nan_mean, threshold_samples
from gcnet.evaluation.coco_ap import CocoEvaluator
from gcnet.evaluation.errors import Errors, find_errors, gains
from gcnet.evaluation.operating import LEVELS, Point, best_point, calibration, confusion, counted, curve
from gcnet.judge.words import BACKGROUND

WINDOWS = 13  # sizes that AP is measured at
FEWEST = 5  # objects in a window of sizes that AP is given for
SOME = 200  # resamples for each window
THRESHOLDS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}  # of IoU: 0.5, 0.55, ...


@dataclass(frozen=True)
class Judged:
    """The matches of a detector on a data set, and the figures from them.

    `evaluator` made them: its `order` has the places in the data set of the images as matches number them.
    """

    evaluator: CocoEvaluator
    boxes: Matches
    masks: Matches | None
    best: Point | None
    errors: Errors
    suspects: Bool[np.ndarray, " N2"]

    @property
    def shown(self) -> Matches:
        """The detections with their masks, if they have some; they stand at the same places as boxes."""
        return self.masks or self.boxes

    @property
    def threshold(self) -> float:
        return self.best.score if self.best else 0.5


def judge(evaluator: CocoEvaluator) -> Judged:
    """Matches the detections and computes all that the report needs of them."""
    matches = evaluator.matches()
    boxes = matches["box"]
    errors = find_errors(boxes)
    suspects = _suspects(boxes, errors)
    return Judged(evaluator, boxes, matches.get("mask"), best_point(boxes), errors, suspects)


def _suspects(matches: Matches, errors: Errors) -> Bool[np.ndarray, " N2"]:
    """Wrong detections that may be right, because the ground truth may be wrong.

    They lie on background or on an object of another class, and are as sure as right ones are on average, of
    their class (as confident learning has it, arXiv 1911.00068) and of all.
    """
    right, classes = matches.hits, matches.found.classes
    if not right.any():
        return right
    total = np.bincount(classes[right], matches.scores[right], matches.classes)
    usual = total / np.maximum(np.bincount(classes[right], minlength=matches.classes), 1)
    usual = np.maximum(usual, matches.scores[right].mean())
    kinds = np.isin(errors.kind, ["class", "background"])
    return kinds & (matches.scores >= usual[classes])


def describe(judged: Judged) -> dict[str, Any]:
    """The report without single images."""
    boxes, names = judged.boxes, list(judged.evaluator.class_names)
    weights = image_weights(len(judged.evaluator.order))
    kinds = {"box": boxes}
    if judged.masks and len(judged.masks.truth):  # else the objects have no outlines
        kinds["mask"] = judged.masks
    ap = {kind: ap_intervals([one], weights) for kind, one in kinds.items()}
    best = None
    if judged.best:
        bounds = interval(judged.threshold, threshold_samples(boxes, weights))
        best = asdict(judged.best) | {"low": bounds["low"], "high": bounds["high"]}
    return {
        "images": len(judged.evaluator.order),
        "objects": int(boxes.wanted.sum()),
        "intervals": DRAWN,
        "ap": {kind: values["all"] for kind, values in ap.items()},
        "best": best,
        "classes": [
            {
                "name": name,
                "objects": int(boxes.wanted[boxes.truth.classes == label].sum()),
                **{f"{kind}_AP": values["classes"][label] for kind, values in ap.items()},
                "best": asdict(own) if (own := best_point(boxes, label)) else None,
            }
            for label, name in enumerate(names)
        ],
        "curves": {
            "score": LEVELS.round(2).tolist(),
            "all": _curve(boxes, None),
            "classes": [_curve(boxes, label) for label in range(len(names))],
        },
        "confusion": {"score": judged.threshold, "rows_are": "objects", "names": [*names, BACKGROUND]}
        | {"table": confusion(boxes, judged.threshold).tolist()},
        "errors": {kind: _errors(one, judged if kind == "box" else None) for kind, one in kinds.items()},
        "calibration": calibration(*counted(boxes)[:2]),
        "sizes": _by_size(judged, weights[:SOME]),
    }


def ap_intervals(matches: Sequence[Matches], weights: Float32[np.ndarray, "B I"]) -> dict[str, Any]:
    """AP, AP50 and AP75 over all classes, and AP of each; of two models by how much the second has more."""
    values, samples = _ap_values(matches[0]), ap_samples(matches[0], weights)
    if len(matches) == 2:  # of the same images, drawn as often for both
        values, samples = _ap_values(matches[1]) - values, ap_samples(matches[1], weights) - samples
    least = 1.0 - len(matches)
    overall = {
        name: interval(float(nan_mean(values[part])), nan_mean(samples[:, part], (1, 2)), least=least)
        for name, part in THRESHOLDS.items()
    }
    each = [
        interval(float(nan_mean(values[:, k])), nan_mean(samples[:, :, k], 1), least=least)
        for k in range(matches[0].classes)
    ]
    return {"all": overall, "classes": each}


def _ap_values(matches: Matches) -> Float[np.ndarray, "T K"]:
    precision = score(matches).precision[..., 0]
    return np.where(precision > NONE, precision, np.nan).mean(1)


def _curve(matches: Matches, label: int | None) -> dict[str, list[float]]:
    return {name: values.round(4).tolist() for name, values in curve(matches, label).items()}


def _errors(matches: Matches, judged: Judged | None) -> dict[str, Any]:
    errors = judged.errors if judged else find_errors(matches)
    gained, counts = gains(matches, errors), errors.counts()
    return {kind: {"count": counts[kind], "AP50_gain": gained[kind]} for kind in counts}


def _by_size(judged: Judged, weights: Float32[np.ndarray, "B I"]) -> list[dict[str, Any]]:
    """Box AP of objects whose side (root of their area) lies within a factor of sqrt(2) of one."""
    areas = judged.boxes.truth.areas[judged.boxes.wanted]
    if not len(areas):
        return []
    low, high = np.sqrt(max(areas.min(), 1.0)), np.sqrt(max(areas.max(), 1.0))
    sides = np.geomspace(low, high, WINDOWS) if high > low else np.array([low])
    matches = judged.evaluator.matches(np.stack([sides**2 / 2, sides**2 * 2], 1), masks=False)["box"]
    precision = score(matches).precision
    found = []
    for place, side in enumerate(sides.tolist()):
        count, own = int((~matches.ignored[:, place]).sum()), precision[..., place]
        if count >= FEWEST:
            samples = nan_mean(ap_samples(matches, weights, place), (1, 2))
            bounds = interval(float(own[own > NONE].mean()), samples)
            found.append({"side": side, "objects": count, **bounds})
    return found


def single_images(
    judged: Judged, dataset: DataSet[ImageRecord], most: int
) -> dict[str, list[dict[str, Any]]]:
    """The worst images, the surest mistakes and suspected errors of labels: those first, `most` of each.

    `place` is the image's in the data set, `detection` the number of one among the matches.
    """
    boxes, false, lost = judged.boxes, *errors_of_images(judged)
    worst = [
        {**_image(judged, dataset, image), "false": int(false[image]), "missed": int(lost[image])}
        for image in np.lexsort((-lost, -(false + lost)))[:most].tolist()
        if false[image] + lost[image]
    ]
    by_score = np.argsort(-boxes.scores, kind="stable")
    sure_mistakes = boxes.misses & (boxes.scores >= judged.threshold) & ~judged.suspects
    mistakes = by_score[sure_mistakes[by_score]]
    suspects = by_score[judged.suspects[by_score]]
    return {
        "worst_images": worst,
        "mistakes": [_mistake(judged, dataset, row) for row in mistakes[:most].tolist()],
        "suspects": [_mistake(judged, dataset, row) for row in suspects[:most].tolist()],
    }


def errors_of_images(judged: Judged) -> tuple[Int64[np.ndarray, " I"], Int64[np.ndarray, " I"]]:
    """The false detections and missed objects in each image, at the threshold."""
    boxes, count = judged.boxes, len(judged.evaluator.order)
    false = boxes.misses & (boxes.scores >= judged.threshold)
    missed = boxes.not_found(judged.threshold)
    images = boxes.found.images[false], boxes.truth.images[missed]
    return np.bincount(images[0], minlength=count), np.bincount(images[1], minlength=count)


def _image(judged: Judged, dataset: DataSet[ImageRecord], image: int) -> dict[str, Any]:
    place = judged.evaluator.order[image]
    return {"file_name": dataset.name(place), "place": place}


def _mistake(judged: Judged, dataset: DataSet[ImageRecord], row: int) -> dict[str, Any]:
    """A wrong detection; `object` is the class of the object that it lies on, if it does."""
    boxes, errors, names = judged.boxes, judged.errors, dataset.class_names
    meant = int(errors.meant[row])
    x, y, width, height = boxes.found.boxes[row].tolist()
    return {
        **_image(judged, dataset, int(boxes.found.images[row])),
        "detection": row,
        "class": names[boxes.found.classes[row]],
        "score": float(boxes.scores[row]),
        "box": [x, y, x + width, y + height],
        "error": str(errors.kind[row]),
        "object": names[boxes.truth.classes[meant]] if meant >= 0 else None,
        "iou": float(errors.ious[row]),
    }
