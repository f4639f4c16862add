"""Writes files whole or not at all: after a crash, or on a full disk, the old file is still there.

Also what is checked of folders and files before work begins, and the folders for caches: fetched weights,
compiled code.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from gcnet.errors import GCNetError

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None

AnyPath = str | os.PathLike[str]

LOADERS_END = 15.0  # seconds in which the loader processes of a killed command notice that they are alone
LEAST_FILES = 128  # that have to be open at a time, by loaders above all
# What a file system says that has no fsync; whatever else goes wrong there loses data.
_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_DRAFTS = ".draft-"
_NAME_KEPT = 40  # characters in the name of a temporary file, whatever the file system allows


class DiskFullError(GCNetError):
    """A file could not be written because the disk is full."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes `path` through a temporary file beside it, synchronised and then renamed.

    A device or a pipe, such as /dev/null, is written into: a renamed file would take its place.

    Raises:
        OSError: nothing was written; the temporary file is gone and the old one untouched.
    """
    if path.exists() and not path.is_file():
        with open(path, "wb") as device:
            write(device)
        return
    temporary = path.with_name(f".{path.name[:_NAME_KEPT]}.{threading.get_native_id()}.part")
    failures: list[OSError] = []
    try:
        with open(temporary, "wb") as file:
            write(_Watched(file, failures))  # type: ignore[arg-type]
        put_in_place(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        for failure in (*failures, error):
            if isinstance(failure, OSError) and str(failure.filename) in ("None", str(temporary)):
                failure.filename = str(path)
        if failures and isinstance(error, Exception):  # torch's zip writer has its own words for it
            raise failures[0] from error
        raise


def put_in_place(done: Path, path: Path) -> None:
    """Gives a file that is done, and on the same disk, its name, once its content is on the disk."""
    with open(done, "rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _NO_FSYNC:
                raise
    os.replace(done, path)
    with suppress(OSError):  # the file is in place; not every system opens or synchronises folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name itself has to reach the disk
        finally:
            os.close(folder)


class _Watched:
    """A file that remembers why a write failed."""

    def __init__(self, file: BinaryIO, failures: list[OSError]) -> None:
        self._file, self._failures = file, failures

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self._failures.append(error)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Writes a small file, such as an image. Raises GCNetError if it cannot be written."""
    with disk_errors(path):
        write_atomically(Path(path), lambda file: file.write(data))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as JSON; a list or another iterable with one entry in each line.

    Entries are written as they are made: they need not all be held. Raises GCNetError as `write_bytes` does.
    """
    if isinstance(value, Iterable) and not isinstance(value, Mapping | str):
        entries = (json.dumps(entry, allow_nan=False) for entry in value)
        lines = (f",\n{entry}" if number else f"\n{entry}" for number, entry in enumerate(entries))
        text = itertools.chain(["["], lines, ["\n]\n"])
    else:
        text = [json.dumps(value, indent=2, allow_nan=False), "\n"]
    with disk_errors(path):
        write_atomically(Path(path), lambda file: file.writelines(part.encode() for part in text))


@contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns an error of the system inside it into GCNetError, or DiskFullError, about writing `path`."""
    try:
        yield
    except OSError as error:
        kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else GCNetError
        raise kind(
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


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """A context in which no other command writes in `folder`; the lock ends with the process.

    Temporary files of a command that was killed there are removed.

    Raises:
        GCNetError: another one does, also some seconds later.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + LOADERS_END
    try:
        while not _try_lock(handle):
            if time.monotonic() > until:
                raise GCNetError(f"another run is writing in {folder}; wait for it or give another --out")
            time.sleep(0.2)
        remove_leftovers(folder)
        yield
    finally:
        os.close(handle)


@contextmanager
def draft_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder in `parent` for files that are not done; it is gone afterwards.

    Those of commands that were killed are removed: the lock of one ends with its process.
    """
    for leftover in parent.glob(f"{_DRAFTS}*.part"):
        if (handle := _locked(leftover)) is not None:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(handle)
    with tempfile.TemporaryDirectory(dir=parent, prefix=_DRAFTS, suffix=".part") as folder:
        handle = _locked(folder)
        try:
            yield Path(folder)
        finally:
            if handle is not None:
                os.close(handle)


def _locked(folder: AnyPath) -> int | None:
    """A handle with the lock of a folder; None if another process has it, or without locks."""
    if fcntl is None:
        return None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            os.close(handle)
    return None


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes temporary files of commands that were killed: all in `folder`, or those of the file `name`."""
    pattern = re.compile(rf"\.{re.escape(name[:_NAME_KEPT])}{'' if name else '.*'}\.\d+\.part")
    for leftover in folder.glob(".*.part"):
        if pattern.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def _try_lock(handle: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def check_handles() -> None:
    """Lets this process open as many files as the system allows; raises GCNetError if they are too few."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if 0 <= hard < LEAST_FILES:
        raise GCNetError(
            f"only {hard} files may be open at a time here, {LEAST_FILES} are needed: raise `ulimit -n`"
        )


def cache_folder() -> Path:
    """`GCNET_HOME`, else `gcnet` in the XDG cache."""
    home = os.environ.get("GCNET_HOME")
    return Path(os.path.expanduser(home)) if home else user_cache() / "gcnet"


def user_cache() -> Path:
    """`XDG_CACHE_HOME`, else `~/.cache`, which is `/.cache` for a user without a home, as in containers."""
    folder = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path("/.cache" if folder.startswith("~") else folder)


def check_writable(folder: Path) -> None:
    """Raises if `folder` cannot be made or written in. It creates nothing."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise GCNetError(f"cannot write to {folder}: {existing} is not a folder; choose another --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise GCNetError(f"cannot write to {folder}: no permission in {existing}; choose another --out")


def check_own(folder: AnyPath, file: str, keys: Collection[str], *others: str) -> None:
    """Raises if a command's files in `folder` would replace something else.

    It writes a JSON `file` first, which is its own if it has these `keys`, and `others` after it.
    """
    folder = Path(folder)
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        if json.loads((folder / file).read_bytes()).keys() >= set(keys):
            return
    for name in (file, *others):
        if os.path.lexists(folder / name):
            raise GCNetError(f"{folder / name} would be replaced; remove it or choose another folder")


def check_file(path: Path) -> None:
    """Raises if the file `path` cannot be written, as `check_writable`."""
    check_writable(path.parent)
    if path.is_dir():
        raise GCNetError(f"{path} is a folder; give the name of a file")


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

    def place(option: str, name: AnyPath | None) -> Path | None:
        if name is None:
            return None
        for path in (Path(name), Path(data or "", name)):
            if path.exists():
                return path
        raise GCNetError(f"--{option} {name} does not exist; correct it")

    return place("annotations", annotations) or Path(data or ""), place("images", images)


def several(words: Any) -> tuple[Any, ...]:
    """Words or paths; a single one, whose letters are not meant, is one."""
    return (words,) if isinstance(words, str | os.PathLike) else tuple(words)


def goes_on(folder: Path, resume: bool | Literal["auto"]) -> bool:
    """Whether a run in the folder is resumed; with "auto" it is if there is a checkpoint."""
    return (folder / "last.ckpt").exists() if resume == "auto" else resume


def check_unused(folder: Path) -> None:
    """Raises if the folder of a new run is not empty, temporary files aside."""
    if folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir()):
        anew = "go on with its run by --resume" if (folder / "last.ckpt").exists() else "empty it"
        raise GCNetError(f"{folder} is not empty: {anew}, or give another --out")


def check_data(path: Path) -> None:
    """Raises if there is no such data set, without slow imports."""
    if not path.exists():
        raise GCNetError(
            f"--data {path} does not exist; give the folder of a data set or its annotation file"
        )
