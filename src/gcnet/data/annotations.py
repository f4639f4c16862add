"""Turns annotations into data sets. Only here are faulty entries corrected or left out.

A reader gives a `Source` for each split. A value that is missing or wrong is computed from others where that
is possible; entries that are of no use are left out. Each kind of fault gives one warning, with the number of
cases and the first of them. Faults that leave nothing to learn from, or would teach something false, are
errors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from gcnet.console import listed, shown
from gcnet.data.categories import category_names, choose_classes, count_objects, warn_of_unlearnt
from gcnet.data.dataset import MIN_SIDE, DataSet, ImageRecord, Instance, collection_paused
from gcnet.data.listed_images import NO_SIZE, find_images, listed_sizes
from gcnet.data.source import Notes, Source, known, number, whole
from gcnet.errors import GCNetError
from gcnet.files import several
from gcnet.ops.segmentations import (
    LONGEST_OUTLINE,
    Segmentation,
    crop_segmentation,
    outline_bounds,
    outline_length,
    parse_segmentation,
    segmentation_area,
)

FLOAT32 = 1e-6  # share of a side that float32, the type of boxes in training, rounds to zero


def build_splits(
    sources: Mapping[str, Source], *, crowd_as_objects: bool = False
) -> dict[str, DataSet[ImageRecord]]:
    """The data sets of all splits, with the classes of the training split or else of the first one.

    Categories are matched by name. One that has objects in a later split but is not listed in the first
    is an error, unless no file lists them; one that has no objects to learn from gets a warning.
    """
    every = list(sources.values())
    names = [category_names(source) for source in every]
    counts = [count_objects(source, own) for source, own in zip(every, names, strict=True)]
    class_names = choose_classes(every, names, counts)
    warn_of_unlearnt(every, counts, set(class_names))
    return {
        split: build(source, class_names, crowd_as_objects=crowd_as_objects)
        for split, source in sources.items()
    }


@collection_paused()
def build(
    source: Source, class_names: Sequence[str] | None = None, *, crowd_as_objects: bool = False
) -> DataSet[ImageRecord]:
    """The data set of one split.

    `class_names` fixes the labels (those of a trained model, say); without it they are the source's
    categories in the order of their ids. A class that the source does not list is tolerated (it has no
    objects here) and gets an id that the source does not use; a category that has objects but is no class is
    an error.
    """
    names = category_names(source)
    counts = count_objects(source, names)
    if class_names is None:
        class_names = choose_classes([source], [names], [counts])
    classes = several(class_names)
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in counts if name not in label_of]
    if unknown:
        raise GCNetError(
            f"{source.path}: category '{shown(unknown[0])}' has {counts[unknown[0]]} annotations, "
            f"but is not among the classes ({listed([shown(name, 30) for name in classes])}); "
            "give it one of their names, list it in the training split too, or remove its annotations"
        )
    labels = {id: label_of[name] for id, name in names.items() if name in label_of}
    first_ids = {name: id for id, name in reversed(names.items())}
    free = itertools.count(max(names, default=0) + 1)
    ids = tuple(first_ids[name] if name in first_ids else next(free) for name in classes)
    return DataSet(source.path, _records(source, labels, crowd_as_objects), classes, ids)


def _records(source: Source, labels: Mapping[int, int], crowd_as_objects: bool) -> list[ImageRecord]:
    notes = Notes(source)
    paths = find_images(source, notes)
    sizes = listed_sizes(source, paths)
    instances: dict[Any, list[Instance]] = {id: [] for id in sizes}
    drafts = _drafts(source, sizes, labels, notes)
    outlines = _bounded_outlines(drafts, notes)
    boxes, mended = _boxes(drafts, outlines, notes)
    for draft, box, taken in zip(drafts, boxes.tolist(), mended.tolist(), strict=True):
        if math.isnan(box[0]):
            notes.annotation("have neither a box nor an outline; left out", draft.id)
            continue
        area = _area(draft, box)
        if flaw := _flaw(box, area, draft.size):
            notes.annotation(f"have {flaw}; not trained on", draft.id)
        elif not draft.segmentation:
            notes.annotation("have no outline; left out where masks are trained", draft.id)
        crowd = draft.crowd and not crowd_as_objects
        marks = {"crowd": crowd, "usable": not flaw, "mended": taken, "ignore": draft.ignore}
        instances[draft.image_id].append(
            Instance(draft.id, draft.label, tuple(box), draft.segmentation, area, **marks)
        )
    for id, size in sizes.items():
        if min(size) < MIN_SIDE and size != NO_SIZE:
            notes.image(f"have a side of less than {MIN_SIDE} pixels; not trained on", paths[id].name)
    notes.tell()
    return [
        ImageRecord(id, paths[id], max(width, 1), max(height, 1), tuple(instances[id]))
        for id, (height, width) in sizes.items()
    ]


def _flaw(box: Sequence[float], area: float, size: tuple[int, int]) -> str:
    """Why an object cannot be used. As in mmdetection, it needs a pixel each way, inside the image."""
    (x1, y1, x2, y2), (height, width) = box, size
    if x2 - x1 < 1 or y2 - y1 < 1 or area <= 0:
        return "an empty box or area"
    across, down = min(x2, width) - max(x1, 0), min(y2, height) - max(y1, 0)
    if across <= width * FLOAT32 or down <= height * FLOAT32:
        return "a box outside its image"
    return ""


@dataclass(slots=True)
class _Draft:
    """An annotation whose image and label are known; `box` is x, y, width, height and not yet trusted."""

    id: int | str
    image_id: Any
    size: tuple[int, int]
    label: int
    box: Sequence[float]
    segmentation: Segmentation
    area: float
    crowd: bool
    ignore: bool


def _drafts(
    source: Source, sizes: Mapping[Any, tuple[int, int]], labels: Mapping[int, int], notes: Notes
) -> list[_Draft]:
    """The annotations that belong to a listed image and class."""
    drafts: list[_Draft] = []
    seen: set[Any] = set()
    for place, annotation in enumerate(source.annotations):
        id = whole(annotation.get("id"))
        if not isinstance(id, (int, str)) or id in seen:
            notes.annotation("have no id of their own; kept, ids are not needed", shown(id))
            id = id if isinstance(id, (int, str)) else place
        seen.add(id)
        image_id = known(annotation.get("image_id"), sizes)
        label = known(annotation.get("category_id"), labels)
        if image_id is None:
            first = f"{shown(id)}, image id {shown(annotation.get('image_id'))}"
            notes.annotation("point at an image that is not listed; left out", first)
        elif label is None:
            first = f"{shown(id)}, category id {shown(annotation.get('category_id'))}"
            notes.annotation("have a category that is not listed; left out", first)
        elif sizes[image_id] != NO_SIZE:
            segmentation = _segmentation(source, annotation, id, sizes[image_id], notes)
            given = annotation.get("bbox")
            values = given if isinstance(given, list) and len(given) == 4 else [math.nan] * 4
            box = [number(value) for value in values]
            if given is not None and segmentation and math.isnan(sum(box)):
                notes.annotation("have no box of 4 numbers; the outline's is taken", id)
            crowd, ignore = (number(annotation.get(word, 0)) > 0 for word in ("iscrowd", "ignore"))
            area = number(annotation.get("area"))
            size = sizes[image_id]
            drafts.append(_Draft(id, image_id, size, labels[label], box, segmentation, area, crowd, ignore))
    return drafts


def _segmentation(
    source: Source, annotation: Mapping[str, Any], id: int | str, size: tuple[int, int], notes: Notes
) -> Segmentation:
    raw = annotation.get("segmentation")
    if not raw:
        return []
    try:
        segmentation, dropped = parse_segmentation(raw, *size)
    except GCNetError as error:
        raise GCNetError(
            f"{source.path}: annotation id {shown(id)}: {error}; draw it again or remove it"
        ) from None
    if dropped and segmentation:
        notes.annotation(
            "have a part that is no outline (of 2 points, for example); that part is left out", id
        )
    return segmentation


def _bounded_outlines(drafts: Sequence[_Draft], notes: Notes) -> Float[np.ndarray, "N 4"]:
    """The bounds of the outlines as xyxy, NaN where there is none.

    Outlines are made such that they can be drawn: what reaches beyond its image by more than the image's size
    is cut at the border, and what is longer than a line through all pixels is no outline. Drawing takes
    memory in proportion to the length, and a coordinate of 1e8 would take 15 GB.
    """
    bounds, border = outline_bounds([draft.segmentation for draft in drafts]), _borders(drafts)
    reach = border.max(1, initial=0)
    beyond = np.maximum(-bounds.min(1, initial=np.inf), (bounds - border).max(1)) > reach
    for i in beyond.nonzero()[0].tolist():
        notes.annotation("reach far beyond their image; cut at its border", drafts[i].id)
        drafts[i].segmentation = crop_segmentation(drafts[i].segmentation, drafts[i].size)
    most = np.minimum(2 * border[:, :2].prod(1) + 1000, LONGEST_OUTLINE)
    points = [sum(map(len, one)) if isinstance(one := draft.segmentation, list) else 0 for draft in drafts]
    for i in (np.array(points) * 3 * reach > most).nonzero()[0].tolist():  # few: the others cannot be so long
        if outline_length(drafts[i].segmentation) > most[i]:
            notes.annotation("have an outline longer than a line through all pixels; not used", drafts[i].id)
            drafts[i].segmentation = []
            beyond[i] = True
    changed = beyond.nonzero()[0].tolist()
    bounds[changed] = outline_bounds([drafts[i].segmentation for i in changed])
    return bounds


def _boxes(
    drafts: Sequence[_Draft], outlines: Float[np.ndarray, "N 4"], notes: Notes
) -> tuple[Float[np.ndarray, "N 4"], Bool[np.ndarray, " N"]]:
    """Boxes as xyxy; the outline's where an annotation has none, or another thing's; NaN if there is neither.

    Also which of them were another thing's.

    A box that misses a tenth of its outline, and 2 pixels, is not that outline's (x and y were swapped, say);
    nor is one whose width and height are the outline's right and bottom. One that is larger may be meant so.
    """
    given = np.array([draft.box for draft in drafts], np.float64).reshape(-1, 4)
    border = _borders(drafts)
    with np.errstate(over="ignore"):
        boxes = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], 1)
    far = np.abs(boxes).max(1, initial=0) > 3 * border.max(1, initial=0)
    boxes[far] = boxes[far].clip(0, border[far])
    outlines = outlines.clip(0, border)
    missing = np.isnan(given).any(1)
    beyond = np.maximum(boxes[:, :2] - outlines[:, :2], outlines[:, 2:] - boxes[:, 2:]).max(1)
    extent = (outlines[:, 2:] - outlines[:, :2]).max(1)
    corners = (np.abs(given - outlines).max(1) <= 2) & (outlines[:, :2].max(1) > 2)
    crowd = np.array([draft.crowd for draft in drafts], bool)
    other = ((beyond > np.maximum(2, extent / 10)) | corners) & ~missing & ~crowd
    for i in other.nonzero()[0].tolist():
        notes.annotation("have a box that is not their outline's; the outline's is taken", drafts[i].id)
    replaced: Bool[np.ndarray, " N"] = missing | other
    boxes[replaced] = outlines[replaced]
    return boxes, other


def _borders(drafts: Sequence[_Draft]) -> Float[np.ndarray, "N 4"]:
    """Twice the width and height of each one's image."""
    sizes = np.array([draft.size for draft in drafts], np.float64).reshape(-1, 2)
    return np.tile(sizes[:, ::-1], 2)


def _area(draft: _Draft, box: Sequence[float]) -> float:
    """The annotated area; if that is no positive number, the area of the mask or else of the box."""
    if draft.area > 0 or (draft.area <= 0 and not draft.segmentation):
        return draft.area
    if draft.segmentation:
        return segmentation_area(draft.segmentation, *draft.size)
    return (box[2] - box[0]) * (box[3] - box[1])
