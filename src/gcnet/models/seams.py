"""Merges the detections of several views: removes duplicates, and joins objects that a view's edge cuts.

V views, D detections, P pairs of them, M side of a mask, S side of a finer one. Boxes are xyxy in pixels of
the image.

Two views are compared in the area that both see, where two parts of one object agree. Two objects of one
view are never joined, because its own NMS kept both. So small objects are not taken for parts of a large one
behind them, which happens if boxes are compared by their overlap with the smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from gcnet.found import Found
from gcnet.models.tiles import View
from gcnet.ops.rle import MASK_THRESHOLD

SAME = 0.5  # from here on two overlap enough to be one, as in the detectors' own NMS
EDGE, LEAST_EDGE = 0.01, 2.0  # a box so near to the edge of its view is cut: a share of the view, and pixels
SAMPLES = 48  # a side: where two masks are compared
MASK_BYTES = 256_000_000  # that masks of an image take at most by being finer than they were found


@dataclass(frozen=True)
class _Seen:
    """The detections of all views; `cut` says which edge of its view cuts each: left, top, right, bottom."""

    found: Found
    views: Float[np.ndarray, "D 4"]
    cut: Bool[np.ndarray, "D 4"]


def join_views(found: Sequence[Found], views: Sequence[View], size: tuple[int, int]) -> Found:
    """The detections of the `views` of an image of `size`, merged, in pixels of the image.

    A whole object that two views see is the one of the better score; but where a tile sees all of what the
    whole image shows smaller, the tile is believed, in what it takes apart as well. One that is cut by a
    view's edge goes where a whole one covers it, which gets the better score; others that are cut are joined
    where they agree.
    """
    seen = _gather(found, views, size)
    pairs, shares = _compare(seen)
    scores, whole = seen.found.scores.copy(), np.logical_not(seen.cut.any(1))
    keep = np.ones(len(scores), bool)
    keep[_coarse(seen, pairs[whole[pairs].all(1)])] = False
    iou = 1 / ((1 / shares.clip(1e-6)).sum(1) - 1)
    for i, j in _by_score(pairs[whole[pairs].all(1) & (iou >= SAME)], scores):
        keep[j] &= not keep[i]
    parts: list[tuple[int, int]] = []
    for (i, j), (of_i, of_j) in zip(pairs.tolist(), shares.tolist(), strict=True):
        if not whole[i] and not whole[j]:
            parts += [(i, j)] * (max(of_i, of_j) >= SAME)
            continue
        for part, other, share in ((i, j, of_i), (j, i, of_j)):
            if whole[other] and keep[other] and not whole[part] and share >= SAME:
                keep[part] = False
                scores[other] = max(scores[other], scores[part])
    groups = _groups([pair for pair in parts if keep[list(pair)].all()])
    for group in groups:
        keep[group] = False
    alone = np.flatnonzero(keep)
    order = np.array([scores[i] for i in alone] + [scores[group].max() for group in groups], np.float32)
    joined = _join(seen.found, alone, groups, order)
    return joined[np.argsort(-order, kind="stable")]


def _gather(found: Sequence[Found], views: Sequence[View], size: tuple[int, int]) -> _Seen:
    """All detections in pixels of the image."""
    counts = [len(one) for one in found]
    regions = np.array([(v.left, v.top, v.right, v.bottom) for v in views], np.float32)
    where = np.repeat(regions, counts, axis=0)
    move = where[:, [0, 1, 0, 1]]
    boxes = np.concatenate([one.boxes for one in found]).astype(np.float32) + move
    frames = np.concatenate([one.frames for one in found]).astype(np.float32) + move
    probs = [one.mask_probs for one in found if one.mask_probs is not None]
    together = Found(
        boxes,
        np.concatenate([one.scores for one in found]).astype(np.float32),
        np.concatenate([one.labels for one in found]),
        np.concatenate(probs) if probs else None,
        size,
        frames,
    )
    sides = where[:, 2:] - where[:, :2]
    near = np.maximum(sides * EDGE, LEAST_EDGE)[:, [0, 1, 0, 1]]
    inside = where != np.array([0, 0, size[1], size[0]], np.float32)  # the edges of the image cut no objects
    return _Seen(together, where, (np.abs(boxes - where) <= near) & inside)


def _compare(seen: _Seen) -> tuple[Int64[np.ndarray, "P 2"], Float[np.ndarray, "P 2"]]:
    """Pairs of one class from two views that overlap, and the share of each that lies in the other.

    Shares are of what lies where both views look.
    """
    boxes, labels = seen.found.boxes, seen.found.labels
    order = np.lexsort((boxes[:, 0], labels))
    # Those that begin before a box ends, left to right, in its class.
    far = np.float64(max(seen.found.image_size) + 1)
    keys = labels[order] * far + boxes[order, 0]
    ends = np.searchsorted(keys, labels[order] * far + boxes[order, 2])
    pairs, shares = [], []
    for place, i in enumerate(order):
        others = order[place + 1 : ends[place]]
        others = others[
            (boxes[others, 1] < boxes[i, 3])
            & (boxes[others, 3] > boxes[i, 1])
            & (seen.views[others] != seen.views[i]).any(1)
        ]
        for j in others:
            share = _shares(seen, int(i), int(j))
            if max(share) >= SAME:
                pairs.append((int(i), int(j)))
                shares.append(share)
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(shares, np.float32).reshape(-1, 2)


def _coarse(seen: _Seen, pairs: Int64[np.ndarray, "Q 2"]) -> Int64[np.ndarray, " _"]:
    """Of each pair, the detection from a larger view, if it lies wholly in the smaller one."""
    sides = seen.views[:, 2:] - seen.views[:, :2]
    area = sides.prod(1)
    larger = np.where((area[pairs[:, 0]] > area[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    coarse, fine = larger[:, 0], larger[:, 1]
    boxes, views = seen.found.boxes[coarse], seen.views[fine]
    inside = (boxes[:, :2] >= views[:, :2]) & (boxes[:, 2:] <= views[:, 2:])
    return coarse[inside.all(1) & (area[coarse] > area[fine])]


def _shares(seen: _Seen, i: int, j: int) -> tuple[float, float]:
    """The share of i that lies in j, and the share of j that lies in i.

    If the views cut both, only the area that both views see counts.
    """
    frames = seen.found.frames
    low, high = np.full(2, -np.inf), np.full(2, np.inf)
    if seen.cut[i].any() and seen.cut[j].any():
        low = np.maximum(seen.views[i, :2], seen.views[j, :2])
        high = np.minimum(seen.views[i, 2:], seen.views[j, 2:])
    both, of_i, of_j = (
        _area(
            seen.found,
            some,
            np.maximum(low, frames[some, :2].max(0)),
            np.minimum(high, frames[some, 2:].min(0)),
        )
        for some in ([i, j], [i], [j])
    )
    return min(both / max(of_i, 1e-6), 1.0), min(both / max(of_j, 1e-6), 1.0)


def _area(found: Found, some: list[int], low: np.ndarray, high: np.ndarray) -> float:
    """The pixels between `low` and `high` (x, y) that lie in the masks of all of `some`."""
    if (high <= low).any():
        return 0.0
    count = np.minimum(np.ceil((high - low) * 2), SAMPLES).astype(int)  # two samples a pixel say all
    inside = [_sample(found, one, low, high, count) >= MASK_THRESHOLD for one in some]
    return float(np.logical_and.reduce(inside).mean() * (high - low).prod())


def _sample(
    found: Found, i: int, low: np.ndarray, high: np.ndarray, count: Int64[np.ndarray, " 2"]
) -> Float[np.ndarray, "_h _w"]:
    """The mask of i, or its box, on a grid of `count` (x, y) points over [low, high]."""
    if found.mask_probs is None:  # `low` and `high` lie in it
        return np.ones((count[1], count[0]), np.float32)
    probs = found.mask_probs[i]
    begin, end = found.frames[i, :2].tolist(), found.frames[i, 2:].tolist()
    places = zip(low.tolist(), high.tolist(), count.tolist(), begin, end, strict=True)
    across, down = (_hats(*place, len(probs)) for place in places)
    return down @ probs @ across.T


def _hats(low: float, high: float, count: int, begin: float, end: float, grid: int) -> np.ndarray:
    """How much each of `grid` cells over [begin, end] counts at `count` even points in [low, high]."""
    points = low + (np.arange(count, dtype=np.float32) + 0.5) * ((high - low) / count)
    positions = (points - begin) / max(end - begin, 1e-6) * grid - 0.5
    return (1 - np.abs(positions[:, None] - np.arange(grid, dtype=np.float32))).clip(0).astype(np.float32)


def _by_score(pairs: Int64[np.ndarray, "P 2"], scores: Float[np.ndarray, " D"]) -> list[list[int]]:
    """The pairs, each with the better one first, and those with the best ones first."""
    worse = scores[pairs[:, 0]] < scores[pairs[:, 1]]
    pairs = np.where(worse[:, None], pairs[:, ::-1], pairs)
    return pairs[np.argsort(-scores[pairs[:, 0]], kind="stable")].tolist()


def _groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Numbers the groups of detections that pairs connect."""
    group_of: dict[int, list[int]] = {}
    for i, j in pairs:
        first, second = group_of.setdefault(i, [i]), group_of.setdefault(j, [j])
        if first is not second:
            first += second
            group_of.update(dict.fromkeys(second, first))
    return list({id(group): sorted(group) for group in group_of.values()}.values())


def _join(
    found: Found, alone: Int64[np.ndarray, " A"], groups: Sequence[list[int]], scores: Float[np.ndarray, " D"]
) -> Found:
    """Those that stay `alone`, then one for each of the groups: the unions of its masks and of its boxes."""
    first = [group[int(found.scores[group].argmax())] for group in groups]
    labels = found.labels[np.concatenate([alone, np.array(first, np.int64)])]
    boxes, frames = (
        np.concatenate([array[alone], *(_around(array[group])[None] for group in groups)])
        for array in (found.boxes, found.frames)
    )
    if found.mask_probs is None or not groups:
        probs = None if found.mask_probs is None else found.mask_probs[alone]
        return Found(boxes, scores, labels, probs, found.image_size, frames)
    fineness = _fineness(found, groups, frames[len(alone) :], len(labels))
    masks, wider = _refine(found.mask_probs[alone], found.frames[alone], fineness)
    side = masks.shape[1]
    probs = np.empty((len(labels), side, side), np.float32)
    probs[: len(alone)], frames[: len(alone)] = masks, wider
    for place, group in enumerate(groups, len(alone)):
        low, high, count = frames[place, :2], frames[place, 2:], np.array([side, side])
        probs[place] = np.max([_sample(found, i, low, high, count) for i in group], axis=0)
    return Found(boxes, scores, labels, probs, found.image_size, frames)


def _around(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " 4"]:
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def _fineness(found: Found, groups: Sequence[list[int]], frames: Float[np.ndarray, "G 4"], count: int) -> int:
    """The factor by which the grids of joined masks must be finer to stay as sharp."""
    assert found.mask_probs is not None
    sides = found.frames[:, 2:] - found.frames[:, :2]
    largest = [group[int(sides[group].prod(1).argmax())] for group in groups]
    times = ((frames[:, 2:] - frames[:, :2]) / np.maximum(sides[largest], 1)).max()
    grid = found.mask_probs.shape[1]
    most = np.sqrt(MASK_BYTES / 4 / count) / (grid + 1)
    return int(max(min(np.ceil(times), most), 1))


def _refine(
    probs: Float[np.ndarray, "A M M"], frames: Float[np.ndarray, "A 4"], times: int
) -> tuple[Float[np.ndarray, "A S S"], Float[np.ndarray, "A 4"]]:
    """The same masks on grids so many times finer, and their frames.

    Bilinear sampling of a mask is linear between the middles of its cells, and outwards of the last ones to
    those of empty cells around. Middles of the smaller cells lie on all of these: nothing changes.
    """
    grid = probs.shape[1]
    side = times * (grid + 1) - 1
    beyond = (0.5 - 0.5 / times) / grid  # of the frame, on each side
    weights = _hats(-beyond, 1 + beyond, side, 0.0, 1.0, grid)
    sizes = frames[:, 2:] - frames[:, :2]
    wider = np.concatenate([frames[:, :2] - beyond * sizes, frames[:, 2:] + beyond * sizes], 1)
    return weights @ probs @ weights.T, wider
