"""Finds the image files that a command line names: files, folders, patterns.

This does not import torch, so that errors come at once.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gcnet.console import listed
from gcnet.errors import GCNetError
from gcnet.remote import is_address, list_address

log = logging.getLogger(__name__)

MAX_PIXELS = 200_000_000  # of an image that is read, unless more are asked for

# Of the formats that `gcnet.ops.decode` reads.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"),
    *(".heic", ".heif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"),
)

# Folders of masks.
MASK_FOLDERS = ("segmentationobject", "segmentationclass", "masks", "mask", "pedmasks", "instances", "gt")


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The image files of files, folders, patterns and lists, each once, sorted by path.

    A folder stands for the images directly in it; `**` in a pattern goes into folders. In folders and
    patterns files count as images by their suffix; hidden ones are left out, others are counted in a warning.
    `@list.txt` stands for the paths and addresses in a text file, one a line; whether they are there, reading
    them shows. Addresses (s3://bucket/folder) of files, folders and patterns are those of fsspec.
    Raises GCNetError for an input that stands for nothing.
    """
    found: dict[str, str] = {}
    for item in inputs:
        for path in _expand(os.path.expanduser(item)):
            found.setdefault(identity(path), path)
    if not found:
        raise GCNetError("no images given; name files, folders or patterns such as 'photos/*.jpg'")
    return sorted(found.values(), key=lambda path: path.split("/"))


def identity(path: str) -> str:
    """A path of the file that is the same through all links to it."""
    try:
        return path if is_address(path) else os.path.realpath(path)
    except (OSError, ValueError):  # no path at all, out of a list
        return path


def _expand(item: str) -> Iterable[str]:
    if not item:  # to Path it is the current folder
        raise GCNetError("an empty word names no images; is a variable not set?")
    path = Path(item)
    endings = f"image files end in {listed(IMAGE_SUFFIXES, 20)}"
    if path.is_dir():
        images = _images(path.iterdir(), path)
        nothing = f"no images in {path}; for images in its folders give '{path}/**/*.jpg'"
    elif path.exists():
        return [path.as_posix()]
    elif is_address(item):
        images = [one for one in list_address(item) if one == item or has_image_suffix(one.rsplit("/")[-1])]
        nothing = f"no images at {item}; {endings}"
    elif item.startswith("@"):
        return _listed(Path(item[1:]))
    elif glob.has_magic(item):
        images = _images(map(Path, glob.iglob(item, recursive=True)), item)
        nothing = f"no images match {item}; {endings}"
    else:
        images = []
        nothing = f"{path} does not exist; name an image, a folder or a pattern such as 'photos/*.jpg'"
    if not images:
        raise GCNetError(nothing)
    return images


def _listed(path: Path) -> list[str]:
    """The lines of a text file as paths, relative to the current folder."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [os.path.expanduser(line.strip()) for line in file if not line.isspace()]
    except OSError as error:
        raise GCNetError(f"the list {path} cannot be read ({error.strerror}); correct its path") from None
    if not lines:
        raise GCNetError(f"the list {path} is empty; it has the path of an image on each line")
    return [line if is_address(line) else Path(line).as_posix() for line in lines]


def _images(paths: Iterable[Path], place: object) -> list[str]:
    images, aside = [], []
    for path in paths:
        if is_image(path):
            images.append(path.as_posix())
        elif path.is_file() or has_image_suffix(path.name):  # a pipe or a folder of that name is no image
            aside.append(path.name)
    tell_aside([name for name in aside if not name.startswith(".")], place)
    return images


def tell_aside(names: Sequence[str], place: object) -> None:
    """Warns of the number of files that are no images."""
    if names:
        log.warning("%s: %d left aside, no image files: %s", place, len(names), listed(sorted(names), 3))


def has_image_suffix(name: str) -> bool:
    """Whether a name is that of an image file which is not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def is_image(path: Path) -> bool:
    """Whether a file counts as an image: by its suffix, and not hidden."""
    return has_image_suffix(path.name) and path.is_file()


def is_of_masks(folder: str) -> bool:
    """Whether a folder's name says that masks are in it: `masks`, `train_masks`, but not `with_mask`."""
    name = folder.lower()
    return name in MASK_FOLDERS or re.search("[ _-]masks$", name) is not None
