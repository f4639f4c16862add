"""Which model an mmdetection checkpoint holds: from the shapes of its tensors, its name and what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.spec import ModelSpec, Norm
from gcnet.weights.cache import sha256
from gcnet.weights.catalog import ROWS, Row
from gcnet.weights.checkpoint_files import Checkpoint
from gcnet.weights.coco_classes import COCO_CLASSES
from gcnet.weights.mmdet_keys import is_version_1, modernise
from gcnet.weights.structure import read_structure, structure_of


@dataclass(frozen=True)
class Identified:
    """What a file holds.

    Attributes:
        spec: the model, with the file's own classes.
        row_name: of the catalog row that the model is, or None if it is none of them.
        note: one line on what had to be assumed, or on a name that does not fit; None if there is nothing.
    """

    spec: ModelSpec
    row_name: str | None
    note: str | None


def identify(path: Path, checkpoint: Checkpoint, *, class_names: Sequence[str] | None = None) -> Identified:
    """The model that a checkpoint of mmdetection 1.x, 2.x or 3.x, or of the GCNet authors, holds.

    The shapes of its tensors decide. They cannot tell rows that differ in how their norm was trained; for
    that the file's hash, its name, its config and its batch counts are asked, in this order. It matters
    for training on only: the predictions are the same.

    Args:
        class_names: one name for each class, where the file does not say them (or says others).

    Raises:
        GCNetError: it is another kind of model, or its class names are unknown.
    """
    tensors = modernise(checkpoint.tensors)
    structure, num_classes = read_structure(tensors, source=str(path))
    names = _class_names(path, checkpoint, num_classes, class_names)
    candidates = [row for row in ROWS if structure_of(row.spec) == structure]
    row, norm, note = _choose(path, checkpoint, tensors, candidates)
    if row is not None:
        spec = replace(row.spec, class_names=names)
    else:
        backbone = replace(structure.backbone, norm=norm)
        spec = replace(structure, name=path.stem, class_names=names, backbone=backbone)
    if is_version_1(checkpoint.tensors):
        spec = replace(spec, coordinates="inclusive")
    return Identified(spec, row.name if row else None, _misnamed(path, candidates) or note)


def _choose(
    path: Path, checkpoint: Checkpoint, tensors: Mapping[str, Tensor], candidates: Sequence[Row]
) -> tuple[Row | None, Norm, str | None]:
    """The row among those of the right structure, the norm where there is none, and what was assumed."""
    if len(candidates) == 1:
        return candidates[0], "frozen_stats", None
    if candidates:
        digest = sha256(path)
        if row := next((r for r in candidates if r.weights and digest.startswith(r.weights.sha256)), None):
            return row, "frozen_stats", None
        if row := _named(path, candidates):
            return row, "frozen_stats", None
    norm = _said_norm(path, checkpoint) or _counted_norm(tensors)
    note = None
    if norm is None:
        norm = "frozen_stats"
        note = "it does not say how its norm was trained: taken as frozen, which matters for training only"
    return next((row for row in candidates if row.spec.backbone.norm == norm), None), norm, note


def _named(path: Path, rows: Sequence[Row]) -> Row | None:
    """The row whose name, ours or upstream's, is the longest in the file's name."""
    found = [
        (len(name), row)
        for row in rows
        for name in (row.name, *row.upstream)
        if re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z0-9]|_gc|_dcn|_syncbn|_4conv)", path.name)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _misnamed(path: Path, candidates: Sequence[Row]) -> str | None:
    row = _named(path, ROWS)
    if row is None or row in candidates:
        return None
    return f"it is named like {row.name}, but holds another model"


def _said_norm(path: Path, checkpoint: Checkpoint) -> Norm | None:
    """From the config or the file's name. Upstream's words for them are SyncBN, and BN with norm_eval."""
    config = checkpoint.config or ""
    if "SyncBN" in config or "syncbn" in path.name.lower():
        return "sync"
    return "frozen_stats" if "norm_eval=True" in config.replace(" ", "") else None


def _counted_norm(tensors: Mapping[str, Tensor]) -> Norm | None:
    """A norm that is trained counts its batches; one with frozen statistics stays where ImageNet left it."""
    counts = [
        int(tensor)
        for name, tensor in tensors.items()
        if re.match(r"backbone\.layer[234]\..*num_batches_tracked$", name) and tensor.numel() == 1
    ]
    if not counts:
        return None
    return "sync" if max(counts) > 0 else "frozen_stats"


def _class_names(
    path: Path, checkpoint: Checkpoint, count: int, given: Sequence[str] | None
) -> tuple[str, ...]:
    if given is not None:
        if len(given) != count:
            raise GCNetError(f"{path} knows {count} classes, but {len(given)} class names were given")
        return tuple(given)
    if checkpoint.class_names is not None and len(checkpoint.class_names) == count:
        return checkpoint.class_names
    if count == len(COCO_CLASSES):
        return COCO_CLASSES
    said = f"names {len(checkpoint.class_names)}" if checkpoint.class_names else "does not name them"
    raise GCNetError(
        f"{path} knows {count} classes but {said}: say what they are, in the order of its labels, with "
        f"`gcnet convert {path} {path.stem}.safetensors --class-names NAME ...`"
    )
