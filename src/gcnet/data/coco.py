"""COCO instance files: which of a folder's files is which split, where its images are, and reading it."""

from __future__ import annotations

import gzip
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gcnet.data.annotations import Source, build
from gcnet.data.dataset import WHOLE, DataSet, ImageRecord, collection_paused, name_splits
from gcnet.errors import GCNetError
from gcnet.image_files import is_image

log = logging.getLogger(__name__)

# Other tasks' files of COCO, which may lie beside the instances.
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_JSON = re.compile(r"\.json(\.gz)?$")
_MOST_FILES = 100  # in a folder that is looked at: more are a file an image, in another format
_SNIFFED = 1 << 16  # bytes at either end of a file that tell whether it is COCO's format


class CocoDataset(DataSet[ImageRecord]):
    """A data set from one COCO instance file."""

    @classmethod
    def load(
        cls, json_path: str | Path, image_dir: str | Path, *, class_names: Sequence[str] | None = None
    ) -> CocoDataset:
        """Read a COCO instance JSON whose images lie in `image_dir`.

        `class_names` fixes the labels (those of a trained model, say); without it they are the file's
        categories in the order of their ids. Raises GCNetError for what makes the file useless.
        """
        if not Path(image_dir).is_dir():
            raise GCNetError(
                f"{image_dir} is not a folder; give the folder that holds the images of {json_path}"
            )
        return cls(**vars(build(read_coco(Path(json_path), [Path(image_dir)]), class_names)))


def find_coco(root: Path) -> dict[str, Callable[[], Source]]:
    """The splits of a folder of COCO files, and how each is read; a single set is `WHOLE`.

    They are looked for as one folder a split with its JSON in it, then in `annotations/` and in `root`
    itself, by names that have train, val or test in them; where there is one file, by any name.
    """
    if root.is_file():
        return (
            {WHOLE: partial(read_coco, root, _image_folders(root.parent, root) or [root.parent])}
            if _JSON.search(root.name.lower())
            else {}
        )
    groups = [
        [(path.parent.name, path) for path in _json_files(root, "*/_annotations.coco.json*")],
        [
            (path.name.removeprefix("instances_"), path)
            for path in _json_files(root, "annotations/instances_*")
        ],
        [(path.name, path) for path in _json_files(root, "annotations/*")],
        [(path.name, path) for path in _json_files(root, "*")],
        [(path.parent.name, path) for path in _json_files(root, "*/*")],
    ]
    for group in groups:
        if len(group) > _MOST_FILES:
            continue
        found = [(name, path) for name, path in group if _is_coco(path)]
        splits = name_splits(root, found, shown=lambda path: path)
        if not splits and len(found) == 1:
            splits = {WHOLE: found[0][1]}
        readers = {}
        for split, path in splits.items():
            if folders := _image_folders(root, path):
                readers[split] = partial(read_coco, path, folders)
            else:
                log.warning("%s is left out: there is no image folder for it in %s", path, root)
        if readers:
            return readers
    return {}


def read_coco(path: Path, image_dirs: Sequence[Path]) -> Source:
    """Parse a COCO file; its images are in that one of `image_dirs` that has most of them.

    Raises GCNetError if it has no lists of images, annotations and categories.
    """
    content = read_json(path)
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise GCNetError(f'{path} has no list of objects "{key}"; give a COCO instance annotation file')
    names = [str(image.get("file_name")) for image in content["images"][:20]]
    folder = max(image_dirs, key=lambda folder: sum((folder / name).is_file() for name in names))
    return Source(path, folder, content["images"], content["annotations"], content["categories"])


@collection_paused()
def read_json(path: Path) -> Any:
    """What is in a JSON file, which may be compressed with gzip. Raises GCNetError naming it."""
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (gzip.BadGzipFile, EOFError) as error:
        raise GCNetError(f"{path} is not whole ({error}); compress or export it again") from None
    except OSError as error:
        raise GCNetError(f"{path} cannot be read ({error.strerror}); give an annotation file") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise GCNetError(
            f"{path} is not JSON ({error.msg} at {place}); export the annotations again"
        ) from None
    except UnicodeDecodeError:
        raise GCNetError(f"{path} is not JSON (not UTF-8 text); export the annotations again") from None


def _json_files(root: Path, pattern: str) -> list[Path]:
    paths = (path for path in root.glob(pattern) if _JSON.search(path.name.lower()))
    return sorted(path for path in paths if not path.name.startswith((".", *_OTHER_TASKS)))


def _is_coco(path: Path) -> bool:
    """Whether a file looks like COCO's format, without reading all of it."""
    if path.name.startswith(("_annotations.coco", "instances_")):
        return True
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        head = file.read(_SNIFFED)
        file.seek(max(path.stat().st_size - _SNIFFED, 0))
        ends = head + file.read(_SNIFFED)
    return any(key in ends for key in (b'"images"', b'"annotations"')) and b'"shapes"' not in head


def _image_folders(root: Path, path: Path) -> list[Path]:
    """Where the images of a COCO file may be, likeliest first; none if no folder of them is there."""
    name = _JSON.sub("", path.name).removeprefix("instances_")
    own = [root / name, root / "images" / name, root / name / "images"]
    shared = [root / "images", root / "JPEGImages", path.parent / "images", root / "data", root, path.parent]
    folders = [folder for folder in own if folder.is_dir()]
    folders += [folder for folder in shared if folder.is_dir() and _has_images(folder.iterdir())]
    if not folders and path.parent not in (root, root / "annotations"):
        folders = [path.parent]
    return [*folders, root] if folders else []


def _has_images(paths: Iterable[Path]) -> bool:
    return any(is_image(path) for path in paths)
