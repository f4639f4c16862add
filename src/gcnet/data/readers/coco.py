"""Reads COCO instance files: which file of a folder is which split, and where its images are."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os.path
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from gcnet.data.annotations import build
from gcnet.data.dataset import WHOLE, DataSet, ImageRecord, is_dev, name_splits, split_of
from gcnet.data.folders import files_below, is_hidden
from gcnet.data.readers.files import IMAGE_FOLDERS, folder_with, head_of, read_json
from gcnet.data.readers.splits import MOST_FILES, Readers, splits_of, warn_of_left, with_only
from gcnet.data.source import Source, warn
from gcnet.errors import GCNetError
from gcnet.image_files import is_image

# Other tasks' files of COCO, which may lie beside the instances.
OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
ANNOTATION_FOLDERS = ("annotations", "Annotations", "annotation", "labels", "json")
_JSON = re.compile(r"\.json(\.gz)?$")
_MOST_LOOKED_AT = 10_000  # files in which an image is looked for
_SNIFFED = 1 << 16  # bytes at either end of a file that tell whether it is COCO's format


Named = tuple[str, Path]  # a file, and the name that tells its split


class CocoDataset(DataSet[ImageRecord]):
    """A data set from one COCO instance file."""

    @classmethod
    def load(
        cls, json_path: str | Path, image_dir: str | Path, *, class_names: Sequence[str] | None = None
    ) -> CocoDataset:
        """Reads a COCO instance JSON whose images are in `image_dir`.

        Args:
            json_path: the annotation file.
            image_dir: the folder of the images.
            class_names: the classes in the order of the labels, such as those of a trained model; by default
                the file's categories in the order of their ids.

        Raises:
            GCNetError: the file cannot be read, or has an error that would spoil a training.
        """
        if not Path(image_dir).is_dir():
            raise GCNetError(
                f"{image_dir} is not a folder; give the folder that holds the images of {json_path}"
            )
        return cls(**vars(build(read_coco(Path(json_path), [Path(image_dir)]), class_names)))


def find_coco(root: Path, images: Path | None = None) -> Readers:
    """The splits of a folder of COCO files, and how each is read; a single set is `WHOLE`.

    They are looked for as one folder a split with its JSON in it, then in `annotations/` and in `root`
    itself, by names that have train, val or test in them; where there is one file, by any name. Without the
    folder `images`, files count that have images in `root`.
    """
    if root.is_file():
        if not is_coco(root):
            return {}
        return {WHOLE: partial(read_coco, root, image_folders(folder_of(root), root) or [root.parent])}
    # Patterns of paths, and which part of such a path has the name of its split.
    patterns = [
        ("*/_annotations.coco.json*", -2),
        *((f"{folder}/*", -1) for folder in ANNOTATION_FOLDERS),
        ("*", -1),
        ("*/*", -2),
        ("*/*/*", -3),
    ]
    for pattern, part in patterns:
        files = json_files(root, pattern)
        if len(files) > MOST_FILES:
            files = [path for path in files if path.name.startswith("instances_")][:MOST_FILES]
        found = [(path.parts[part].removeprefix("instances_"), path) for path in files if is_coco(path)]
        instances = [(name, path) for name, path in found if path.name.startswith("instances_")]
        splits = _splits(root, instances or found, found, folders=part < -1)
        places = {split: [images] if images else image_folders(root, path) for split, path in splits.items()}
        if any(places.values()):
            for path in (splits[split] for split, folders in places.items() if not folders):
                warn(path, f"it is left out, as there is no image folder for it in {root}")
            warn_of_left(root, [path for _, path in found], splits)
            used = {split: folders for split, folders in places.items() if folders}
            return {split: partial(read_coco, splits[split], folders) for split, folders in used.items()}
    return {}


def folder_of(path: Path) -> Path:
    """The folder of the data set that an annotation file, or a folder of them, is of."""
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name in ANNOTATION_FOLDERS else folder


def _splits(root: Path, first: Sequence[Named], every: Sequence[Named], *, folders: bool) -> dict[str, Path]:
    """Files by split: of the `first` ones, and of others in what splits these lack.

    The only one of no split is for training if the names are of `folders`, or if it is called default.
    """
    splits = name_splits(root, first)
    missing = {"train", "valid", "test"} - splits.keys() if WHOLE not in splits else set()
    others = [one for one in every if one not in first and name_splits(root, [one]).keys() & missing]
    with contextlib.suppress(GCNetError):  # two files of one split, of which neither is needed
        splits |= name_splits(root, others)
    unnamed = [one for name, one in first if folders or name.startswith("default")]  # CVAT's
    unnamed = [one for one in unnamed if one not in splits.values()]
    return with_only(unnamed, splits) or splits_of(root, every)


def read_coco(path: Path, image_dirs: Sequence[Path]) -> Source:
    """Reads a COCO file; its images are in the folder of `image_dirs` that has most of them.

    Raises GCNetError if it has no lists of images, annotations and categories.
    """
    content = read_json(path)
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise GCNetError(f'{path} has no list of objects "{key}"; give a COCO instance annotation file')
    for image in content["images"]:  # LVIS: http://images.cocodataset.org/train2017/000000000009.jpg
        if "file_name" not in image and isinstance(image.get("coco_url"), str):
            image["file_name"] = "/".join(image["coco_url"].split("/")[-2:])
    folder = folder_with(image_dirs, [image.get("file_name") for image in content["images"]])
    return Source(path, folder, content["images"], content["annotations"], content["categories"])


def json_files(root: Path, pattern: str) -> list[Path]:
    """The files that are JSON by their names, not hidden, and not of another task."""
    paths = (path for path in root.glob(pattern) if _JSON.search(path.name.lower()))
    return sorted(path for path in paths if not (path.name.startswith(OTHER_TASKS) or is_hidden(root, path)))


def is_coco(path: Path) -> bool:
    """Whether a file looks like COCO's format, without reading all of it."""
    if not (_JSON.search(path.name.lower()) and path.is_file()):
        return False
    if path.name.startswith(("_annotations.coco", "instances_")):
        return True
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            head = file.read(_SNIFFED)
            if len(head) < _SNIFFED:  # all of it
                return b'"annotations"' in head and b'"images"' in head and not _is_anothers(head)
            file.seek(max(path.stat().st_size - _SNIFFED, 0))
            ends = head + file.read(_SNIFFED)
    except (OSError, EOFError, zlib.error):
        return True  # the reader reports the error
    is_object = head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return is_object and not _is_anothers(ends) and (b'"images"' in ends or b'"annotations"' in ends)


def _is_anothers(content: bytes) -> bool:
    """Whether it has keys of LabelMe, of panoptic files, or of Datumaro or Darwin."""
    has_items = b'"images"' not in content and re.search(rb'"(items":\s*\[|item":\s*\{)', content)
    return b'"shapes"' in content or b'"segments_info"' in content or bool(has_items)


def image_folders(root: Path, path: Path) -> list[Path]:
    """Where the images of a COCO file may be, likeliest first; none if no folder of them is there."""
    name = _JSON.sub("", path.name).removeprefix("instances_").removeprefix("panoptic_")
    bases = dict.fromkeys([root, folder_of(path)])  # a project, and the data set in it
    own = [
        folder for base in bases for folder in (base / name, base / "images" / name, base / name / "images")
    ]
    shared = [base / folder for base in bases for folder in IMAGE_FOLDERS]
    shared += [path.parent / "images", root, path.parent]
    folders = [folder for folder in own if folder.is_dir()]
    folders += [folder for folder in shared if folder.is_dir() and _has_images(folder.iterdir())]
    named = _first_path(path)
    folders += [folder for folder in shared if named and os.path.isfile(folder / named)]
    folders = folders or [folder for folder in shared if folder.is_dir() and _has_images_inside(folder)]
    if not folders and path.parent not in (root, *(root / folder for folder in ANNOTATION_FOLDERS)):
        folders = [path.parent]
    return list(dict.fromkeys([*folders, root])) if folders else []


def _first_path(path: Path) -> str:
    """The name of the first image, if there is a folder in it."""
    found = re.search(
        rb'"(?:file_name|coco_url)":\s*"(?:\w+://[^/"]+/)?([^"]+/[^"]+)"', head_of(path, _SNIFFED)
    )
    return found[1].decode(errors="replace") if found else ""


def _has_images_inside(folder: Path) -> bool:
    """Whether its subfolders, except those of splits, hold images."""
    of_splits = any(split_of(path.name) or is_dev(path.name) for path in folder.glob("*/"))
    return not of_splits and _has_images(files_below(folder))


def _has_images(paths: Iterable[Path]) -> bool:
    return any(is_image(path) for path in itertools.islice(paths, _MOST_LOOKED_AT))
