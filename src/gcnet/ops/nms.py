"""Non-maximum suppression within groups (classes or pyramid levels).

R boxes, L rows for those that are kept, N independent sets of boxes.

The operator is loaded from torchvision's compiled library. Importing the package torchvision would also
import its models and PyTorch's compiler, which takes longer than all other imports of a prediction.
Derivatives are defined only in the package, which training imports.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from gcnet.device import on_gpu
from gcnet.ops.boxes import box_iou, take_boxes

LIBRARIES = ("_C_stable", "_C")  # of torchvision from 0.27 on, and before
# From here on the coordinate offsets of `grouped_nms` would cost float32 precision; upstream switches here.
SPLIT_THRESHOLD = 10_000
ROUNDS = 16  # of `parallel_nms`, before it asks if it is done
PAIRS = 1 << 24  # of boxes that it compares at a time: 64 MB for each number of a pair

_unsettled: ContextVar[list[Tensor] | None] = ContextVar("_unsettled", default=None)


def grouped_nms(
    boxes: Float[Tensor, "R 4"],
    scores: Float[Tensor, " R"],
    groups: Int64[Tensor, " R"],
    iou_threshold: float,
) -> Int64[Tensor, " K"]:
    """Indices of the boxes kept, best score first; only boxes of one group suppress each other.

    A box goes when its overlap with a better one is strictly greater than `iou_threshold`. A call for each
    group does not compare boxes of different groups: a fifth of the pairs of five levels.
    """
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if len(boxes) < SPLIT_THRESHOLD:
        boxes = _apart(boxes, groups)
    kept = [
        members[nms(boxes[members], scores[members], iou_threshold)]
        for members in ((groups == group).nonzero().flatten() for group in groups.unique())
    ]
    keep = torch.cat(kept).sort().values
    return keep[scores[keep].argsort(descending=True, stable=True)]


def grouped_nms_static(
    boxes: Float[Tensor, "N R 4"],
    scores: Float[Tensor, "N R"],
    groups: Int64[Tensor, "N R"],
    iou_threshold: float,
    limit: int,
    *,
    sizes: Sequence[int] | None = None,
) -> tuple[Int64[Tensor, "N L"], Bool[Tensor, "N L"]]:
    """The first of `grouped_nms` in L = min(limit, R) places: indices, and which places are filled.

    `sizes` are those of the groups if each stands together: then fewer pairs are compared on a GPU.
    """
    if not on_gpu(boxes):
        kept = torch.stack([_kept(*own, iou_threshold) for own in zip(boxes, scores, groups, strict=True)])
    elif sizes is None:
        kept = parallel_nms(boxes, scores, iou_threshold, groups=groups)
    else:
        most = max(sizes)  # a box without area overlaps none
        boxes = torch.stack([F.pad(b, (0, 0, 0, most - b.shape[1])) for b in boxes.split(sizes, 1)], 1)
        padded = torch.stack([F.pad(s, (0, most - s.shape[1])) for s in scores.split(sizes, 1)], 1)
        kept = parallel_nms(boxes.flatten(0, 1), padded.flatten(0, 1), iou_threshold).view_as(padded)
        kept = torch.cat([kept[:, group, :size] for group, size in enumerate(sizes)], 1)
    order = scores.where(kept, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :limit]
    return order, kept.gather(1, order)


def soft_nms(
    boxes: Float[Tensor, "N R 4"],
    scores: Float[Tensor, "N R"],
    groups: Int64[Tensor, "N R"],
    limit: int,
    *,
    iou_threshold: float,
    sigma: float | None,
    min_score: float,
) -> tuple[Int64[Tensor, "N L"], Float[Tensor, "N L"]]:
    """Soft NMS (arXiv 1704.04503) of N sets: the best L = min(limit, R) boxes and their scores, best first.

    The best box multiplies the scores of the others of its group by 1 - IoU, where that is at least
    `iou_threshold`, or with `sigma` by exp(-IoU^2 / sigma); then the best of the rest does the same.
    Scores below `min_score` become 0. Shapes are fixed, and a GPU is not waited for.
    """

    def step(left: Tensor, _: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        score, best = left.max(dim=1, keepdim=True)
        iou = box_iou(take_boxes(boxes, best), boxes)[:, 0].where(groups == groups.gather(1, best), 0)
        weight = (1 - iou).where(iou >= iou_threshold, 1) if sigma is None else (-iou.square() / sigma).exp()
        left = left * weight
        return left.where(left >= min_score, 0).scatter(1, best, 0), (best[:, 0], score[:, 0])

    count = min(limit, scores.shape[1])
    if count == 0:
        return groups[:, :0], scores[:, :0]
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan  # a node, where the loop would be thousands

        begin = scores.clone(memory_format=torch.contiguous_format)
        _, (index, found) = scan(step, begin, torch.arange(count, device=scores.device))
        return index.T, found.T
    chosen = []
    for _ in range(count):
        scores, one = step(scores)
        chosen.append(one)
    index, found = zip(*chosen, strict=True)
    return torch.stack(index, 1), torch.stack(found, 1)


def _kept(
    boxes: Float[Tensor, "R 4"], scores: Float[Tensor, " R"], groups: Int64[Tensor, " R"], threshold: float
) -> Bool[Tensor, " R"]:
    # The operator's own result has a shape that depends on values, and it is used as an index alone.
    kept = torch.zeros_like(scores, dtype=torch.bool)
    return kept.index_fill(0, nms(_apart(boxes, groups), scores, threshold), True)


def parallel_nms(
    boxes: Float[Tensor, "N R 4"],
    scores: Float[Tensor, "N R"],
    iou_threshold: float,
    *,
    groups: Int64[Tensor, "N R"] | None = None,
) -> Bool[Tensor, "N R"]:
    """Which boxes are kept, for a GPU: no box waits for the one before it, and N sets are done at once.

    A box is kept if no better one that is kept overlaps it. Starting from all, each round is right for one
    more link of the longest chain of boxes of which each overlaps the next: 6 for a photograph, 22 for an
    image that is black. So the GPU is asked now and then if the last round changed something; see
    `without_waiting`.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    best = take_boxes(boxes, order).float()
    count, length = order.shape
    exact = torch.float32 if best.device.type == "cpu" else torch.float16  # of zeros and ones
    rivals = best.new_empty(count, length, length, dtype=exact)
    step = max(PAIRS // max(length, 1) ** 2, 1)
    for some, rows in zip(best.split(step), rivals.split(step), strict=True):
        rows.copy_(box_iou(some, some) > iou_threshold)
    rivals.triu_(diagonal=1)
    if groups is not None:
        group = groups.gather(1, order)
        rivals *= group[:, :, None] == group[:, None, :]
    kept = rivals.new_ones(count, 1, length)
    before = torch.empty_like(kept)
    while True:
        for _ in range(ROUNDS):
            before, kept = kept, torch.lt(torch.bmm(kept, rivals), 0.5, out=before)
        if not needs_more((before != kept).any()):
            return torch.zeros_like(order, dtype=torch.bool).scatter(1, order, kept[:, 0] > 0)


def needs_more(flag: Tensor) -> bool:
    """The flag's value, which a GPU is waited for; within `without_waiting` False, and it is noted there."""
    flags = _unsettled.get()
    if flags is None:
        return bool(flag)
    flags.append(flag)
    return False


@contextmanager
def without_waiting() -> Iterator[list[Tensor]]:
    """A context in which `needs_more` does not wait for the GPU: what would need more is left as it is.

    Gives the list of the flags. If one of them turns out to be true, the result is not right.
    """
    flags: list[Tensor] = []
    token = _unsettled.set(flags)
    try:
        yield flags
    finally:
        _unsettled.reset(token)


def _apart(boxes: Float[Tensor, "R 4"], groups: Int64[Tensor, " R"]) -> Float[Tensor, "R 4"]:
    """Boxes shifted so that boxes of different groups cannot overlap."""
    return boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]


def nms(
    boxes: Float[Tensor, "R 4"], scores: Float[Tensor, " R"], iou_threshold: float
) -> Int64[Tensor, " K"]:
    """torchvision.ops.nms: indices of the boxes kept, best score first."""
    return torch.ops.torchvision.nms(boxes.float(), scores.float(), iou_threshold)


def load_operators() -> None:
    """Loads `torch.ops.torchvision` from the compiled library if it is in its usual folder."""
    package = find_spec("torchvision")
    if "torchvision" not in sys.modules and package is not None and package.origin is not None:
        finder = FileFinder(str(Path(package.origin).parent), (ExtensionFileLoader, EXTENSION_SUFFIXES))
        for name in LIBRARIES:
            library = finder.find_spec(name)
            if library is not None and library.origin is not None:
                try:
                    torch.ops.load_library(library.origin)
                    return
                except OSError:  # it has needs that the package knows of
                    break
    import torchvision  # noqa: F401


load_operators()
