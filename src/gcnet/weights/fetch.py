"""Finds the file that a user names, and caches published files. No torch here: errors come at once.

A file is fetched once, and always checked. Order: the cache; the published address; the mirrors that the
caller lists; those in `GCNET_MIRRORS`. The publisher comes first, because eight hex digits of a SHA-256
detect damage, but no attack. A publisher that is down costs a few seconds, once for each file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gcnet.errors import GCNetError
from gcnet.files import AnyPath, cache_folder, several, user_cache
from gcnet.weights.catalog import ClassifierRow, Row, Weights, find
from gcnet.weights.imagenet import imagenet_weights
from gcnet.weights.transfer import Patience, UnavailableError, cache_errors, copy, download, host, say

MODEL_FILES = ("best.safetensors", "last.safetensors", "model.safetensors")  # of a run; the hub's comes last
LOOPBACK = ("127.0.0.1", "localhost")
SUFFIXES = (".safetensors", ".pth", ".pt", ".pkl", ".bin")
EXPORTS = (".onnx", ".xml", ".pt2")  # models as programs of other runtimes: no weights to read


@dataclass(frozen=True)
class LocalFile:
    """A local file, and its SHA-256 in hex digits if that is known already."""

    path: Path
    sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """Weights that have been found, but not yet fetched or read.

    `row` is the model that they have to fit; without one, the file says what it holds. `place` is a file, a
    published one, or the name of a repository on the Hugging Face hub.
    """

    row: Row | ClassifierRow | None
    place: Path | Weights | str

    def fetch(self, mirrors: Sequence[str] = ()) -> LocalFile:
        """The file itself. Raises GCNetError if it has to be fetched and no place gives it."""
        if isinstance(self.place, Path):
            return LocalFile(self.place)
        if isinstance(self.place, Weights):
            return fetch(self.place, mirrors=mirrors)
        from gcnet.weights.hub import download_model

        return LocalFile(download_model(self.place))


def find_source(model: AnyPath, weights: AnyPath | None = None) -> Source:
    """Finds the file or catalog row that `MODEL --weights W` names.

    Args:
        model: a file, a run folder, a folder or repository of the hub, or a catalog name.
        weights: of a name: "coco", the published ones, which is also the default, a file or folder, or of a
            classifier "imagenet".

    Raises:
        GCNetError: there is no such file or name, nothing is published for it, or a file has weights given.
    """
    if place := find_place(model):
        if weights:
            raise GCNetError(
                f"{place} brings its own weights: leave out --weights, or give a name in place of the file"
            )
        return Source(None, place)
    row = find(os.fspath(model))
    if weights == "imagenet" and isinstance(row, Row):
        raise GCNetError(f"--weights imagenet are those of a backbone alone; {row.name} is a detector")
    return source_of(row, weights or "coco")


def source_of(row: Row | ClassifierRow, weights: AnyPath) -> Source:
    """The source of a row's weights: "coco" for the published ones, "imagenet", a file or a folder.

    Raises GCNetError if there is no such file, or nothing is published.
    """
    if weights == "imagenet":
        return Source(row, imagenet_weights(row.spec.backbone))
    if weights != "coco":
        return Source(row, find_weights(weights))
    if row.weights is None:
        other = "FILE" if isinstance(row, Row) else "imagenet or FILE"
        raise GCNetError(
            f"{row.name} has no published weights: add --weights {other}, or give a run folder in its place"
        )
    return Source(row, row.weights)


def find_weights(weights: AnyPath) -> Path | str:
    """The place of weights that are no catalog name. Raises GCNetError if there is no such file."""
    if place := find_place(weights):
        return place
    raise GCNetError(f"--weights: no such file: {weights}")


def find_place(word: AnyPath) -> Path | str | None:
    """A file, the best one of a run folder, or a hub repository; None for a possible catalog name.

    OWNER/NAME is a repository if there is no folder OWNER here, else a file that is missing.

    Raises GCNetError if `word` is a path, and nothing is there, or an export.
    """
    path = Path(word)
    if path.is_dir():
        if file := next((path / name for name in MODEL_FILES if (path / name).is_file()), None):
            return file
        raise GCNetError(f"{path} is a folder without best, last or model.safetensors: not a run of gcnet")
    if path.is_file():
        if path.suffix in EXPORTS:
            raise GCNetError(f"{path} is an export; give the model that it was made of")
        return path
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        repository = re.fullmatch(r"[\w.-]+/[\w.-]+", os.fspath(word)) and path.suffix not in SUFFIXES
        if repository and not path.parent.exists():
            return os.fspath(word)
        raise GCNetError(f"no such file or folder: {path}")
    return None


def fetch(weights: Weights, *, mirrors: Sequence[str] = (), patience: Patience | None = None) -> LocalFile:
    """The file of `weights` in the cache, checked by its SHA-256.

    Args:
        mirrors: addresses or folders that hold the file under its published path or any end of it, such as
            `gcnet/NAME/NAME.pth` or the bare file name. Those in `GCNET_MIRRORS` (separated by spaces or
            commas) come after them.
        patience: what a slow or dead host is granted.

    Raises:
        GCNetError: no place has it, with what went wrong at each; the disk is full or cannot be written; or
            the cached file is another one.
    """
    listed = re.split(r"[\s,]+", os.environ.get("GCNET_MIRRORS", ""))
    files = (weights, *weights.alternatives)
    if cached := next(filter(None, map(read_cached, files)), None):
        return cached
    failures = []
    for one in files:
        target = store() / one.file
        with _lock(target):
            if cached := read_cached(one):  # another process fetched it while this one waited
                return cached
            try:
                places = _places(one, [*several(mirrors), *listed])
                return LocalFile(target, _fetch(places, target, one, patience or Patience()))
            except UnavailableError as error:
                failures.append(str(error))
    raise GCNetError(
        f"cannot fetch {weights.file} ({'; '.join(failures)}): get {weights.url} by hand and put it into "
        f"{store()}, or name a mirror (--mirror or GCNET_MIRRORS)"
    )


def store() -> Path:
    """The folder of fetched weights: `weights` in our cache."""
    return cache_folder() / "weights"


def find_cached(weights: Weights) -> Path | None:
    """The cached file, unread: in our folder, or where torch.hub and mmdetection put theirs."""
    return next((path for path in (store() / weights.file, _hub() / weights.file) if path.is_file()), None)


def read_cached(weights: Weights) -> LocalFile | None:
    """The cached file if it is whole; None if it has to be fetched.

    It is read through each time: half a second for the largest row, and a file that was copied here by
    hand, or damaged since, is noticed.

    Raises GCNetError if the file in our folder is not the published one. It may be the user's: it stays.
    """
    path = find_cached(weights)
    if path is None:
        return None
    digest = sha256(path)
    if digest.startswith(weights.sha256):
        return LocalFile(path, digest)
    if path.parent != store():
        return None
    raise GCNetError(
        f"{path} is not the published file: its SHA-256 begins with {digest[:8]}, not "
        f"{weights.sha256}; delete it, and it is fetched again"
    )


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub() -> Path:
    home = os.environ.get("TORCH_HOME")
    return (Path(os.path.expanduser(home)) if home else user_cache() / "torch") / "hub" / "checkpoints"


def _places(weights: Weights, mirrors: Sequence[str]) -> list[list[str]]:
    """The addresses to try, a list for each host or mirror."""
    path = urlsplit(weights.url).path.strip("/").split("/")
    tails = ["/".join(path[start:]) for start in range(len(path))]
    return [[weights.url]] + [[f"{base.rstrip('/')}/{tail}" for tail in tails] for base in mirrors if base]


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """A context in which only one process fetches `target`."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with cache_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that fetches {target.name}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(places: list[list[str]], target: Path, weights: Weights, patience: Patience) -> str:
    """Tries every address in turn until the file is at `target`; returns its SHA-256."""
    part = target.with_name(f"{target.name}.part")
    if part.is_file() and (digest := sha256(part)).startswith(weights.sha256):  # ended before the last step
        os.replace(part, target)
        return digest
    failures: list[str] = []
    for addresses in places:
        failure = ""
        for address in addresses:
            try:
                digest = _fetch_from(address, part, weights, patience)
                os.replace(part, target)
                return digest
            except UnavailableError as error:
                failure = f"{host(address)}: {error}"
                if not error.missing:
                    break
        failures.append(failure)
        if len(failures) < len(places):
            say(f"{failure}; trying the next place")
    raise UnavailableError("; ".join(failures))


def _fetch_from(address: str, part: Path, weights: Weights, patience: Patience) -> str:
    """Fetches one address as `part`, whole and checked; returns its SHA-256."""
    if "://" not in address or address.startswith("file://"):
        path = Path(os.path.expanduser(url2pathname(urlsplit(address).path) if "://" in address else address))
        if not path.is_file():
            raise UnavailableError("no such file", missing=True)
        digest = _check(path, weights)  # before it is copied: a download that was cut is not given up for it
        copy(path, part)
        return digest
    if (
        address.startswith("http://")
        and len(weights.sha256) < 64
        and urlsplit(address).hostname not in LOOPBACK
    ):
        raise UnavailableError("plain http, on which a few digits of a hash are no protection: use https")
    resumed = part.is_file()
    download(address, part, patience)
    try:
        return _check(part, weights)
    except UnavailableError:
        part.unlink()
        if not resumed:
            raise
    return _fetch_from(address, part, weights, patience)  # it was perhaps a part of another file


def _check(path: Path, weights: Weights) -> str:
    digest = sha256(path)
    if not digest.startswith(weights.sha256):
        raise UnavailableError(f"another file (its SHA-256 begins with {digest[:8]}, not {weights.sha256})")
    return digest
