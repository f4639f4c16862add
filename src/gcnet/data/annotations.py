"""From annotations as people have them to data sets: the one place where entries are mended or left out.

A reader gives a `Source` for each split: images, annotations and categories in COCO's words, whatever the
format was. What is useless is left out, what can be known otherwise is taken from there; either is told in
one warning a kind, with how many and the first. An error is what leaves nothing to learn from, or what
would teach something false.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Bool, Float

from gcnet.console import listed
from gcnet.data.dataset import MIN_SIDE, DataSet, ImageRecord, Instance, collection_paused
from gcnet.errors import GCNetError
from gcnet.ops.decode import image_size
from gcnet.ops.segmentations import (
    Segmentation,
    outline_bounds,
    parse_segmentation,
    segmentation_area,
)

log = logging.getLogger(__name__)

FLOAT32 = 1e-6  # share of a side that float32, in which boxes are learnt, cannot tell from nothing


@dataclass(frozen=True)
class Source:
    """One split as annotated: entries in COCO's words, not yet looked at.

    Attributes:
        path: the file or folder that messages name.
        image_dir: where the images are; their `file_name` is seen from here.
        images: `id`, `file_name`, and `width` and `height` unless the image's own are to be taken.
        annotations: `image_id`, `category_id`, and `bbox`, `segmentation` or both.
        categories: `id` and `name`.
    """

    path: Path
    image_dir: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]


class _Notes:
    """What was mended or left out of a source, by kind."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.kinds: dict[tuple[str, int, str], list[Any]] = {}

    def annotation(self, kind: str, id: Any) -> None:
        """`kind` goes on from "N of M annotations"; what came of it follows a semicolon."""
        self.kinds.setdefault(("annotations", len(self.source.annotations), kind), []).append(f"id {id}")

    def image(self, kind: str, name: Any) -> None:
        self.kinds.setdefault(("images", len(self.source.images), kind), []).append(name)

    def tell(self) -> None:
        """A warning for each kind."""
        for (what, total, kind), first in self.kinds.items():
            problem, outcome = kind.split("; ")
            log.warning(
                "%s: %d of %d %s %s (first: %s); %s",
                self.source.path,
                len(first),
                total,
                what,
                problem,
                first[0],
                outcome,
            )


def build_splits(
    sources: Mapping[str, Source], *, crowd_as_objects: bool = False
) -> dict[str, DataSet[ImageRecord]]:
    """Data sets of all splits, with the classes of the first (the training split if there is one).

    Categories are matched by name. One that has objects in a later split but is not listed in the first
    is an error; one that is listed but has no objects to learn from gets a warning.
    """
    names = [_category_names(source) for source in sources.values()]
    counts = [_count(source, own) for source, own in zip(sources.values(), names, strict=True)]
    class_names = _choose_classes(list(sources.values()), names, counts)
    first, *others = sources.values()
    for other, own in zip(others, counts[1:], strict=True):
        unlearnt = [name for name in own if name in class_names and not counts[0][name]]
        if unlearnt:
            log.warning("%s has objects of %s, but %s has none", other.path, listed(unlearnt), first.path)
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
    names = _category_names(source)
    counts = _count(source, names)
    if class_names is None:
        class_names = _choose_classes([source], [names], [counts])
    classes = tuple(class_names)
    unknown = [name for name in counts if name not in classes]
    if unknown:
        raise GCNetError(
            f"{source.path}: category '{unknown[0]}' has {counts[unknown[0]]} annotations, "
            f"but is not among the classes ({listed(classes)}); "
            "list it in the training split too, or remove its annotations"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    labels = {id: label_of[name] for id, name in names.items() if name in label_of}
    first_ids = {name: id for id, name in reversed(names.items())}
    free = itertools.count(max(names, default=0) + 1)
    ids = tuple(first_ids[name] if name in first_ids else next(free) for name in classes)
    return DataSet(source.path, _records(source, labels, crowd_as_objects), classes, ids)


# Categories --------------------------------------------------------------------------------------------


def _category_names(source: Source) -> dict[int, str]:
    """Names by id, in the order of ids. A category that is listed twice counts once.

    Of several with one name, those without annotations are left out (Roboflow's root is called like its only
    class, for one) and the others are one class.
    """
    names: dict[int, str] = {}
    for category in source.categories:
        id, name = _whole(category.get("id")), category.get("name")
        if not isinstance(id, int) or not isinstance(name, str):
            raise GCNetError(
                f"{source.path}: a category lacks a whole-number id or a name: {_short(category)}; add it"
            )
        if names.setdefault(id, name) != name:
            raise GCNetError(
                f"{source.path}: category id {id} occurs twice, as {_short(names[id])} and {_short(name)}; "
                "make it unique"
            )
    if source.annotations and not names:
        raise GCNetError(f"{source.path} has no categories; add at least one")
    names = dict(sorted(names.items()))
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        used = {_known(annotation.get("category_id"), names) for annotation in source.annotations}
        for name in twice:
            ids = [id for id in names if names[id] == name]
            empty = [id for id in ids if id not in used]
            for id in empty[: len(ids) - 1]:
                del names[id]
            if len(ids) - len(empty) > 1:
                log.warning("%s: categories %s are all called %s; taken as one", source.path, ids, name)
    return names


def _count(source: Source, names: Mapping[int, str]) -> Counter[str]:
    """Annotations of each category, by name. Raises GCNetError if there are some, but all of others."""
    ids = Counter(_known(annotation.get("category_id"), names) for annotation in source.annotations)
    counts = Counter[str]()
    for id, count in ids.items():
        if id is not None:
            counts[names[id]] += count
    if source.annotations and not counts:
        entry = source.annotations[0]
        raise GCNetError(
            f"{source.path}: none of the {len(source.annotations)} annotations is of a listed category "
            f"(the first has category id {_short(entry.get('category_id'))}); correct the ids"
        )
    return counts


def _choose_classes(
    sources: Sequence[Source], names: Sequence[Mapping[int, str]], counts: Sequence[Counter[str]]
) -> tuple[str, ...]:
    """The classes of a data set: the first source's categories by id.

    Left out is a category that no source annotates and that is only the parent of others, such as the
    root that Roboflow writes, or LabelMe's `_background_`. Other categories without objects stay: COCO's 80
    are 80 in every subset.
    """
    first = sources[0]
    annotated = sum(counts, Counter[str]())
    parents = {
        parent
        for category in first.categories
        if isinstance(parent := category.get("supercategory"), str) and parent != category.get("name")
    } | {"_background_"}
    kept = tuple(dict.fromkeys(names[0].values()))
    dropped = [name for name in kept if name in parents and not annotated[name]]
    if dropped:
        log.warning(
            "%s: category %s has no objects and is only a parent or background; left out",
            first.path,
            listed(dropped),
        )
    kept = tuple(name for name in kept if name not in dropped)
    if not kept:
        raise GCNetError(f"{first.path} has no categories; add at least one")
    return kept


# Images and annotations --------------------------------------------------------------------------------


def _records(source: Source, labels: Mapping[int, int], crowd_as_objects: bool) -> list[ImageRecord]:
    notes = _Notes(source)
    paths = _image_paths(source, notes)
    sizes = _image_sizes(source, paths)
    instances: dict[Any, list[Instance]] = {id: [] for id in sizes}
    drafts = _drafts(source, sizes, labels, notes)
    for draft, box in zip(drafts, _boxes(drafts, notes).tolist(), strict=True):
        if math.isnan(box[0]):
            notes.annotation("have neither a box nor an outline; left out", draft.id)
            continue
        area = _area(draft, box)
        if flaw := _flaw(box, area, draft.size):
            notes.annotation(f"have {flaw}; not trained on", draft.id)
        elif not draft.segmentation:
            notes.annotation("have no outline; left out where masks are trained", draft.id)
        crowd = draft.crowd and not crowd_as_objects
        instances[draft.image_id].append(
            Instance(draft.id, draft.label, tuple(box), draft.segmentation, area, crowd, not flaw)
        )
    for id, size in sizes.items():
        if min(size) < MIN_SIDE:
            notes.image(f"have a side of less than {MIN_SIDE} pixels; not trained on", paths[id].name)
    notes.tell()
    return [
        ImageRecord(id, paths[id], width, height, tuple(instances[id]))
        for id, (height, width) in sizes.items()
    ]


def _flaw(box: Sequence[float], area: float, size: tuple[int, int]) -> str:
    """Why an object is of no use. As upstream: it needs a pixel each way, some of it inside the image."""
    (x1, y1, x2, y2), (height, width) = box, size
    if x2 - x1 < 1 or y2 - y1 < 1 or area <= 0:
        return "an empty box or area"
    across, down = min(x2, width) - max(x1, 0), min(y2, height) - max(y1, 0)
    if across <= width * FLOAT32 or down <= height * FLOAT32:
        return "a box outside its image"
    return ""


def _image_paths(source: Source, notes: _Notes) -> dict[Any, Path]:
    """Where the images are, by id.

    A name that leads nowhere is looked up by its last part, where that is unique in the folder: exports have
    the paths of other machines in them, with backslashes, and with endings in other letters.
    """
    paths: dict[Any, Path] = {}
    missing: list[Path] = []
    bare: dict[str, list[Path]] | None = None
    for image in source.images:
        id, name = _whole(image.get("id")), image.get("file_name")
        if not isinstance(id, (int, str)) or not isinstance(name, str) or not name:
            raise GCNetError(
                f"{source.path}: image id {_short(id)} ({_short(name)}) lacks an id or a file_name; add them"
            )
        path = source.image_dir / name
        if id in paths:
            raise GCNetError(f"{source.path}: image id {id} ({name}) occurs twice; give each its own")
        if not path.is_file():
            bare = _files_by_name(source.image_dir) if bare is None else bare
            found = bare.get(_last_part(name), [])
            if len(found) == 1:
                notes.image("are not where their file_name says; found by the bare name", name)
                path = found[0]
            else:
                missing.append(path)
        paths[id] = path
    if missing:
        raise GCNetError(
            f"{len(missing)} of the {len(paths)} images listed in {source.path} are missing, "
            f"first {missing[0]}; restore them or remove them from the list"
        )
    return paths


def _last_part(name: str) -> str:
    return unquote(name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]).lower()


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        found.setdefault(path.name.lower(), []).append(path)
    return found


def _image_sizes(source: Source, paths: Mapping[Any, Path]) -> dict[Any, tuple[int, int]]:
    """(height, width) by id: as annotated, or where that is not said, the image's own."""
    sizes: dict[Any, tuple[int, int]] = {}
    for image in source.images:
        id = _whole(image["id"])
        height, width = image.get("height"), image.get("width")
        if height is None and width is None:
            sizes[id] = image_size(paths[id])
            continue
        height, width = _number(height), _number(width)
        if not min(height, width) >= 1:
            raise GCNetError(
                f"{source.path}: image id {id} ({image['file_name']}) has width {_short(image.get('width'))} "
                f"and height {_short(image.get('height'))}; give its size in pixels"
            )
        sizes[id] = int(height), int(width)
    return sizes


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


_NO_BOX = (math.nan,) * 4


def _drafts(
    source: Source, sizes: Mapping[Any, tuple[int, int]], labels: Mapping[int, int], notes: _Notes
) -> list[_Draft]:
    """The annotations that belong to a listed image and class."""
    drafts: list[_Draft] = []
    seen: set[Any] = set()
    for place, annotation in enumerate(source.annotations):
        id = _whole(annotation.get("id"))
        if not isinstance(id, (int, str)) or id in seen:
            notes.annotation("have no id of their own; kept, ids are not needed", _short(id))
            id = id if isinstance(id, (int, str)) else place
        seen.add(id)
        image_id = _known(annotation.get("image_id"), sizes)
        label = _known(annotation.get("category_id"), labels)
        if image_id is None:
            first = f"{id}, image id {_short(annotation.get('image_id'))}"
            notes.annotation("point at an image that is not listed; left out", first)
        elif label is None:
            first = f"{id}, category id {_short(annotation.get('category_id'))}"
            notes.annotation("have a category that is not listed; left out", first)
        else:
            segmentation = _segmentation(source, annotation, id, sizes[image_id], notes)
            given = annotation.get("bbox")
            box = (
                [_number(value) for value in given]
                if isinstance(given, list) and len(given) == 4
                else _NO_BOX
            )
            if given is not None and segmentation and math.isnan(sum(box)):
                notes.annotation("have no box of 4 numbers; the outline's is taken", id)
            crowd = _number(annotation.get("iscrowd", 0)) > 0 or _number(annotation.get("ignore", 0)) > 0
            area = _number(annotation.get("area"))
            size = sizes[image_id]
            drafts.append(_Draft(id, image_id, size, labels[label], box, segmentation, area, crowd))
    return drafts


def _segmentation(
    source: Source, annotation: Mapping[str, Any], id: int | str, size: tuple[int, int], notes: _Notes
) -> Segmentation:
    raw = annotation.get("segmentation")
    if not raw:
        return []
    try:
        segmentation, dropped = parse_segmentation(raw, *size)
    except GCNetError as error:
        raise GCNetError(f"{source.path}: annotation id {id}: {error}; draw it again or remove it") from None
    if dropped and segmentation:
        notes.annotation("have a part that is no outline, of 2 points, say; that part is left out", id)
    return segmentation


def _boxes(drafts: Sequence[_Draft], notes: _Notes) -> Float[np.ndarray, "N 4"]:
    """Boxes as xyxy; the outline's where an annotation has none, or another thing's; NaN if there is neither.

    A box that misses a tenth of its outline, and 2 pixels, is not that outline's (x and y were swapped, say);
    nor is one whose width and height are the outline's right and bottom. One that is larger may be meant so.
    """
    given = np.array([draft.box for draft in drafts], np.float64).reshape(-1, 4)
    boxes = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], 1)
    outlines = outline_bounds([draft.segmentation for draft in drafts])
    sizes = np.array([draft.size for draft in drafts], np.float64).reshape(-1, 2)
    outlines = outlines.clip(0, np.tile(sizes[:, ::-1], 2))
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
    return boxes


def _area(draft: _Draft, box: Sequence[float]) -> float:
    """As annotated; where that is no number, or nothing, what the outline covers, or else the box."""
    if draft.area > 0 or (draft.area <= 0 and not draft.segmentation):
        return draft.area
    if draft.segmentation:
        return segmentation_area(draft.segmentation, *draft.size)
    return (box[2] - box[0]) * (box[3] - box[1])


# Words as people write them ----------------------------------------------------------------------------


def _whole(value: Any) -> Any:
    """A whole number where `value` is one written as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _known(id: Any, table: Mapping[Any, Any]) -> Any:
    """The key of `table` that `id` means: 1, 1.0 and "1" are the same where only one is there."""
    if not isinstance(id, (int, float, str)):
        return None
    id = _whole(id)
    if id in table:
        return id
    if isinstance(id, str):
        return int(id) if id.isdecimal() and int(id) in table else None
    return str(id) if str(id) in table else None


def _number(value: Any) -> float:
    """A finite number, also one written as text; else NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
