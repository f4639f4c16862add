"""Finds the reader for what `--data` names, and reads its splits as data sets."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gcnet.console import listed, shown
from gcnet.data.annotations import build, build_splits
from gcnet.data.dataset import WHOLE, DataSet, ImageRecord, pick_split, split_of
from gcnet.data.divide import Division, divide, warn_of_unused_file
from gcnet.data.readers.box_lines import find_box_lines
from gcnet.data.readers.cityscapes import find_cityscapes
from gcnet.data.readers.coco import ANNOTATION_FOLDERS, find_coco, folder_of
from gcnet.data.readers.createml import find_createml
from gcnet.data.readers.csv_table import find_csv
from gcnet.data.readers.cvat import find_cvat
from gcnet.data.readers.darwin import find_darwin
from gcnet.data.readers.files import IMAGE_FOLDERS
from gcnet.data.readers.isat import find_isat
from gcnet.data.readers.label_studio import find_label_studio
from gcnet.data.readers.labelme import find_labelme
from gcnet.data.readers.line_labels import find_dota, find_kitti
from gcnet.data.readers.masks import find_masks
from gcnet.data.readers.panoptic import find_panoptic
from gcnet.data.readers.splits import Readers
from gcnet.data.readers.superannotate import find_superannotate
from gcnet.data.readers.supervisely import find_supervisely
from gcnet.data.readers.table import find_table
from gcnet.data.readers.via import find_via
from gcnet.data.readers.via3 import find_via3
from gcnet.data.readers.voc import find_voc
from gcnet.data.readers.yolo import find_yolo
from gcnet.data.source import Source, warn
from gcnet.data.unknown import why_nothing_fits, why_nothing_is_there
from gcnet.errors import GCNetError

AnyPath = str | Path

_MOST_FOLDERS = 100  # of a project that are looked into
_ANNOTATIONS = (".json", ".gz", ".xml", ".yaml", ".yml", ".data", ".csv", ".jsonl")

# Each finds the splits of a folder in its format and a function to read each; empty for other formats.
_FILES: Sequence[Callable[[Path], Readers]] = (
    find_coco,
    find_via,
    find_voc,
    find_cvat,
    find_box_lines,
    find_yolo,
    find_labelme,
    find_isat,
    find_label_studio,
    find_supervisely,
    find_panoptic,
    find_table,
    find_via3,
    find_kitti,
    find_dota,
    find_cityscapes,
    find_darwin,
    find_superannotate,
    find_createml,
)
_GUESSED = (find_masks, find_csv)
READERS = (*_FILES, *_GUESSED)


def load_splits(
    root: AnyPath,
    *,
    images: AnyPath | None = None,
    val_fraction: float = 0.2,
    group_by: str = "",
    split_file: str = "",
    crowd_as_objects: bool = False,
) -> dict[str, DataSet[ImageRecord]]:
    """Reads every split of a data set, by name: "train", "valid", "test".

    All have the classes of the training split, or of the first one if there is none.

    Args:
        root: the folder of a data set, an annotation file or a data.yaml.
        images: the folder of the images, if it cannot be found from `root`.
        val_fraction, group_by, split_file: how a data set without splits is divided; see `Division`.
        crowd_as_objects: use objects marked iscrowd like all others.

    Raises:
        GCNetError: there is no data set, or it has an error that would spoil a training.
    """
    division = Division(val_fraction, group_by, split_file)
    sources = {split: read() for split, read in find_splits(root, images).items()}
    if not any(source.annotations or source.categories for source in sources.values()):
        raise GCNetError(why_nothing_is_there(root, sources.values()))
    splits = build_splits(sources, crowd_as_objects=crowd_as_objects)
    if WHOLE not in splits:
        warn_of_unused_file(split_file, root)
        return splits
    parts = divide(splits.pop(WHOLE), sources[WHOLE].images, division)
    return {**parts, **splits}


def load_split(
    root: AnyPath,
    split: str,
    class_names: Sequence[str] | None = None,
    *,
    images: AnyPath | None = None,
    crowd_as_objects: bool = False,
    **division: Any,
) -> DataSet[ImageRecord]:
    """One split of a data set, with the classes of a trained model; else as `load_splits`."""
    how = Division(**division)
    found = find_splits(root, images)
    is_whole = WHOLE in found and split not in found
    source = pick_split(root, found, WHOLE if is_whole else split)()
    dataset = build(source, class_names, crowd_as_objects=crowd_as_objects)
    if not is_whole:
        warn_of_unused_file(how.split_file, root)
        return dataset
    return pick_split(root, divide(dataset, source.images, how), split)


def find_splits(root: AnyPath, images: AnyPath | None = None) -> Readers:
    """How each of the splits of `root` is read: "train", "valid" and "test", or "all" if it is not divided.

    Raises GCNetError where there are none or where two claim the same name.
    """
    root = Path(root)
    if not root.exists():
        raise GCNetError(f"{root} does not exist; give the folder of a data set, or its annotation file")
    if images is not None and not Path(images).is_dir():
        raise GCNetError(f"{images} is not a folder; give the folder that holds the images")
    for folder in itertools.islice(itertools.chain(root.glob("*/"), root.glob("*/*/")), _MOST_FOLDERS):
        if not os.access(folder, os.R_OK | os.X_OK):
            warn(folder, "it cannot be read, for lack of permission; what is in it is passed over")
    inside = [path for path in root.glob("[!._]*") if path.is_dir() or path.suffix in _ANNOTATIONS]
    # An archive that was unpacked into a folder of its own.
    inner = inside[0] if len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink() else None
    try:
        found = _found_in(root, _FILES)
        _tell_of_others(root, found)
        if not found and images is not None:
            found = find_coco(root, Path(images))
        if not found:
            root, found = _beside_masks(root) or (root, _found_in(root, _GUESSED))
    except GCNetError:  # two splits of one name, where the folder of a data set is taken for that of a split
        if not inner:
            raise
        found = {}
    if not found and inner:
        return find_splits(inner, images)
    if not found:
        root, found = _found_inside(root)
    return {split: partial(_placed, read, root, images) for split, read in found.items()}


def _found_in(folder: Path, readers: Sequence[Callable[[Path], Readers]] = READERS) -> Readers:
    return next((found for find in readers if (found := find(folder))), {})


def _tell_of_others(root: Path, found: Readers) -> None:
    """Names the folders of `root` with data in other formats than what is found there."""
    reads = {_reader(read) for read in found.values()}
    others: list[str] = []
    for folder in sorted(root.glob("[!._]*/"))[:_MOST_FOLDERS] if found else ():
        if not split_of(folder.name) and folder.name not in (*ANNOTATION_FOLDERS, *IMAGE_FOLDERS):
            with contextlib.suppress(GCNetError):
                own = {_reader(read) for read in _found_in(folder, _FILES).values()}
                others += [shown(folder.name)] if own and not own & reads else []
    if others:
        warn(root, f"data in other formats is not read: {listed(others, 3)}")


def _reader(read: Callable[[], Source]) -> Any:
    """What reads a split, the same for all of a format."""
    return getattr(read, "func", None)


def _beside_masks(root: Path) -> tuple[Path, Readers] | None:
    """The only folder of `root` that has masks and files of annotations, which say more; None without one.

    Masks are found however deep they lie, such files only where their tools put them.
    """
    found: list[tuple[Path, Readers]] = []
    for folder in sorted(root.glob("[!._]*/"))[:_MOST_FOLDERS]:
        with contextlib.suppress(GCNetError):
            if not split_of(folder.name) and find_masks(folder) and (own := _found_in(folder, _FILES)):
                found.append((folder, own))
    if len(found) != 1:
        return None
    warn(found[0][0], f"it is read, the only data set in {root}")
    return found[0]


def _found_inside(root: Path) -> tuple[Path, Readers]:
    """The only data set in the folders of `root`, or else in theirs: beside it may be a project's programs.

    Folders of splits hold only a part of one. Raises GCNetError where there are none or several.
    """
    folders = [root]
    for _ in range(2):
        inner = [path for folder in folders for path in sorted(folder.glob("[!._]*/"))]
        folders = [path for path in inner if not (path.is_symlink() or split_of(path.name))][:_MOST_FOLDERS]
        sets: dict[Path, Readers | GCNetError] = {}
        for folder in folders:
            try:
                sets[folder] = {} if folder.name in ANNOTATION_FOLDERS else _found_in(folder)
            except GCNetError as error:
                sets[folder] = error
        sets = {folder: found for folder, found in sets.items() if found}
        if len(sets) > 1:
            names = listed([shown(path.relative_to(root).as_posix()) for path in sets], 4)
            raise GCNetError(f"{root} holds several data sets, {names}; give the folder of one")
        for folder, found in sets.items():
            if isinstance(found, GCNetError):
                raise found
            warn(folder, f"it is read, the only data set in {root}")
            return folder, found
    raise GCNetError(why_nothing_fits(root))


def _placed(read: Callable[[], Source], root: Path, images: AnyPath | None) -> Source:
    """A source whose images are in `images`, or else where the reader found them, and in the data set."""
    try:
        source = read()
    except GCNetError as error:
        if other := _another(read, root):
            raise GCNetError(f"{error}, or give {other} as --data FILE") from None
        raise
    base = folder_of(root)
    folder = source.image_dir if images is None else Path(images)
    return replace(source, image_dir=folder, within=(*source.within, base))


def _another(read: Callable[[], Source], root: Path) -> Path | None:
    """What could be read in the place of a file that cannot: one of another format beside it."""
    for find in _FILES if root.is_dir() else ():
        with contextlib.suppress(GCNetError):
            for other in find(root).values():
                if _reader(other) is not _reader(read):
                    source = other()
                    if source.annotations and source.path.is_file() and find(source.path):
                        return source.path
    return None
