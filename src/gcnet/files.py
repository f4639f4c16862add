"""Files are written whole or not at all: a crash or a full disk leaves what was there before.

Also where things are cached between runs: fetched weights, compiled code.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from gcnet.errors import GCNetError

AnyPath = str | os.PathLike[str]


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes `path` through a temporary file beside it, synchronised and then renamed.

    Raises:
        OSError: nothing was written; the temporary file is gone and the old one untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # torch's zip writer reports a failed write so
            raise OSError(str(error).splitlines()[0]) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself has to reach the disk
    finally:
        os.close(folder)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Writes a small file, such as a picture. Raises GCNetError where the disk does not take it."""
    with _disk_errors(path):
        write_atomically(Path(path), lambda file: file.write(data))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as JSON, a sequence with one entry a line. Raises GCNetError as `write_bytes` does.

    Entries of a sequence are written as they are made: it need not hold them all.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
        return

    def write(file: BinaryIO) -> None:
        for number, entry in enumerate(value):
            file.write((",\n" if number else "[\n").encode() + json.dumps(entry, allow_nan=False).encode())
        file.write(b"\n]\n" if len(value) else b"[\n\n]\n")

    with _disk_errors(path):
        write_atomically(Path(path), write)


@contextmanager
def _disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GCNetError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from None


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, made if need be. Raises GCNetError if no file can be written in it."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise GCNetError(
            f"cannot write in {folder}: {error.strerror}; choose another output folder"
        ) from None
    return folder


def cache_folder() -> Path:
    """`GCNET_HOME`, else `gcnet` in the XDG cache."""
    home = os.environ.get("GCNET_HOME")
    return Path(home).expanduser() if home else user_cache() / "gcnet"


def user_cache() -> Path:
    """`XDG_CACHE_HOME`, else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def check_writable(folder: Path) -> None:
    """Raises if `folder` cannot be made or written in. Makes nothing: a later error leaves no trace."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise GCNetError(f"cannot write to {folder}: {existing} is not a folder; choose another --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise GCNetError(f"cannot write to {folder}: no permission in {existing}; choose another --out")


def find_data(
    data: AnyPath | None, annotations: AnyPath | None = None, images: AnyPath | None = None
) -> tuple[Path, Path | None]:
    """A data set's folder or annotation file, and the folder of its images where it is given.

    `annotations` and `images` are seen from here, or else from `data`. Raises GCNetError where one is not
    there.
    """
    if annotations is None:
        if data is None:
            raise GCNetError(
                "which images? give --data, or --annotations and --images; see docs/your-data.md"
            )
        check_data(Path(data))
    found = []
    for option, name in (("annotations", annotations), ("images", images)):
        place = None if name is None else Path(name)
        if place is not None and not place.exists():
            place = Path(data or "") / place
            if not place.exists():
                raise GCNetError(f"--{option} {name} does not exist; correct it")
        found.append(place)
    return found[0] or Path(data or ""), found[1]


def check_data(path: Path) -> None:
    """Raises if there is no such data set, without the seconds that a look into it takes to import."""
    if not path.exists():
        raise GCNetError(
            f"--data {path} does not exist; give the folder of a data set or its annotation file"
        )
