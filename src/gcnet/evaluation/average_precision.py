"""COCO's matching of detections with objects, and its precision and recall, over whole arrays at a time.

The figures are those of pycocotools' COCOeval, which does the same image by image; the tests compare them.

N detections or objects (N1 objects, N2 detections), E pairs of a detection and an object of its image, T IoU
thresholds, A area ranges (all, small, medium, large unless said otherwise), R recall levels, K classes,
M limits (1, 10) on an image's detections of a class. Boxes are x, y, width, height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64

from gcnet.ops.segmentations import coco_mask

NONE = -1.0  # COCO's value if there are no objects
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
LIMITS = (1, 10)
PAIRS = 1 << 22  # that are compared at a time, so that memory stays bounded where objects are thousands
LIMIT = 100  # detections of an image and class that count, by default


@dataclass(frozen=True)
class Objects:
    """Detections or annotated objects, as columns.

    `images` and `classes` count from 0; `areas` decide what is small, medium and large. `masks` are counts
    of compressed RLEs and `sizes` heights and widths of their images; without masks, boxes are compared.
    """

    images: Int64[np.ndarray, " N"]
    classes: Int64[np.ndarray, " N"]
    boxes: Float[np.ndarray, "N 4"]
    areas: Float[np.ndarray, " N"]
    sizes: Int64[np.ndarray, "N 2"]
    masks: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Int64[np.ndarray, " _N"] | Bool[np.ndarray, " N"]) -> Objects:
        """The rows that `index` selects, in its order."""
        masks = self.masks and [self.masks[i] for i in np.arange(len(self))[index].tolist()]
        rest = (self.boxes[index], self.areas[index], self.sizes[index])
        return Objects(self.images[index], self.classes[index], *rest, masks)


@dataclass(frozen=True)
class Matches:
    """Detections and the objects that they match, from which all figures are counted.

    Both stand in the order of images, in an image of classes, and detections of these with falling `scores`;
    `rank` is a detection's place among them. `match` is the object that a detection finds in a range of areas
    at an IoU threshold, -1 for none; `right` says that it is one that counts, `wrong` that there is none.
    What is neither found a crowd, or something of another size. `ignored` objects do not count in a range.
    `hits`, `misses` and `wanted` objects are those at IoU 0.5 in the first range, all areas by default.
    """

    truth: Objects
    crowd: Bool[np.ndarray, " N1"]
    ignored: Bool[np.ndarray, "N1 A"]
    found: Objects
    scores: Float[np.ndarray, " N2"]
    rank: Int64[np.ndarray, " N2"]
    match: Int32[np.ndarray, "N2 A T"]
    right: Bool[np.ndarray, "N2 A T"]
    wrong: Bool[np.ndarray, "N2 A T"]
    classes: int

    @property
    def hits(self) -> Bool[np.ndarray, " N2"]:
        return self.right[:, 0, 0]

    @property
    def misses(self) -> Bool[np.ndarray, " N2"]:
        return self.wrong[:, 0, 0]

    @property
    def wanted(self) -> Bool[np.ndarray, " N1"]:
        return ~self.ignored[:, 0]

    def not_found(self, least: float = 0.0) -> Bool[np.ndarray, " N1"]:
        """The wanted objects that are not hit by a detection with a score of `least` or more."""
        left = self.wanted
        left[self.match[self.hits & (self.scores >= least), 0, 0]] = False
        return left


@dataclass(frozen=True)
class Scores:
    """Precision at each level of recall, and the recall reached, also with fewer detections; -1 for none."""

    precision: Float[np.ndarray, "T R K A"]
    recall: Float[np.ndarray, "T K A"]
    limited: Float[np.ndarray, "T K M"]


def match(
    truth: Objects,
    crowd: Bool[np.ndarray, " N1"],
    found: Objects,
    scores: Float[np.ndarray, " N2"],
    classes: int,
    limit: int = LIMIT,
    areas: Float[np.ndarray, "A 2"] = AREAS,
) -> Matches:
    """Matches detections `found` with objects `truth`; crowd regions count neither way.

    Only the best `limit` detections of an image and class are looked at.
    """
    key = truth.images * classes + truth.classes
    order = np.argsort(key, kind="stable")
    truth, crowd, truth_key = truth.take(order), crowd[order], key[order]
    key = found.images * classes + found.classes
    order = np.lexsort((-scores, key))  # stable: equal scores stay in the order they came
    rank = _places(key[order])
    order, rank = order[rank < limit], rank[rank < limit]
    found, scores, found_key = found.take(order), scores[order], key[order]

    ignored = crowd[:, None] | _outside(truth.areas, areas)
    pairs = _pairs(truth, truth_key, crowd, found, found_key)
    matched, excused = _match(pairs, rank, ignored, crowd, len(found))
    hit = matched >= 0
    excused |= ~hit & _outside(found.areas, areas)[:, :, None]
    right, wrong = hit & ~excused, ~hit & ~excused
    return Matches(truth, crowd, ignored, found, scores, rank, matched, right, wrong, classes)


@dataclass(frozen=True)
class Pairs:
    """Pairs of a detection and an object of the same image that overlap enough."""

    found: Int64[np.ndarray, " E"]
    truth: Int64[np.ndarray, " E"]
    ious: Float[np.ndarray, " E"]


def pairs_of_all_classes(matches: Matches, least: float) -> Pairs:
    """Detections and objects, whatever their classes, that overlap by `least` or more."""
    truth, found = matches.truth, matches.found
    return _pairs(truth, truth.images, matches.crowd, found, found.images, least)


def _pairs(
    truth: Objects,
    truth_key: Int64[np.ndarray, " N1"],
    crowd: Bool[np.ndarray, " N1"],
    found: Objects,
    found_key: Int64[np.ndarray, " N2"],
    least: float = IOUS[0],
) -> Pairs:
    first = np.searchsorted(truth_key, found_key, "left")
    counts = np.searchsorted(truth_key, found_key, "right") - first
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for rows in np.split(np.arange(len(found)), np.flatnonzero(np.diff(counts.cumsum() // PAIRS)) + 1):
        part, from_, many = found.take(rows), first[rows], counts[rows]
        one = np.repeat(np.arange(len(rows)), many)
        other = np.arange(len(one)) + np.repeat(from_ - many.cumsum() + many, many)
        if part.masks is None or truth.masks is None:
            ious = _box_ious(part.boxes[one], truth.boxes[other], crowd[other])
        else:
            ious = _mask_ious(part, truth, crowd, found_key[rows], from_, many)
        near = ious >= least
        parts.append((rows[one[near]], other[near], ious[near]))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _box_ious(
    found: Float[np.ndarray, "E 4"], truth: Float[np.ndarray, "E 4"], crowd: Bool[np.ndarray, " E"]
) -> Float[np.ndarray, " E"]:
    """IoU; with a crowd, the share of the detection that lies in it."""
    low = np.maximum(found[:, :2], truth[:, :2])
    high = np.minimum(found[:, :2] + found[:, 2:], truth[:, :2] + truth[:, 2:])
    shared = (high - low).clip(0).prod(1)
    own = found[:, 2:].prod(1)
    union = np.where(crowd, own, own + truth[:, 2:].prod(1) - shared)
    return np.divide(shared, union, out=np.zeros(len(found)), where=shared > 0)


def _mask_ious(
    found: Objects,
    truth: Objects,
    crowd: Bool[np.ndarray, " N1"],
    found_key: Int64[np.ndarray, " N2"],
    first: Int64[np.ndarray, " N2"],
    counts: Int64[np.ndarray, " N2"],
) -> Float[np.ndarray, " E"]:
    """The same of masks, those of equal keys at a time: detection i beside `counts[i]` from `first[i]` on."""
    assert found.masks is not None
    assert truth.masks is not None
    starts = np.flatnonzero(np.diff(found_key, prepend=-1))
    stops = [*starts[1:].tolist(), len(found)]
    ious = [np.zeros(0)]
    for start, stop in zip(starts.tolist(), stops, strict=False):
        objects = slice(int(first[start]), int(first[start] + counts[start]))
        if counts[start]:
            size = found.sizes[start].tolist()
            own, other = _rles(found.masks[start:stop], size), _rles(truth.masks[objects], size)
            ious.append(np.ravel(coco_mask.iou(own, other, crowd[objects].astype(np.uint8))))
    return np.concatenate(ious)


def mask_areas(counts: list[bytes], size: Sequence[int]) -> Float[np.ndarray, " N"]:
    """Pixels of masks in an image of `size` (height, width), given as the counts of compressed RLEs."""
    # pycocotools counts the masks of one call in 8 bits.
    parts = [counts[start : start + 255] for start in range(0, len(counts), 255)]
    areas = [np.asarray(coco_mask.area(_rles(part, size)), np.float64) for part in parts]
    return np.concatenate([np.zeros(0), *areas])


def _rles(counts: list[bytes], size: Sequence[int]) -> list[dict[str, Any]]:
    return [{"size": size, "counts": text} for text in counts]


def _match(
    pairs: Pairs,
    rank: Int64[np.ndarray, " N2"],
    ignored: Bool[np.ndarray, "N1 A"],
    crowd: Bool[np.ndarray, " N1"],
    count: int,
) -> tuple[Int32[np.ndarray, "N2 A T"], Bool[np.ndarray, "N2 A T"]]:
    """The object that each detection matches, -1 for none, and whether that object is ignored.

    The best detection of an image and class chooses first, then the second best, and so on, in all images
    and at all thresholds at once. Each takes the object of the largest IoU that is left, the last of equal
    ones, and one that is ignored only if there is no other. A crowd can be found more than once.
    """
    order = np.lexsort((pairs.truth, pairs.ious, pairs.found, rank[pairs.found]))
    found, truth, ious = pairs.found[order], pairs.truth[order], pairs.ious[order]
    # A detection's pairs now stand in order of preference: their places are what is compared.
    places = np.arange(len(found)) + np.where(ignored[truth].T, 0, len(found))
    enough = ious[:, None] >= np.minimum(IOUS, 1 - 1e-10)
    shape = (ignored.shape[1], len(IOUS))
    taken = np.zeros((len(ignored), *shape), bool)
    match, excused = np.full((count, *shape), -1, np.int32), np.zeros((count, *shape), bool)
    bounds = np.searchsorted(rank[found], np.arange(rank.max(initial=-1) + 2))
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if start == stop:
            continue
        objects = truth[start:stop]
        free = enough[start:stop, None] & (crowd[objects][:, None, None] | ~taken[objects])
        wanted = np.where(free, places.T[start:stop, :, None], -1)
        first = np.flatnonzero(np.diff(found[start:stop], prepend=-1))
        best = np.maximum.reduceat(wanted, first)
        detection, area, threshold = (best >= 0).nonzero()
        chosen = best[detection, area, threshold]
        detection = found[start:stop][first][detection]
        chosen_truth = truth[chosen % len(found)]
        match[detection, area, threshold] = chosen_truth
        excused[detection, area, threshold] = chosen < len(found)
        taken[chosen_truth, area, threshold] = True
    return match, excused


def score(matches: Matches) -> Scores:
    """Precision and recall of detections among the objects of a data set."""
    count, areas = matches.classes, matches.ignored.shape[1]
    precision = np.full((len(IOUS), len(RECALLS), count, areas), NONE)
    recall = np.full((len(IOUS), count, areas), NONE)
    limited = np.full((len(IOUS), count, len(LIMITS)), NONE)
    for k, own in enumerate(rows_of_classes(matches)):
        wanted = (~matches.ignored[matches.truth.classes == k]).sum(0)
        for a in np.flatnonzero(wanted).tolist():
            hits, misses = matches.right[own, a], matches.wrong[own, a]
            recall[:, k, a] = hits.sum(0) / wanted[a]
            precision[:, :, k, a] = precision_at(hits, misses, int(wanted[a]))
            if a == 0:
                for m, limit in enumerate(LIMITS):
                    limited[:, k, m] = hits[matches.rank[own] < limit].sum(0) / wanted[a]
    return Scores(precision, recall, limited)


def rows_of_classes(matches: Matches) -> list[Int64[np.ndarray, " _D"]]:
    """Each class's detections by falling score; equal ones stay in order of images, as COCOeval has it."""
    classes = matches.found.classes
    order = np.lexsort((-matches.scores, classes))
    return np.split(order, np.searchsorted(classes[order], np.arange(1, matches.classes)))


def precision_at(
    right: Bool[np.ndarray, "D T"], wrong: Bool[np.ndarray, "D T"], wanted: int
) -> Float[np.ndarray, "T R"]:
    """The best precision at each recall or more, of detections sorted by score; 0 where it is not reached."""
    hits, misses = right.cumsum(0, dtype=float), wrong.cumsum(0, dtype=float)
    precision = hits / (misses + hits + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    padded = np.concatenate([precision, np.zeros((1, right.shape[1]))])
    places = [np.searchsorted(column, RECALLS) for column in (hits / wanted).T]
    return np.stack([column[place] for column, place in zip(padded.T, places, strict=True)])


def _outside(areas: Float[np.ndarray, " N"], ranges: Float[np.ndarray, "A 2"]) -> Bool[np.ndarray, "N A"]:
    return (areas[:, None] < ranges[:, 0]) | (areas[:, None] > ranges[:, 1])


def _places(key: Int[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """The index of each value in its run of equal values."""
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    counts = np.diff(starts, append=len(key))
    return np.arange(len(key)) - np.repeat(starts, counts)
