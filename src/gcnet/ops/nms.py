"""Non-maximum suppression within groups (classes or pyramid levels).

R boxes, L rows for those that are kept.

The operator is loaded from torchvision's compiled library. Importing the package torchvision would also
import its models and PyTorch's compiler, which takes longer than all other imports of a prediction.
Derivatives are defined only in the package, which training imports.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

LIBRARIES = ("_C_stable", "_C")  # of torchvision from 0.27 on, and before
# From here on the coordinate offsets of `grouped_nms` would cost float32 precision; upstream switches here.
SPLIT_THRESHOLD = 10_000


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
    boxes: Float[Tensor, "R 4"],
    scores: Float[Tensor, " R"],
    groups: Int64[Tensor, " R"],
    iou_threshold: float,
    limit: int,
) -> tuple[Int64[Tensor, " L"], Bool[Tensor, " L"]]:
    """The first of `grouped_nms` in L = min(limit, R) places: indices, and which places are filled.

    Only the operator's own result has a shape that depends on values, and it is used as an index alone.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept = kept.index_fill(0, nms(_apart(boxes, groups), scores, iou_threshold), True)
    order = scores.where(kept, -torch.inf).argsort(descending=True, stable=True)[:limit]
    return order, kept[order]


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
