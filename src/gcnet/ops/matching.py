"""Which candidate box answers for which object, and which candidates a training step looks at.

A candidates (anchors or proposals), G objects.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gcnet.ops.boxes import box_iou

# Chooses at most `count` of the given indices.
Sampler = Callable[[Int64[Tensor, " A"], int], Int64[Tensor, " B"]]

BACKGROUND = -1
IGNORED = -2


def match_boxes(
    candidates: Float[Tensor, "A 4"],
    objects: Float[Tensor, "G 4"],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None,
) -> Int64[Tensor, " A"]:
    """The object index of each candidate, or `BACKGROUND`, or `IGNORED` between the two thresholds.

    With `low_quality_iou` every object also takes the candidates that overlap it most, however little
    above that value, so that none goes unmatched; a later object wins a shared candidate (as upstream).
    """
    if len(objects) == 0 or len(candidates) == 0:
        return torch.full((len(candidates),), BACKGROUND, dtype=torch.int64, device=candidates.device)
    iou = box_iou(objects, candidates)
    best_iou, best_object = iou.max(dim=0)
    matches = torch.full_like(best_object, IGNORED)
    matches[best_iou < negative_iou] = BACKGROUND
    matches = torch.where(best_iou >= positive_iou, best_object, matches)
    if low_quality_iou is None:
        return matches
    best_of_object = iou.max(dim=1, keepdim=True).values
    forced = (iou == best_of_object) & (best_of_object >= low_quality_iou)
    # The last object wins: argmax of the reversed rows finds it without a loop.
    last = len(objects) - 1 - forced.flip(0).to(torch.uint8).argmax(dim=0)
    return torch.where(forced.any(dim=0), last, matches)


def random_sample(indices: Int64[Tensor, " A"], count: int) -> Int64[Tensor, " B"]:
    """`count` of `indices` drawn without replacement by torch's generator, in ascending order."""
    if len(indices) <= count:
        return indices
    chosen = torch.randperm(len(indices), device=indices.device)[:count]
    return indices[chosen].sort().values


def sample_matches(
    matches: Int64[Tensor, " A"],
    *,
    batch_size: int,
    positive_fraction: float,
    sample: Sampler,
    allowed: Bool[Tensor, " A"] | None = None,
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " Q"]]:
    """Indices of the positive and negative candidates to train on.

    At most `positive_fraction` of `batch_size` are positive; negatives fill what is left.
    """
    positive, negative = matches >= 0, matches == BACKGROUND
    if allowed is not None:
        positive, negative = positive & allowed, negative & allowed
    chosen = sample(positive.nonzero().flatten(), int(batch_size * positive_fraction))
    rest = sample(negative.nonzero().flatten(), batch_size - len(chosen))
    return chosen, rest
