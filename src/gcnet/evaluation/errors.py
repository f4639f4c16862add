"""Kinds of error of a detector, and what AP would be without each: TIDE (arXiv 2008.08115).

The definitions are those of section 2.2, checked in the order of its authors' own tool, at IoU 0.5 and for
all areas. N1 objects, N2 detections, E pairs of both, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from gcnet.evaluation.average_precision import Matches, pairs_of_all_classes, precision_at

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU from which on an object is found, and from which on it is meant
KINDS = ("class", "box", "both", "duplicate", "background", "missed")


@dataclass(frozen=True)
class Errors:
    """The kind of error of each detection, and the objects that no detection is near.

    `kind` is one of `KINDS`, "" for what is right or does not count; `meant` is the object that a
    detection overlaps most of those that its kind speaks of, -1 for none; `ious` says by how much.
    """

    kind: Shaped[np.ndarray, " N2"]
    meant: Int64[np.ndarray, " N2"]
    ious: Float[np.ndarray, " N2"]
    missed: Bool[np.ndarray, " N1"]

    def counts(self) -> dict[str, int]:
        """The number of errors of each kind."""
        counts = {kind: int((self.kind == kind).sum()) for kind in KINDS}
        return counts | {"missed": int(self.missed.sum())}


def find_errors(matches: Matches) -> Errors:
    """The kind of each wrong detection.

    - box: it overlaps an object of its class, by 0.1 or more and less than 0.5;
    - class: it overlaps an object of another class by 0.5 or more;
    - duplicate: the object of its class that it overlaps by 0.5 or more is found by a surer one;
    - both: it overlaps an object of another class by 0.1 or more and less than 0.5;
    - background: it overlaps none by 0.1.

    An object is missed if it is not found and no error of box or class is about it.
    """
    count = len(matches.scores)
    pairs = pairs_of_all_classes(matches, BACKGROUND)
    real = matches.wanted[pairs.truth]
    same = matches.found.classes[pairs.found] == matches.truth.classes[pairs.truth]

    def best(of: Bool[np.ndarray, " E"]) -> tuple[Int64[np.ndarray, " N2"], Float[np.ndarray, " N2"]]:
        """The object that each detection overlaps most."""
        rows = np.flatnonzero(of & real)
        rows = rows[np.lexsort((-pairs.truth[rows], pairs.ious[rows]))]  # the last one stays
        meant, ious = np.full(count, -1), np.zeros(count)
        meant[pairs.found[rows]], ious[pairs.found[rows]] = pairs.truth[rows], pairs.ious[rows]
        return meant, ious

    (own, own_iou), (other, other_iou) = best(same), best(~same)
    conditions = {
        "box": (own_iou >= BACKGROUND) & (own_iou < FOREGROUND),
        "class": other_iou >= FOREGROUND,
        "duplicate": own_iou >= FOREGROUND,
        "both": other_iou >= BACKGROUND,
        "background": np.ones(count, bool),
    }
    kind = np.where(matches.misses, np.select(list(conditions.values()), list(conditions), ""), "")
    of_other = np.isin(kind, ["class", "both"])
    meant, ious = np.where(of_other, other, own), np.where(of_other, other_iou, own_iou)
    missed = matches.not_found()
    missed[meant[np.isin(kind, ["class", "box"])]] = False
    return Errors(kind, meant, ious, missed)


def gains(matches: Matches, errors: Errors) -> dict[str, float]:
    """By how much AP50 would rise if all errors of one kind were corrected, for each kind.

    A wrong class or box is put right if no surer detection finds its object, else it is taken away, as all
    other wrong ones are; of missed objects nobody knows.
    """
    right, wrong = matches.hits, matches.misses
    before = _ap50(matches, matches.found.classes, right, wrong, matches.wanted)
    gained = {}
    first = _first_of_each(matches, errors)
    for name in KINDS:
        own = errors.kind == name
        classes, wanted = matches.found.classes, matches.wanted
        mended = own & first
        if name == "class":
            classes = classes.copy()
            classes[mended] = matches.truth.classes[errors.meant[mended]]
        if name == "missed":
            wanted = wanted & ~errors.missed
        after = _ap50(matches, classes, right | mended, wrong & ~own, wanted)
        gained[name] = max(after - before, 0.0)
    return gained


def _first_of_each(matches: Matches, errors: Errors) -> Bool[np.ndarray, " N2"]:
    """Wrong classes and boxes that are the surest about an object that is not found."""
    rows = np.flatnonzero(np.isin(errors.kind, ["class", "box"]))
    rows = rows[matches.not_found()[errors.meant[rows]]]
    rows = rows[np.argsort(-matches.scores[rows], kind="stable")]
    _, firsts = np.unique(errors.meant[rows], return_index=True)
    is_first = np.zeros(len(matches.scores), bool)
    is_first[rows[firsts]] = True
    return is_first


def _ap50(
    matches: Matches,
    classes: Int64[np.ndarray, " N2"],
    right: Bool[np.ndarray, " N2"],
    wrong: Bool[np.ndarray, " N2"],
    wanted: Bool[np.ndarray, " N1"],
) -> float:
    """Mean over the classes that have something to find, of detections that are of `classes`."""
    order = np.argsort(-matches.scores, kind="stable")
    counts = np.bincount(matches.truth.classes[wanted], minlength=matches.classes)
    values = []
    for label in np.flatnonzero(counts).tolist():
        own = order[classes[order] == label]
        values.append(precision_at(right[own, None], wrong[own, None], int(counts[label])).mean())
    return float(np.mean(values)) if values else 0.0
