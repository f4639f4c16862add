"""Downloads one file from one address over HTTP and resumes cut downloads; or copies it from a folder.

The content is not checked here, but in `gcnet.weights.fetch`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gcnet.console import progress_bar
from gcnet.errors import GCNetError

if TYPE_CHECKING:
    from requests import RequestException, Response

CHUNK = 1 << 16  # bytes; of a connection that is cut, less than this is lost

MOST_BYTES = 4 << 30  # of a file; the largest published one has an eighth of it


@dataclass(frozen=True)
class Patience:
    """How long to try: seconds to connect, seconds without data, tries without progress, pause before one.

    In each `window` of seconds `least` bytes a second have to come.
    """

    connect: float = 5.0
    read: float = 20.0
    tries: int = 3
    pause: float = 1.0
    window: float = 30.0
    least: int = 1000


class UnavailableError(Exception):
    """Why an address does not give the file; `missing` if another path of the same place may."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


def download(address: str, part: Path, patience: Patience) -> None:
    """Brings the file at an HTTP address to `part`, going on behind what is there.

    There is no `If-Range`: the caller checks the hash of the whole, and names of published files never
    change their content.

    Raises:
        UnavailableError: the host does not answer or has no such file, or the connection was cut again and
            again. `part` holds what came, for the next try.
        GCNetError: the disk is full or cannot be written.
    """
    import requests

    best, stalled, answered = _size(part), 0, False
    while True:
        try:
            offset = _size(part)
            with _request(address, offset, patience) as response:
                _check(response, address, offset)
                offset = offset if response.status_code == 206 else 0  # or the server ignores the range
                length = response.headers.get("Content-Length", "")
                total = offset + int(length) if length.isdecimal() else None
                if not answered:
                    _announce(response.url, part, offset, total)
                answered = True
                _save(response, part, offset, total, patience)
            return
        except requests.RequestException as error:
            status = None if error.response is None else error.response.status_code
            if status in (206, 416) and _size(part):  # it has no such rest: begin again
                part.unlink()
                continue
            stalled, best = (0, _size(part)) if _size(part) > best else (stalled + 1, best)
            if not answered or stalled >= patience.tries:
                raise UnavailableError(_why(error, patience), missing=status in (403, 404, 410)) from None
            time.sleep(patience.pause * 2**stalled)


def copy(path: Path, part: Path) -> None:
    """Copies a file on this machine. Raises GCNetError if the disk is full or cannot be written."""
    say(f"copying {path} into {part.parent}")
    with cache_errors(part.parent):
        shutil.copyfile(path, part)


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turns an error of the system inside it, but none of a connection, into GCNetError about the cache."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of requests or filelock
            raise
        raise GCNetError(
            f"cannot write in {folder}: {error.strerror}; free space there, or set GCNET_HOME to another "
            "folder"
        ) from None


def host(address: str) -> str:
    """The host of an address, for messages."""
    return urlsplit(address).netloc or address


def say(line: str) -> None:
    """Tells the user on stderr, so that stdout stays clean."""
    print(line, file=sys.stderr, flush=True)


def _request(address: str, offset: int, patience: Patience) -> Response:
    """The answer to a request for the file from byte `offset` on."""
    import requests

    headers = {"Accept-Encoding": "identity"}  # ranges count bytes of the file, not of a compressed form
    if offset:
        headers["Range"] = f"bytes={offset}-"
    timeout = (patience.connect, patience.read)
    return requests.get(address, headers=headers, stream=True, timeout=timeout)


def _check(response: Response, address: str, offset: int) -> None:
    """Raises if this is not the answer of a host that has the file, or another part than was asked for."""
    from requests import HTTPError

    if address.startswith("https:") and response.url.startswith("http:"):
        raise UnavailableError("leads to plain http, on which anybody can change a file")
    response.raise_for_status()
    if "html" in response.headers.get("Content-Type", ""):  # an expired domain, a login page
        raise UnavailableError("answers with a web page")
    follows = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    if response.status_code == 206 and not follows:
        raise HTTPError(response=response)


def _save(response: Response, part: Path, offset: int, total: int | None, patience: Patience) -> None:
    """Writes the body to `part` from byte `offset` on, with a progress bar on a terminal.

    After an error the part is kept: the download is resumed.
    """
    import requests

    bar = progress_bar(disable=not sys.stderr.isatty(), transient=True, of_bytes=True)
    with cache_errors(part.parent), open(part, "ab" if offset else "wb") as file, bar:
        task = bar.add_task("", total=total, completed=offset)
        begin, began = offset, time.monotonic()
        for chunk in _chunks(response):
            offset += len(chunk)
            if (passed := time.monotonic() - began) > patience.window:
                if offset - begin < passed * patience.least:
                    raise UnavailableError(f"sends less than {patience.least} bytes a second")
                begin, began = offset, time.monotonic()
            if offset > MOST_BYTES:
                raise UnavailableError(f"sends more than {_megabytes(MOST_BYTES)}: it is another file")
            file.write(chunk)
            bar.advance(task, len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if total and _size(part) < total:
        raise requests.ConnectionError("the connection was cut")


def _chunks(response: Response) -> Iterator[bytes]:
    """The body as it comes: `iter_content` would wait for whole chunks, of a server that drips for hours."""
    import requests
    import urllib3

    try:
        while chunk := response.raw.read1(CHUNK, decode_content=True):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error


def _announce(url: str, part: Path, offset: int, total: int | None) -> None:
    """Says what comes from where. Raises GCNetError if there is no room for it: nothing is written then."""
    missing = total - offset if total else 0
    if missing > shutil.disk_usage(part.parent).free:
        raise GCNetError(
            f"no room for {part.stem}: {_megabytes(missing)} more are needed in {part.parent}; free space "
            "there, or set GCNET_HOME to another folder"
        )
    size = f" ({_megabytes(total)})" if total else ""
    say(f"fetching {part.stem}{size} from {host(url)} into {part.parent}")


def _why(error: RequestException, patience: Patience) -> str:
    """A few words on what went wrong; the library's own messages are pages of nested names."""
    from requests import exceptions as kinds

    if isinstance(error, kinds.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}".strip()
    text = str(error)
    cut = (kinds.ConnectionError, kinds.ChunkedEncodingError)
    reasons = (
        (isinstance(error, kinds.ConnectTimeout), f"no connection within {patience.connect:g} s"),
        (
            isinstance(error, kinds.Timeout) or "Read timed out" in text,
            f"no answer within {patience.read:g} s",
        ),
        (isinstance(error, kinds.InvalidSchema), "not an address that begins with http(s):// or file://"),
        (isinstance(error, kinds.SSLError), "its certificate is not accepted"),
        (isinstance(error, kinds.ProxyError), "the proxy does not let it through"),
        ("NameResolutionError" in text, "host not found"),
        ("NewConnectionError" in text, "no connection"),
        (isinstance(error, cut), "the connection was cut"),
    )
    first = text.splitlines()[0] if text else type(error).__name__
    return next((words for applies, words in reasons if applies), first)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size} bytes"
