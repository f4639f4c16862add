"""The error for a folder that no reader knows: what was looked for, and why each file was refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gcnet.console import listed, shown
from gcnet.data.folders import files_below
from gcnet.data.readers.coco import OTHER_TASKS, is_coco, json_files
from gcnet.data.readers.files import head_of, read_json, read_yaml
from gcnet.data.readers.panoptic import is_panoptic
from gcnet.data.readers.yolo import is_label_file
from gcnet.data.source import Source
from gcnet.errors import GCNetError
from gcnet.image_files import is_image, is_of_masks
from gcnet.ops.image_header import LFS_POINTER

FORMATS = "COCO, YOLO, VIA, Pascal VOC, CVAT, LabelMe, masks, CSV and others; see docs/your-data.md"

_SUFFIXES = (
    *(".json", ".gz", ".xml", ".yaml", ".yml", ".txt", ".csv", ".data", ".jsonl", ".parquet", ".zip"),
    *(".tfrecord", ".record", ".geojson"),
)
_MOST_FILES = 100_000  # that are looked at
# Tools and data sets by keys of their JSON, or of the first entry of a list.
_TOOLS = (
    ("Cityscapes' files other than *_polygons.json", {"imgHeight", "imgWidth", "objects"}),
    ("Datumaro", {"items", "categories"}),
    ("Labelbox", {"Labeled Data"}),
    ("Labelbox", {"data_row"}),
)
# What is said of files that may have nothing to do with a data set; these come last.
_NO_LABELS, _NO_NAMES = "no labels of YOLO", 'has no "names" with "train" or "val"'
_OTHERS = (_NO_LABELS, _NO_NAMES)
_MOST_READ = 50  # files
_LONGEST = 260  # characters, with all reasons but the first: a longer line would be shown without its middle
_MOST_BYTES = 1 << 26  # of a JSON file that is read to recognise its format


def why_nothing_fits(root: Path) -> str:
    """The error in one line."""
    every = [root] if root.is_file() else list(itertools.islice(files_below(root), _MOST_FILES))
    files = sorted(
        (path for path in every if path.suffix.lower() in _SUFFIXES and path.is_file()),
        key=lambda path: (len(path.parts), path),
    )
    start = f"{root} holds no data set that is known ({FORMATS})"
    images = [path for path in every if is_image(path)]
    of_masks = next((_name(path.parent, root) for path in images if is_of_masks(path.parent.name)), "")
    beside = "masks, whose images belong in `images` beside it, under the same names"
    masks = f"; {of_masks}: {beside}" if of_masks else ""
    if not files:
        line = f"{start}; there are {len(images)} images in it, but no JSON, XML, YAML or TXT file{masks}"
        if len({path.parent for path in images if path.parent.parent.parent == root}) > 1:
            line += "; to name the class of whole images, train a classifier such as resnet50"
        return line
    # One of each suffix and folder: a thousand files of one kind are as they are for one reason.
    firsts = {(path.parent, path.suffix.lower()): path for path in reversed(files)}.values()
    firsts = sorted(firsts, key=lambda path: (len(path.parts), path))[:_MOST_READ]
    reasons = sorted(((path, _why_not(path)) for path in firsts), key=lambda one: one[1] in _OTHERS)
    line, told = start + masks, 0
    for path, why in reasons:
        reason = f"; {_name(path, root)}: {why}"
        if told and len(line) + len(reason) > _LONGEST:
            break
        line, told = line + reason, told + 1
    return f"{line}; and {len(files) - told} more files" if told < len(files) else line


def why_nothing_is_there(root: str | Path, sources: Iterable[Source]) -> str:
    """The error for files that hold no objects and no classes."""
    seen = [f"{_name(source.path, Path(root))} ({len(source.images)} images)" for source in sources]
    return (
        f"{root}: no annotations and no categories in {listed(seen, 2)}; annotate some and export again; "
        f"looked for {FORMATS}"
    )


def _name(path: Path, root: Path) -> str:
    inside = path != root and path.is_relative_to(root)
    name = path.relative_to(root).as_posix() if inside else path.name
    return shown(name if len(name) <= 60 else "..." + name[-57:])


def _why_not(path: Path) -> str:
    suffix = path.suffix.lower()
    if head_of(path, len(LFS_POINTER)) == LFS_POINTER:
        return "a pointer of Git LFS; get the file with `git lfs pull`"
    if suffix in (".json", ".gz"):
        return _why_no_json(path)
    if suffix == ".xml":
        element = re.search(rb"<([A-Za-z][\w:-]*)", head_of(path))
        return f"XML of <{element.group(1).decode()[:30]}>" if element else "no XML"
    if suffix in (".yaml", ".yml"):
        try:
            read_yaml(path)
        except GCNetError as error:
            return _fault(path, error)
    if suffix in (".yaml", ".yml", ".data"):
        return _NO_NAMES
    if suffix == ".txt":
        return (
            "labels of YOLO; its images are needed beside, and a data.yaml or classes.txt with the names"
            if is_label_file(path)
            else _NO_LABELS
        )
    return {
        ".csv": "a table without columns of images and objects (filename, xmin, ymin, xmax, ymax, class)",
        ".zip": "not unpacked; unpack it",
        ".tfrecord": "TFRecord; export it as COCO",
        ".record": "TFRecord; export it as COCO",
        ".geojson": "GeoJSON; export it as masks or COCO",
        ".parquet": "a table without images and objects",
    }.get(suffix, "not a known format")


def _why_no_json(path: Path) -> str:
    if is_panoptic(path):
        return f"there is no folder {path.stem} of its masks"
    if path.name.startswith(OTHER_TASKS):
        return "of another task of COCO; instances_*.json is needed"
    if path.stat().st_size > _MOST_BYTES:
        return "not COCO's"
    try:
        content = read_json(path)
    except GCNetError as error:
        return _fault(path, error)
    is_list = isinstance(content, list)
    first: Any = content[0] if is_list and content else content
    keys = set(first) if isinstance(first, dict) else set()
    if is_list and "score" in keys:
        return "detections (results), not annotations"
    if tool := next((tool for tool, has in _TOOLS if has <= keys), ""):
        return f"the format of {tool}; export it as COCO"
    if is_list:
        return "a list; COCO's is an object with images, annotations and categories"
    if not isinstance(content, dict):
        return "no JSON object"
    lacks = [key for key in ("images", "annotations", "categories") if key not in content]
    if len(lacks) == 3:
        found = listed([shown(str(key), 20) for key in content], 4) or "nothing"
        return f"has {found}, not images and annotations"
    if lacks:
        return f"lacks {listed(lacks)}"
    if len([one for one in json_files(path.parent, "*") if is_coco(one)]) > 1:
        return "one of several COCO files, and none has the name of a split; give one as --data FILE"
    return "there is no image folder for it; say where the images are with --images"


def _fault(path: Path, error: GCNetError) -> str:
    """What an error says of a file, without its name and advice."""
    return shown(str(error).split(";")[0].removeprefix(str(path)).strip(), 80)
