"""COCO instance data sets: a JSON file and an image folder for each split, found without configuration.

Two layouts are known: COCO's own (`annotations/instances_train2017.json` beside `train2017/`), and one
folder for each split with `_annotations.coco.json` in it. Images are opened only when they are needed.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from gcnet.data.coco_file import ImageRecord, Instance, Source, read_records, read_source
from gcnet.data.splits import name_splits, pick_split
from gcnet.errors import GCNetError
from gcnet.ops.images import read_image

__all__ = ["CocoDataset", "ImageRecord", "Instance", "find_splits", "load_split", "load_splits"]

log = logging.getLogger(__name__)

_LAYOUTS = (
    "annotations/instances_train2017.json beside train2017/, or train/_annotations.coco.json among its images"
)


@dataclass(frozen=True)
class CocoDataset:
    """The images of one split. `category_ids[label]` is the COCO id of `class_names[label]`."""

    annotation_file: Path
    records: Sequence[ImageRecord]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]

    @classmethod
    def load(
        cls, json_path: str | Path, image_dir: str | Path, *, class_names: Sequence[str] | None = None
    ) -> CocoDataset:
        """Read a COCO instance JSON whose images lie in `image_dir`.

        `class_names` fixes the labels (those of a trained model, say); without it they are the file's
        categories in the order of their ids. Raises GCNetError for whatever is malformed.
        """
        source = read_source(json_path, image_dir)
        return _build(source, _choose_classes([source]) if class_names is None else tuple(class_names))

    def __len__(self) -> int:
        return len(self.records)

    def read_image(self, index: int) -> UInt8[ndarray, "H W 3"]:
        """The pixels of `records[index]`. Raises GCNetError where they are not of the annotated size."""
        record = self.records[index]
        image = read_image(record.path)
        height, width = image.shape[:2]
        if (width, height) == (record.width, record.height):
            return image
        turned = (height, width) == (record.width, record.height)
        hint = " (the EXIF orientation of the file was not applied there)" if turned else ""
        raise GCNetError(
            f"{record.path} is {width}x{height} pixels, but {self.annotation_file} says "
            f"{record.width}x{record.height} for image id {record.id}{hint}; correct one of them"
        )


def find_splits(root: str | Path) -> dict[str, tuple[Path, Path]]:
    """(annotation file, image folder) of the splits "train", "valid" and "test" that `root` has.

    A folder called val2017 or validation is "valid". Raises GCNetError where there are none or where
    two claim the same name.
    """
    root = Path(root)
    if not root.is_dir():
        raise GCNetError(f"{root} is not a folder; give a data set folder ({_LAYOUTS})")
    pairs = [(path.parent.name, (path, path.parent)) for path in root.glob("*/_annotations.coco.json")]
    for path in root.glob("annotations/instances_*.json"):
        name = path.stem.removeprefix("instances_")
        folders = [folder for folder in (root / name, root / "images" / name) if folder.is_dir()]
        if folders:
            pairs.append((name, (path, folders[0])))
        else:
            log.warning("%s is left out: there is no image folder %s", path, root / name)
    return name_splits(root, sorted(pairs), layout=_LAYOUTS, shown=lambda pair: pair[0])


def load_splits(root: str | Path) -> dict[str, CocoDataset]:
    """Every split of a data set folder, all with the classes of the first (the training split if any).

    Categories are matched by name. One that has objects in a later split but is not listed in the first
    is an error; one that is listed but has no objects to learn from gets a warning.
    """
    sources = {split: read_source(*pair) for split, pair in find_splits(root).items()}
    first, *others = sources.values()
    class_names = _choose_classes(list(sources.values()))
    learnt = first.counts()
    for other in others:
        unlearnt = [name for name in other.counts() if name in class_names and not learnt[name]]
        if unlearnt:
            log.warning("%s has objects of %s, but %s has none", other.path, unlearnt, first.path)
    return {split: _build(source, class_names) for split, source in sources.items()}


def load_split(root: str | Path, split: str, class_names: Sequence[str]) -> CocoDataset:
    """One split of a data set folder, with the classes of a trained model. Raises GCNetError without it."""
    return CocoDataset.load(*pick_split(root, find_splits(root), split), class_names=class_names)


def _choose_classes(sources: Sequence[Source]) -> tuple[str, ...]:
    """The classes of a data set: the first source's categories by id.

    Left out is a category that no source annotates and that is only the parent of others, such as the
    root that Roboflow writes. Other categories without objects stay: COCO's 80 are 80 in every subset.
    """
    first = sources[0]
    counts = sum((source.counts() for source in sources), Counter[str]())
    parent_of: dict[str, str | None] = {
        category["name"]: category.get("supercategory") for category in first.categories.values()
    }
    names = list(parent_of)
    parents = {parent for name, parent in parent_of.items() if parent != name}
    dropped = [name for name in names if name in parents and not counts[name]]
    if dropped:
        log.warning("%s: category %s has no objects and is only a parent; left out", first.path, dropped)
    kept = tuple(name for name in names if name not in dropped)
    if not kept:
        raise GCNetError(f"{first.path} has no categories; add at least one")
    return kept


def _build(source: Source, class_names: tuple[str, ...]) -> CocoDataset:
    labels, category_ids = _labels(source, class_names)
    return CocoDataset(source.path, read_records(source, labels), class_names, category_ids)


def _labels(source: Source, class_names: tuple[str, ...]) -> tuple[dict[int, int], tuple[int, ...]]:
    """Label by category id, and the other way round.

    A class that the file does not list is tolerated (it has no objects here) and gets an id that the file
    does not use; a category that has objects but is no class is an error.
    """
    counts = source.counts()
    unknown = [name for name in counts if name not in class_names]
    if unknown:
        classes = ", ".join(class_names[:8]) + (", ..." if len(class_names) > 8 else "")
        raise GCNetError(
            f"{source.path}: category '{unknown[0]}' has {counts[unknown[0]]} annotations, "
            f"but is not among the classes ({classes}); "
            "list it in the training split too, or remove its annotations"
        )
    ids = {category["name"]: id for id, category in source.categories.items()}
    labels = {ids[name]: label for label, name in enumerate(class_names) if name in ids}
    free = itertools.count(max(source.categories, default=0) + 1)
    return labels, tuple(ids[name] if name in ids else next(free) for name in class_names)
