"""Which image files the words of a command stand for. No torch here: mistakes are known in a moment."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from gcnet.errors import GCNetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The image files that files, folders and glob patterns stand for, each once, sorted by path.

    A folder stands for the images directly in it; `**` in a pattern goes into folders. In folders and
    patterns files count as images by their suffix and hidden ones are left out. Raises GCNetError for an
    input that stands for nothing.
    """
    found: dict[Path, Path] = {}
    for item in inputs:
        for path in _expand(os.path.expanduser(item)):
            found.setdefault(path.resolve(), path)
    if not found:
        raise GCNetError("no images given; name files, folders or patterns such as 'photos/*.jpg'")
    return sorted(found.values())


def _expand(item: str) -> list[Path]:
    path = Path(item)
    if path.is_dir():
        images = [file for file in path.iterdir() if is_image(file)]
        if not images:
            raise GCNetError(f"no images in {path}; for images in its folders give '{path}/**/*.jpg'")
        return images
    if path.exists():
        return [path]
    if not glob.has_magic(item):
        raise GCNetError(
            f"{path} does not exist; name an image, a folder or a pattern such as 'photos/*.jpg'"
        )
    images = [file for match in glob.iglob(item, recursive=True) if is_image(file := Path(match))]
    if not images:
        raise GCNetError(f"no images match {item}; image files end in {', '.join(IMAGE_SUFFIXES)}")
    return images


def is_image(path: Path) -> bool:
    """Whether a file counts as an image: by its suffix, and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
