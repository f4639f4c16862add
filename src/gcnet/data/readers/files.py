"""Functions for all readers: JSON, XML, YAML and text files, and which of several files or folders is meant.

Paths from files are checked with `os.path`: for a name that is too long it returns False, `Path` raises.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import os.path
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from gcnet.data.dataset import collection_paused
from gcnet.errors import GCNetError

log = logging.getLogger(__name__)

IMAGE_FOLDERS = ("images", "Images", "JPEGImages", "imgs", "img", "image", "data", "photos")
THREADS = min(8, os.cpu_count() or 1)  # that decode masks: more than processors take longer, and more memory
_INFLATED = 200  # times its size that a compressed file may have: ten times is usual of JSON
_SMALL = 1 << 26

Item = TypeVar("Item")
Value = TypeVar("Value")


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises GCNetError, which names it, if it cannot be read.

    That is also of a pipe, which would be waited for, and of a device, which may have no end.
    """
    if not os.path.isfile(path):
        raise GCNetError(f"{path} cannot be read (no file, or no regular one); give an annotation file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise GCNetError(f"{path} cannot be read ({error.strerror}); give an annotation file") from None


@collection_paused()
def read_json(path: Path) -> Any:
    """The content of a JSON file, which may be gzip-compressed. Raises GCNetError, which names it."""
    data = read_bytes(path)
    try:
        return json.loads(_unpacked(path, data) if path.suffix == ".gz" else data)
    except GCNetError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise GCNetError(f"{path} is not whole ({error}); compress or export it again") from None
    except json.JSONDecodeError as error:
        fault = f"is not JSON ({error.msg} at line {error.lineno}, column {error.colno})"
    except UnicodeDecodeError:
        fault = "is not JSON (not UTF-8 text)"
    except (ValueError, RecursionError):
        fault = "has numbers of thousands of digits, or lists in lists a thousand deep"
    raise GCNetError(f"{path} {fault}; export the annotations again")


def _unpacked(path: Path, data: bytes) -> bytes:
    most = max(_INFLATED * len(data), _SMALL)
    with gzip.open(io.BytesIO(data)) as file:
        unpacked = file.read(most + 1)
    if len(unpacked) > most:
        raise GCNetError(f"{path} unpacks to more than {_INFLATED} times its size; unpack it by hand")
    return unpacked


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises GCNetError for others."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise GCNetError(f"{path} holds no JSON object; export the annotations again")
    return content


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file. Raises GCNetError naming it."""
    data = read_bytes(path)
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise GCNetError(f"{path} is not XML ({error}); export the annotations again") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty if it holds something else. Raises GCNetError, with the line."""
    import yaml

    text = read_text(path)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise GCNetError(
            f"{path} is no YAML{f' ({problem}{where})' if problem else ''}; correct it"
        ) from None
    return content if isinstance(content, dict) else {}


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or else Windows-1252. Raises GCNetError where it cannot be read."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_lines(path: Path) -> list[str]:
    """The lines that have something on them."""
    return [line for line in map(str.strip, split_lines(read_text(path))) if line]


def split_lines(text: str) -> list[str]:
    """The lines of a text with their ends; for `str.splitlines` signs inside of a name are ends, too."""
    return io.StringIO(text, newline="").readlines()


def head_of(path: Path, size: int = 1 << 12) -> bytes:
    """The first bytes of a file; empty if it is no file or cannot be read."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


def readable(
    items: Iterable[Item], read: Callable[[Item], Value], each: Callable[..., Iterable[Any]] = map
) -> list[tuple[Item, Value]]:
    """What `read` makes of each file or entry. Those that raise are left out, with a warning.

    It raises if all do. `each` calls `read`; that of a pool calls it in several threads.
    """
    items = list(items)
    values = list(zip(items, each(partial(_attempt, read), items), strict=True))
    errors = [value for _, value in values if isinstance(value, GCNetError)]
    if errors and len(errors) == len(items):
        raise errors[0]
    if errors:
        log.warning("%d of %d files are left out: %s", len(errors), len(items), errors[0])
    return [(item, value) for item, value in values if not isinstance(value, GCNetError)]


def _attempt(read: Callable[[Item], Value], item: Item) -> Value | GCNetError:
    try:
        return read(item)
    except GCNetError as error:
        return error


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects in a list of JSON; none in what is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def object_in(content: dict[str, Any], key: str) -> dict[str, Any]:
    """The object that JSON has under a key; an empty one where there is none."""
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def object_of(read: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `read` makes of an object; nothing where its values are not those of the format, or damaged.

    Such an annotation has neither a box nor an outline, and is counted as one of those.
    """
    of_masks = (GCNetError, zlib.error)
    try:
        return read(*args)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError, *of_masks):
        return {}


def existing(paths: Iterable[Path]) -> Path | None:
    """The first path that is a file; None where none is."""
    return next((path for path in paths if os.path.isfile(path)), None)


def image_places(*bases: Path) -> list[Path]:
    """Where the images of annotations may be: in each of these folders, and in its folders of images."""
    return [base / name for base in dict.fromkeys(bases) for name in ("", *IMAGE_FOLDERS)]


def folder_with(folders: Sequence[Path], names: Sequence[object]) -> Path:
    """The folder that has most of the images; the first one of several."""
    shortened = [name for name in map(str, names[:20]) if name]
    return max(folders, key=lambda folder: sum(os.path.isfile(folder / name) for name in shortened))
