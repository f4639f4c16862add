"""Finds the images that annotations list, and their sizes."""

from __future__ import annotations

import filecmp
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gcnet.console import shown
from gcnet.data.dataset import split_of
from gcnet.data.folders import files_below
from gcnet.data.source import Notes, Source, number, whole
from gcnet.errors import GCNetError
from gcnet.image_files import has_image_suffix, is_of_masks
from gcnet.ops.decode import image_size

NO_SIZE = (0, 0)  # its annotations are left out; why it cannot be read is said before a training
MOST_PIXELS = 1 << 31  # of an image as annotated: what RLE can count


def find_images(source: Source, notes: Notes) -> dict[Any, Path]:
    """The path of each image, by id.

    A name that leads nowhere is looked up by its last part, where one file of the folder, or copies of one,
    have it: exports have the paths of other machines in them, with backslashes, and with endings in other
    letters or without any. One that leads out of the data set leads nowhere. Some that are missing are left
    to the look at all images before a training; that all are is an error.
    """
    folders = _folders(source)
    paths: dict[Any, Path] = {}
    missing: list[Path] = []
    lost = 0  # missing images of an odd name, which cannot be passed on to `check_images`
    bare = BareNames(source)
    for image in source.images:
        id, name = whole(image.get("id")), image.get("file_name")
        if not isinstance(id, (int, str)) or not isinstance(name, str) or not name:
            raise GCNetError(
                f"{source.path}: image id {shown(id)} ({shown(name)}) lacks an id or a file_name; add them"
            )
        path = source.image_dir / name
        if id in paths:
            raise GCNetError(
                f"{source.path}: image id {shown(id)} ({shown(name)}) occurs twice; give each its own"
            )
        if not _is_there(path, folders):
            found = bare.of(name)
            if len(found) == 1:
                notes.image("are not where their file_name says; found by the bare name", name)
                path = found[0]
            else:
                missing.append(path)
                lost += not (name.isprintable() and len(name) < 256) or os.path.exists(path)
        paths[id] = path
    if lost or (missing and len(missing) == len(paths)):
        found = bare.of(str(missing[0]))
        twice = f" (there are {len(found)} of the name {shown(found[0].name)})" if len(found) > 1 else ""
        where = "outside of its folder" if os.path.isfile(missing[0]) else "missing"
        raise GCNetError(
            f"{len(missing)} of the {len(paths)} images listed in {source.path} are {where}, "
            f"first {shown(str(missing[0]), 200)}{twice}; restore them, remove them from the list, "
            "or say where they are with --images DIR"
        )
    return paths


def _folders(source: Source) -> list[Path]:
    return [Path(os.path.abspath(folder)) for folder in (source.image_dir, *source.within)]


@dataclass(frozen=True)
class BareNames:
    """Finds the images of a source by the last parts of their names; its folders are looked into once."""

    source: Source

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """Files of the images' folder by name; if it has none of them, of all folders but other splits'."""
        path, folders = self.source.path, _folders(self.source)
        found = _files_by_name(folders[:1])
        listed = [str(image.get("file_name")) for image in self.source.images]
        if any(last in found for name in listed for last in _last_parts(name)):
            return found
        said = {
            part for name in listed for part in name.replace("\\", "/").split("/")[-2:-1]
        }  # obj_train_data
        own = {split_of(name) for name in (path.name, path.parent.name, *said)}
        return _files_by_name(folders, but={"train", "valid", "test"} - own)

    def of(self, name: str) -> list[Path]:
        """The files that have the last part of a name; of copies the first."""
        found = next((self.files[last] for last in _last_parts(name) if last in self.files), [])
        return found[:1] if len(found) > 1 and _are_copies(found) else found


def _is_there(path: Path, folders: list[Path]) -> bool:
    if not os.path.isfile(path):
        return False
    plain = Path(os.path.abspath(path))
    return any(plain.is_relative_to(folder) for folder in folders)


def _last_parts(name: str) -> list[str]:
    """What the file of a name may be called; Label Studio puts eight digits before what is uploaded."""
    last = _plain(unquote(name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]))
    return [last, re.sub("^[0-9a-f]{8}-", "", last)]


def _are_copies(paths: Sequence[Path]) -> bool:
    try:
        return all(filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:])
    except OSError:
        return False


def _plain(name: str) -> str:
    """A name in small letters, and with letters such as ü in one piece: macOS writes them in two."""
    return unicodedata.normalize("NFC", name).lower()


def _files_by_name(folders: Iterable[Path], *, but: Collection[str] = ()) -> dict[str, list[Path]]:
    """What lies in these folders, except in those of masks, which have the names of their images."""
    found: dict[str, set[Path]] = {}
    for folder in folders:
        for path in files_below(folder):
            parts = path.relative_to(folder).parts[:-1]
            if not any(is_of_masks(part) or split_of(part) in but for part in parts):
                # Label Studio, as all servers of Django, has "cat_1.jpg" for "cat (1).jpg".
                names = {path.name, re.sub(r"[^-\w.]", "", path.name.replace(" ", "_"))}
                for name in names | ({path.stem} if has_image_suffix(path.name) else set()):
                    found.setdefault(_plain(name), set()).add(path)
    return {name: sorted(paths) for name, paths in found.items()}


def own_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image by its header; `NO_SIZE` of one that is missing or damaged."""
    try:
        return image_size(path, max_pixels=MOST_PIXELS)
    except GCNetError:
        return NO_SIZE


def likely_size(image: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of an image by its header or, where that cannot be read, as annotated."""
    if (size := own_size(image["file_name"])) != NO_SIZE:
        return size
    height, width = number(image["height"]), number(image["width"])
    return (int(height), int(width)) if min(height, width) >= 1 else NO_SIZE


def listed_sizes(source: Source, paths: Mapping[Any, Path]) -> dict[Any, tuple[int, int]]:
    """(height, width) by id: as annotated, or else the image's own, or `NO_SIZE` of one without any."""
    sizes: dict[Any, tuple[int, int]] = {}
    for image in source.images:
        id = whole(image["id"])
        height, width = image.get("height"), image.get("width")
        if height is None and width is None:
            sizes[id] = own_size(paths[id])
            continue
        height, width = number(height), number(width)
        if not (min(height, width) >= 1 and height * width < MOST_PIXELS):
            given = f"width {shown(image.get('width'))} and height {shown(image.get('height'))}"
            raise GCNetError(
                f"{source.path}: image id {shown(id)} ({shown(image['file_name'])}) has {given}; "
                "give its size in pixels"
            )
        sizes[id] = int(height), int(width)
    return sizes
