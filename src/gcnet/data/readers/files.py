"""Functions for all readers: JSON, XML, YAML and text files, the images of annotations, and splits.

Paths from files are checked with `os.path`: for a name that is too long it returns False, `Path` raises.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import logging
import os.path
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from gcnet.console import listed, shown
from gcnet.data.dataset import WHOLE, collection_paused, is_dev, name_splits, split_of
from gcnet.data.folders import files_below, is_hidden
from gcnet.data.source import Source
from gcnet.errors import GCNetError
from gcnet.image_files import IMAGE_SUFFIXES, has_image_suffix

log = logging.getLogger(__name__)

Readers = dict[str, Callable[[], Source]]

IMAGE_FOLDERS = ("images", "Images", "JPEGImages", "imgs", "img", "image", "data", "photos")
_INFLATED = 200  # times its size that a compressed file may have: ten times is usual of JSON
_SMALL = 1 << 26
MOST_FILES = 100  # that may be one a split each: more are one an image, in another format
_MOST_TRIED = 1000  # files that may be of another format before the first that is read

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


def readable(paths: Iterable[Path], read: Callable[[Path], Value]) -> list[tuple[Path, Value]]:
    """What `read` makes of each file. Those that raise are left out, with a warning; it raises if all do."""
    found: list[tuple[Path, Value]] = []
    errors: list[GCNetError] = []
    for path in paths:
        try:
            found.append((path, read(path)))
        except GCNetError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    if errors:
        log.warning("%d of %d files are left out: %s", len(errors), len(found) + len(errors), errors[0])
    return found


def warn_of_some(place: Path, found: Sequence[str], total: int, problem: str, outcome: str = "") -> None:
    """Warns of what is `found` to have a problem, of `total`, with the first of them; silent of nothing."""
    if found:
        count = f"{len(found)} of {total}"
        log.warning("%s: %s %s (first: %s)%s", place, count, problem, shown(found[0]), outcome)


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects in a list of JSON; none in what is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def object_of(read: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `read` makes of an object; nothing where its values are not those of the format, or damaged.

    Such an annotation has neither a box nor an outline, and is counted as one of those.
    """
    of_masks = (GCNetError, zlib.error)
    try:
        return read(*args)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError, *of_masks):
        return {}


def existing(paths: Iterable[Path]) -> Path:
    """The first path that is a file, or else the first path."""
    paths = iter(paths)
    first = next(paths)
    return next((path for path in itertools.chain([first], paths) if os.path.isfile(path)), first)


class ImagesBeside:
    """Finds the images of annotation files, by the name in the file or of the same stem.

    Where files are renamed and their content is not, the name in one can be the image of another.
    """

    def __init__(self) -> None:
        self.others: list[str] = []
        self.folders: dict[Path, list[Path]] = {}

    def of(self, path: Path, name: str, folders: Sequence[Path] = ()) -> str:
        """The absolute path of the image of an annotation file with `name` in it."""
        if path.parent not in self.folders:
            self.folders[path.parent] = _folders_of_images(path.parent, folders)
        folders = self.folders[path.parent]
        named = name.replace("\\", "/")
        last = named.rsplit("/", 1)[-1]
        names = [named, last] if has_image_suffix(last) else []
        own = [f"{path.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
        stem = last.rpartition(".")[0]
        if names and stem != path.stem and os.path.isfile(path.with_name(stem + path.suffix)):
            beside = existing(folder / one for one in own for folder in folders)
            if os.path.isfile(beside):
                self.others.append(path.name)
                return str(beside.absolute())
        return str(existing(folder / one for one in names + own for folder in folders).absolute())

    def tell(self, place: Path, total: int) -> None:
        """Warns of the files that name the image of another."""
        outcome = "; that of their own name is taken"
        warn_of_some(place, self.others, total, "files name the image of another", outcome)


def _folders_of_images(folder: Path, first: Sequence[Path]) -> list[Path]:
    """Where the images of annotation files in a folder may be: there, or `images/train` of `labels/train`."""
    above = [(folder, ""), (folder.parent, ""), (folder.parent.parent, folder.name)]
    places = (base / name / rest for base, rest in above for name in ("", *IMAGE_FOLDERS))
    return [place for place in dict.fromkeys([*first, *places]) if os.path.isdir(place)]


def folder_with(folders: Sequence[Path], names: Sequence[object]) -> Path:
    """The folder that has most of the images; the first one of several."""
    shortened = [name for name in map(str, names[:20]) if name]
    return max(folders, key=lambda folder: sum(os.path.isfile(folder / name) for name in shortened))


def file_an_image(
    root: Path,
    suffix: str,
    fits: Callable[[Path], bool],
    read: Callable[[Path, Sequence[Path]], Source],
) -> Readers:
    """Splits of a format with a file beside each image: those in folders of their names, or all in one."""
    if root.is_file():
        return {WHOLE: partial(read, root.parent, [root])} if fits(root) else {}
    paths = sorted(files_below(root, f".{suffix}"))
    if not any(map(fits, paths[:_MOST_TRIED])):
        return {}
    files = [path for path in paths if fits(path)]
    readers: Readers = {}
    for split, own in by_folder(root, files, alone=True).items():
        common = Path(os.path.commonpath([path.parent for path in own]))
        readers[split] = partial(read, root if split == WHOLE else common, own)
    return readers


def file_a_split(
    root: Path, suffix: str, fits: Callable[[Path], bool], read: Callable[[Path, Path, str], Source]
) -> Readers:
    """Splits of a format with a file for each, by its name or its folder's: in the folder, or a level deeper.

    `read` takes a file, the folder of the data set and the split. Files of no split are named. Raises
    GCNetError for several, none of which has the name of a split.
    """
    if root.is_file():
        return {WHOLE: partial(read, root, root.parent, WHOLE)} if fits(root) else {}
    ending = "*." + "".join(f"[{letter}{letter.upper()}]" for letter in suffix)
    for above in ("", "*/", "*/*/"):
        paths = [path for path in sorted(root.glob(above + ending)) if not is_hidden(root, path)]
        found = [path for path in paths[:MOST_FILES] if fits(path)]
        splits = splits_of(root, [(_split_name(root, path), path) for path in found])
        if found and not splits:
            names = listed([shown(path.relative_to(root).as_posix()) for path in found], 3)
            raise GCNetError(f"{root} has {len(found)} annotation files, {names}; give one as --data FILE")
        if splits:
            warn_of_left(root, found, splits)
            return {split: partial(read, path, root, split) for split, path in splits.items()}
    return {}


def _split_name(root: Path, path: Path) -> str:
    """The name of a file, its folder, or one further out, that has a split in it; or else its folder's."""
    names = (path.stem, *path.relative_to(root).parts[:-1])
    return next(filter(split_of, (names[0], names[-1], *names)), names[-1])


def warn_of_left(root: Path, found: Sequence[Path], splits: Mapping[str, Path]) -> None:
    """Names what was `found` and is none of the `splits`."""
    left = [shown(path.relative_to(root).as_posix()) for path in found if path not in splits.values()]
    if left:
        log.warning("%s: not read, because of no split: %s", root, listed(left, 3))


def splits_of(root: Path, parts: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """By `name_splits`; a single one of no split is for training beside others, or all there is."""
    splits = name_splits(root, parts)
    left = [path for _, path in parts if path not in splits.values()]
    if len(left) == 1 and not splits.keys() & {"train", WHOLE}:  # `boxes.csv` beside `boxes_test.csv`
        return {"train" if splits else WHOLE: left[0]} | splits
    return splits


def by_folder(
    root: Path, paths: Sequence[Path], *, alone: bool = False, stems: bool = False
) -> dict[str, list[Path]]:
    """Files by the split that the outermost such folder above them is named after.

    Folders that all are in do not count where those below are of several splits. What is in none is for
    training beside validation or test; beside all of them it is left out, with a warning. All are in one
    where no folder is a split's, or a single one of training beside others: a class may have such a name. So
    they are in a single one of another split, but for `alone`. With `stems` a file's own name up to a `-`
    counts as the innermost folder.
    """
    folders: dict[Path, list[str]] = {}
    for path in paths:
        own = [path.stem.split("-")[0]] if stems else []
        folders[path] = [*path.relative_to(root).parts[:-1], *own]
    levels = zip(*folders.values(), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda level: len({*level}) == 1, levels))
    part_of = {path: _split_part(above) for path, above in folders.items()}
    inner = {path: _split_part(above[shared:]) for path, above in folders.items()}
    with contextlib.suppress(GCNetError):  # folders below that of one split may have any names
        if len(_splits_among(root, inner.values())) > 1:
            part_of = inner
    splits = _splits_among(root, part_of.values())
    parts = {split: [path for path in paths if part_of[path] == name] for split, name in splits.items()}
    left = [path for path in paths if part_of[path] not in splits.values()]
    is_alone = not left and len(parts) == 1 and "train" not in parts
    if not parts or (left and parts.keys() == {"train"}) or (is_alone and not alone):
        return {WHOLE: list(paths)}
    if left and "train" not in parts and WHOLE not in parts:
        return {"train": left} | parts
    names_left = [path.relative_to(root).as_posix() for path in left]
    warn_of_some(root, names_left, len(paths), "files are in the folder of no split and not read")
    return parts


def _splits_among(root: Path, names: Iterable[str | None]) -> dict[str, str]:
    return name_splits(root, [(name, name) for name in dict.fromkeys(filter(None, names))])


def _split_part(parts: Sequence[str]) -> str | None:
    named = [part for part in parts if split_of(part)]
    return (named or list(filter(is_dev, parts)) or [None])[0]
