"""The list of the files that a call writes in its folder, by which the next call removes these and no others.

A line is a file, with its size and time: one that was changed since is the user's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePath

from gcnet.errors import GCNetError
from gcnet.files import disk_errors
from gcnet.prediction.names import images_in

NAME = ".written.jsonl"
ROUNDED = 2_000_000_000  # nanoseconds to which some file systems round a time


class Written:
    """The list in `folder`, a command's own by its `name`. Files are named by their paths in the folder."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.folder, self.path = folder, folder / name

    def add(self, name: str) -> None:
        """Adds a file that has been written.

        Raises GCNetError if the disk does not take it; the file, which would pass for the user's, is removed.
        """
        path = self.folder / name
        with disk_errors(self.path):
            try:
                status = os.lstat(path)
                line = f"\n{json.dumps([name, status.st_size, status.st_mtime_ns])}".encode()
                with open(self.path, "ab", buffering=0) as file:
                    if file.write(line) < len(line):  # at once, after a line that may be cut off
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                path.unlink(missing_ok=True)
                raise

    def unchanged(self) -> Iterator[str]:
        """The files that are as they were written."""
        with contextlib.suppress(OSError), open(self.path, "rb") as file:
            for line in file:
                with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
                    name, size, time = json.loads(line)
                    status, path = os.lstat(self.folder / name), PurePath(name)
                    same = status.st_size == size and abs(status.st_mtime_ns - time) <= ROUNDED
                    if same and not path.is_absolute() and ".." not in path.parts:
                        yield name

    def remove(self, keep: Callable[[str], bool]) -> None:
        """Removes the unchanged files but those to `keep`."""
        for name in self.unchanged():
            if not keep(name):
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()

    def begin(self, images: Sequence[str | os.PathLike[str]], names: Collection[str] = ()) -> None:
        """Removes the files of an earlier call, but the `images` of this one, and begins a new list.

        Raises GCNetError before, if there are files of the `names` that are wanted which would stay.
        """
        folders = {os.path.dirname(name) for name in self.unchanged()}
        inputs = {folder: images_in(images, self.folder / folder) for folder in folders}

        def stays(name: str) -> bool:
            return os.path.basename(name) in inputs.get(os.path.dirname(name), ())

        staying = {name for name in names if os.path.lexists(self.folder / name)}
        staying.difference_update(name for name in self.unchanged() if not stays(name))
        if staying:
            raise GCNetError(
                f"{self.folder / min(staying)} would be replaced; remove it or choose another folder"
            )
        self.remove(stays)
        self.path.unlink(missing_ok=True)
