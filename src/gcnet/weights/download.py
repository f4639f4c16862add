"""Fetches published weights: once, and never without checking what came.

Order: the cache; the published address; the mirrors that the caller lists; those in `GCNET_MIRRORS`. The
publisher goes first because eight hex digits of a SHA-256 tell damage, not malice. A publisher that is down
costs a few seconds, once for each file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gcnet.errors import GCNetError
from gcnet.weights.cache import Weights, read_cached, sha256, store
from gcnet.weights.transfer import Patience, UnavailableError, copy, download, host, say, unwritable

if TYPE_CHECKING:
    from gcnet.weights.catalog import Row
    from gcnet.weights.classifiers import ClassifierRow


def published_weights(row: Row | ClassifierRow, *, mirrors: Sequence[str] = ()) -> Path:
    """The file of a row's published COCO weights, fetched if need be; see `fetch`.

    Raises:
        GCNetError: nothing is published for the row, or it cannot be had.
    """
    if row.weights is None:
        raise GCNetError(f"there are no published weights of {row.name}: give a file in their place")
    return fetch(row.weights, mirrors=mirrors)


def fetch(weights: Weights, *, mirrors: Sequence[str] = (), patience: Patience | None = None) -> Path:
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
    if cached := read_cached(weights):
        return cached
    listed = re.split(r"[\s,]+", os.environ.get("GCNET_MIRRORS", ""))
    target = store() / weights.file
    with _alone(target):
        if cached := read_cached(weights):  # another process fetched it while this one waited
            return cached
        _fetch(_places(weights, [*mirrors, *listed]), target, weights, patience or Patience())
    return target


def _places(weights: Weights, mirrors: Sequence[str]) -> list[list[str]]:
    """The addresses to try, one list for each place."""
    path = urlsplit(weights.url).path.strip("/").split("/")
    tails = ["/".join(path[start:]) for start in range(len(path))]
    return [[weights.url]] + [[f"{base.rstrip('/')}/{tail}" for tail in tails] for base in mirrors if base]


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Of the processes that want `target`, one at a time."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that fetches {target.name}")
        lock.acquire()
    except OSError as error:
        raise unwritable(target.parent, error) from None
    try:
        yield
    finally:
        lock.release()


def _fetch(places: list[list[str]], target: Path, weights: Weights, patience: Patience) -> None:
    """Tries every place in turn until the file is at `target`."""
    part = target.with_name(f"{target.name}.part")
    if part.is_file() and sha256(part).startswith(weights.sha256):  # ended just before the last step
        os.replace(part, target)
        return
    failures: list[str] = []
    for addresses in places:
        failure = ""
        for address in addresses:
            try:
                _bring(address, part, weights, patience)
                os.replace(part, target)
                return
            except UnavailableError as error:
                failure = f"{host(address)}: {error}"
                if not error.missing:
                    break
        failures.append(failure)
        if len(failures) < len(places):
            say(f"{failure}; trying the next place")
    raise GCNetError(
        f"cannot fetch {target.name} ({'; '.join(failures)}): get {weights.url} by hand and put it into "
        f"{target.parent}, or name a mirror (--mirror or GCNET_MIRRORS)"
    )


def _bring(address: str, part: Path, weights: Weights, patience: Patience) -> None:
    """The file of one address as `part`, whole and checked."""
    if "://" not in address or address.startswith("file://"):
        path = Path(url2pathname(urlsplit(address).path) if "://" in address else address).expanduser()
        if not path.is_file():
            raise UnavailableError("no such file", missing=True)
        _check(path, weights)  # before it is copied: what is half fetched is not given up for it
        copy(path, part)
        return
    if part.is_file():
        download(address, part, patience)
        if sha256(part).startswith(weights.sha256):
            return
        part.unlink()  # perhaps the rest of something else: once more from the start
    download(address, part, patience)
    try:
        _check(part, weights)
    except UnavailableError:
        part.unlink()
        raise


def _check(path: Path, weights: Weights) -> None:
    if not (digest := sha256(path)).startswith(weights.sha256):
        raise UnavailableError(f"another file (its SHA-256 begins with {digest[:8]}, not {weights.sha256})")
