"""Names of the files that are written for each image, and how images of the same name are told apart.

Memory holds a number for each image, not a name: a call may have millions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np

from gcnet.image_files import identity


class OutputNames:
    """A name for each of `paths`: its stem, with `-2`, `-3`, ... if that is taken.

    Names that differ only in case count as one, as on some disks. `others` are files that keep theirs.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], others: Iterable[str] = ()) -> None:
        self.paths = paths
        self._copies = np.ones(len(paths), np.uint32)
        taken = {PurePosixPath(name).stem.lower() for name in others}
        last: dict[str, int] = {}
        for index in range(len(paths)):
            stem = self._stem(index)
            copy = last.get(stem.lower(), 0) + 1
            while _numbered(stem, copy).lower() in taken:
                copy += 1
            taken.add(_numbered(stem, copy).lower())
            self._copies[index] = last[stem.lower()] = copy

    def __getitem__(self, index: int) -> str:
        return _numbered(self._stem(index), int(self._copies[index]))

    def picture(self, index: int) -> str:
        """The name of a drawing of the image: a JPEG for a JPEG, else a PNG."""
        is_jpeg = os.fspath(self.paths[index]).lower().endswith((".jpg", ".jpeg"))
        return self[index] + (".jpg" if is_jpeg else ".png")

    def _stem(self, index: int) -> str:
        return PurePosixPath(self.paths[index]).stem


def _numbered(stem: str, copy: int) -> str:
    return stem if copy == 1 else f"{stem}-{copy}"


def images_in(paths: Iterable[str | os.PathLike[str]], folder: Path) -> set[str]:
    """The names of the images that lie directly in a folder, and of links there to images."""
    inside = identity(os.fspath(folder))
    identity_of = cache(identity)
    names = set()
    for given in paths:
        path = os.fspath(given)
        for place in (path, identity(path)) if os.path.islink(path) else (path,):
            parent, name = os.path.split(place)
            if identity_of(parent or ".") == inside:
                names.add(name)
    return names
