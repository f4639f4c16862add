"""Matches candidate boxes with objects, and samples candidates for training.

N images, A candidates (anchors or proposals) of each, G objects, I regions to ignore, B sampled candidates
of each image.

Nothing here makes the CPU wait for a GPU: samples have a fixed size, with a mask of those that count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from gcnet.ops.boxes import box_area, box_iou, box_overlap

# Chooses of each image at most `limit`, and never more than B, of the marked candidates: a function of
# (marked (N, A), limit (N), B) to indices (N, b), b <= B, and to what of them counts.
Sampler = Callable[
    [Bool[Tensor, "N A"], Int64[Tensor, " N"], int], tuple[Int64[Tensor, "N b"], Bool[Tensor, "N b"]]
]

BACKGROUND = -1
IGNORED = -2
PAIRS = 1 << 22  # of an object and a candidate that are looked at together: 16 MB for each number of a pair
MISSING = -100  # label of an empty row of a sample; cross-entropy ignores it


def match_boxes(
    candidates: Float[Tensor, "*N A 4"],
    objects: Float[Tensor, "*N G 4"],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None,
    real: Bool[Tensor, "*N G"] | None = None,
    valid: Bool[Tensor, "*N A"] | None = None,
    ignored: Float[Tensor, "*N I 4"] | None = None,
) -> Int64[Tensor, "*N A"]:
    """The object index of each candidate, or `BACKGROUND`, or `IGNORED` between the two thresholds.

    Objects that are not `real` only fill up the rows of an image. Candidates that are not `valid`, or lie by
    more than half of their area in a region that is to be `ignored`, are ignored and no object's best (as
    mmdetection's `ignore_iof_thr`). With `low_quality_iou` every object also takes the candidates that
    overlap it most, however little above that value, so that none goes unmatched; a later object wins a
    shared candidate (as upstream). Objects are looked at some at a time, so that memory does not grow with
    them.
    """
    best_iou = candidates.new_zeros(candidates.shape[:-1])
    if ignored is not None and ignored.shape[-2]:
        free = _outside(candidates, ignored)
        valid = free if valid is None else valid & free
    if valid is not None:
        best_iou = best_iou.where(valid, -1)
    best_object = torch.zeros_like(best_iou, dtype=torch.int64)
    forced = torch.full_like(best_iou, -1, dtype=torch.int32)  # the last object that takes a candidate
    step = _rows(candidates) if candidates.numel() else 0
    for first in range(0, objects.shape[-2] if step else 0, max(step, 1)):
        some = objects[..., first : first + step, :]
        iou = box_iou(some, candidates)
        if real is not None:
            iou = iou.where(real[..., first : first + step, None], -1)
        if valid is not None:
            iou = iou.where(valid[..., None, :], -1)
        best = iou.max(dim=-2)
        best_object = torch.where(best.values > best_iou, best.indices + first, best_object)
        best_iou = torch.maximum(best.values, best_iou)
        if low_quality_iou is not None:
            best_of_object = iou.amax(dim=-1, keepdim=True)
            marked = (iou == best_of_object) & (best_of_object >= low_quality_iou)
            number = torch.arange(first + 1, first + 1 + iou.shape[-2], dtype=torch.int32, device=iou.device)
            forced = torch.maximum(forced, (marked * number[:, None]).amax(dim=-2) - 1)
    matches = torch.where(best_iou >= positive_iou, best_object, IGNORED)
    matches = matches.where((best_iou >= negative_iou) | (best_iou < 0), BACKGROUND)
    return torch.where(forced < 0, matches, forced.long())


def fill_up(rows: Sequence[Shaped[Tensor, "_G *_"]]) -> tuple[Shaped[Tensor, "N G *_"], Bool[Tensor, "N G"]]:
    """The rows of N images in one tensor, zeros at the end of the shorter ones, and which rows are real."""
    real = [torch.ones(own.shape[0], dtype=torch.bool, device=own.device) for own in rows]
    return pad_sequence(list(rows), batch_first=True), pad_sequence(real, batch_first=True)


def take_rows(
    rows: Sequence[Shaped[Tensor, "_G *_"]], index: Int64[Tensor, "N B"]
) -> Shaped[Tensor, "N B *_"]:
    """The rows of each image that `index` names; all images have one more, of zeros, so that there is one."""
    values, _ = fill_up(rows)
    values = torch.cat([values, values.new_zeros(len(values), 1, *values.shape[2:])], dim=1)
    return values[torch.arange(len(values), device=index.device)[:, None], index]


def ignored_regions(
    regions: Sequence[Float[Tensor, "_I 4"] | None],
) -> Float[Tensor, "N I 4"] | None:
    """The regions of N images in one tensor; those without area fill up the rows."""
    found = next((own for own in regions if own is not None), None)
    if found is None:
        return None
    return fill_up([found.new_zeros(0, 4) if own is None else own for own in regions])[0]


def _outside(candidates: Float[Tensor, "*N A 4"], regions: Float[Tensor, "*N I 4"]) -> Bool[Tensor, "*N A"]:
    """The candidates of which at most half lies in any one of the regions."""
    most = candidates.new_zeros(candidates.shape[:-1])
    if candidates.numel():
        for some in regions.split(_rows(candidates), dim=-2):
            most = torch.maximum(most, box_overlap(some, candidates).amax(dim=-2))
    return most <= box_area(candidates) / 2


def _rows(candidates: Float[Tensor, "*N A 4"]) -> int:
    """The number of objects that are compared with all candidates at a time."""
    pairs = PAIRS if candidates.device.type == "cpu" else 8 * PAIRS  # launches cost a GPU more than memory
    return max(pairs * 4 // candidates.numel(), 1)


def random_sample(
    marked: Bool[Tensor, "N A"], limit: Int64[Tensor, " N"], size: int
) -> tuple[Int64[Tensor, "N b"], Bool[Tensor, "N b"]]:
    """Draws without replacement: takes the entries with the largest random numbers of torch."""
    keys = torch.rand(marked.shape, device=marked.device).where(marked, -1)
    best = keys.topk(min(size, marked.shape[1]), dim=1)
    rank = torch.arange(best.indices.shape[1], device=marked.device)
    return best.indices, (best.values >= 0) & (rank < limit[:, None])


@dataclass(frozen=True)
class Sample:
    """The candidates of each image that are sampled for training: positives, then negatives.

    Where there are fewer than B of them, the rest is not `taken`, and its `index` without meaning.
    """

    index: Int64[Tensor, "N B"]
    positive: Bool[Tensor, "N B"]
    taken: Bool[Tensor, "N B"]


def sample_matches(
    matches: Int64[Tensor, "N A"], *, batch_size: int, positive_fraction: float, sample: Sampler
) -> Sample:
    """At most `positive_fraction` of `batch_size` are positive; negatives fill what is left."""
    most = int(batch_size * positive_fraction)
    limit = torch.full((len(matches),), most, device=matches.device)
    index, positive = sample(matches >= 0, limit, most)
    rest, negative = sample(matches == BACKGROUND, batch_size - positive.sum(dim=1), batch_size)
    index, taken = torch.cat([index, rest], dim=1), torch.cat([positive, negative], dim=1)
    positive = torch.cat([positive, torch.zeros_like(negative)], dim=1)
    spare = (0, max(batch_size - index.shape[1], 0))
    index, taken, positive = F.pad(index, spare), F.pad(taken, spare), F.pad(positive, spare)
    order = (~taken).byte().argsort(dim=1, stable=True)[:, :batch_size]
    return Sample(index.gather(1, order), positive.gather(1, order), taken.gather(1, order))
