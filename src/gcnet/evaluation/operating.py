"""Figures of a detector at a score threshold: precision, recall, F1, confusion; and its calibration.

All are counted from `Matches` at IoU 0.5 and for all areas. N detections, N1 objects, K classes, S
thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from gcnet.evaluation.average_precision import Matches, pairs_of_all_classes

IOU = 0.5
LEVELS = np.linspace(0, 1, 101)  # scores that curves are given at
BINS = 10  # of calibration, of equal width


@dataclass(frozen=True)
class Point:
    """Precision, recall and F1 at a score threshold; all in [0, 1]."""

    score: float
    precision: float
    recall: float
    f1: float


def curve(
    matches: Matches, label: int | None = None, levels: Float[np.ndarray, " S"] = LEVELS
) -> dict[str, Float[np.ndarray, " S"]]:
    """`precision`, `recall` and `f1` at each score threshold, of one class, or of all together.

    The precision of no detections is 1.
    """
    scores, right, wanted = counted(matches, label)
    order = np.argsort(-scores, kind="stable")
    hits = np.append(0, right[order].cumsum())
    count = np.searchsorted(-scores[order], -levels, "right")
    precision = np.where(count > 0, hits[count] / np.maximum(count, 1), 1.0)
    f1 = 2 * hits[count] / np.maximum(count + wanted, 1)
    return {"precision": precision, "recall": hits[count] / max(wanted, 1), "f1": f1}


def best_point(matches: Matches, label: int | None = None) -> Point | None:
    """The point with the best F1, for one class or all together; None where nothing is found.

    The score is the middle between the last detection that is kept and the next one: other images' are alike.
    """
    scores, right, _ = counted(matches, label)
    if not right.any():  # F1 is 0 at every score
        return None
    steps = np.unique(scores)[::-1]
    found = curve(matches, label, steps)
    best = int(found["f1"].argmax())
    below = steps[best + 1] if best + 1 < len(steps) else 0.0
    at_best = {name: float(values[best]) for name, values in found.items()}
    return Point(float(steps[best] + below) / 2, **at_best)


def counted(
    matches: Matches, label: int | None = None
) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"], int]:
    """The scores of detections that count, which are right, and how many objects there are to find."""
    own, wanted = matches.hits | matches.misses, matches.wanted
    if label is not None:
        own, wanted = own & (matches.found.classes == label), wanted & (matches.truth.classes == label)
    return matches.scores[own], matches.hits[own], int(wanted.sum())


def confusion(matches: Matches, score: float) -> Int64[np.ndarray, "K1 K1"]:
    """How often an object of a class (row) was found as a class (column), above `score`.

    The last row is background that was taken for an object, the last column objects that were not found.
    Detections find objects of their own class first, as in AP; those that are left then take objects that are
    left of other classes, the surest first, of which the one they overlap most.
    """
    classes = matches.classes
    sure = matches.scores >= score
    right, wrong, left = matches.hits & sure, matches.misses & sure, matches.not_found(score)
    taken_for = np.full(len(matches.scores), classes)  # the class of the object that is not its own
    pairs = pairs_of_all_classes(matches, IOU)
    possible = np.flatnonzero(wrong[pairs.found] & left[pairs.truth])
    order = np.lexsort((-pairs.ious[possible], -matches.scores[pairs.found[possible]]))
    for pair in possible[order].tolist():
        found, truth = pairs.found[pair], pairs.truth[pair]
        if left[truth] and taken_for[found] == classes:
            left[truth], taken_for[found] = False, matches.truth.classes[truth]
    table = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(table, (matches.found.classes[right], matches.found.classes[right]), 1)
    np.add.at(table, (taken_for[wrong], matches.found.classes[wrong]), 1)
    np.add.at(table[:, classes], matches.truth.classes[left], 1)
    return table


def calibration(scores: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"]) -> dict[str, Any]:
    """`bins` that hold something, and the expected calibration `error` (arXiv 1706.04599); none of no scores.

    That is how far a score is from the share that is right, on average. A bin has two bounds, `low` and
    `high`, the number of scores between them, their mean, and the share that is correct.
    """
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins, off = [], 0.0
    for place in np.unique(places).tolist():
        own = places == place
        mean, share = float(scores[own].mean()), float(right[own].mean())
        bins.append({"low": place / BINS, "high": (place + 1) / BINS, "count": int(own.sum())})
        bins[-1] |= {"score": mean, "right": share}
        off += abs(mean - share) * bins[-1]["count"]
    return {"bins": bins, "error": off / len(scores) if bins else None}
