"""Walks through the folders of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, *endings: str) -> Iterator[Path]:
    """The files in a folder and its folders, linked ones too, in no order; none that are hidden.

    A folder is walked through once, whatever links lead there, and none that `folder` itself is in.

    Args:
        folder: where to look.
        endings: how a name ends, in small letters: one of these, or all names without any.
    """
    real = Path(os.path.realpath(folder))
    seen = {real, *real.parents}
    for parent, folders, names in os.walk(folder, followlinks=True):
        for name in sorted(folders):
            place = Path(os.path.realpath(os.path.join(parent, name)))
            if name.startswith(".") or place in seen:
                folders.remove(name)
            seen.add(place)
        for name in names:
            if not name.startswith(".") and name.lower().endswith(endings or ""):
                yield Path(parent, name)


def is_hidden(root: Path, path: Path) -> bool:
    """Whether a file or a folder above it is hidden: settings of editors, thumbnails."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)
