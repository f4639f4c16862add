"""Finds the files of the splits of a data set, by the names of files and folders."""

from __future__ import annotations

import contextlib
import itertools
import os.path
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from gcnet.console import listed, shown
from gcnet.data.dataset import WHOLE, is_dev, name_splits, split_of
from gcnet.data.folders import files_below, is_hidden
from gcnet.data.readers.files import head_of
from gcnet.data.source import Source, warn, warn_of_some
from gcnet.errors import GCNetError

Readers = dict[str, Callable[[], Source]]
MOST_FILES = 100  # that may be one a split each: more are one an image, in another format
_ENDS = {".json": (b"{}", b"[]"), ".xml": (b"<>",)}  # what files begin and end with
_LARGE = 1 << 26  # bytes: no file of one image is larger
_MOST_TRIED = 1000  # files, and folders, that may be of another format before the first that is read


def file_an_image(
    root: Path,
    ending: str,
    fits: Callable[[Path], bool],
    read: Callable[[Path, Sequence[Path]], Source],
) -> Readers:
    """Splits of a format with a file for each image: those in folders of their names, or all in one.

    `ending` is that of the files' names, in small letters. Damaged files beside those that fit are passed to
    `read` too, which names them.
    """
    if root.is_file():
        return {WHOLE: partial(read, root.parent, [root])} if fits(root) else {}
    paths = sorted(files_below(root, ending))
    firsts = {path.parent: path for path in reversed(paths)}.values()  # of each folder
    if not any(map(fits, itertools.chain(paths[:_MOST_TRIED], itertools.islice(firsts, _MOST_TRIED)))):
        return {}
    fitting = {path for path in paths if fits(path)}
    ends = _ENDS.get(ending[ending.rfind(".") :], ())
    beside = {path.parent for path in fitting} if ends else set()
    files = [path for path in paths if path in fitting or (path.parent in beside and _is_damaged(path, ends))]
    readers: Readers = {}
    for split, own in by_folder(root, files, alone=True).items():
        common = Path(os.path.commonpath([path.parent for path in own]))
        readers[split] = partial(read, root if split == WHOLE else common, own)
    return readers


def _is_damaged(path: Path, ends: Sequence[bytes]) -> bool:
    """Whether a file begins and ends with none of these pairs of bytes."""
    content = head_of(path, _LARGE)
    trimmed = content.strip(b"\xef\xbb\xbf \t\r\n")
    return len(content) < _LARGE and trimmed[:1] + trimmed[-1:] not in ends


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
        warn(root, f"not read, because of no split: {listed(left, 3)}")


def splits_of(root: Path, parts: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """By `name_splits`; a single one of no split is for training beside others, or all there is."""
    splits = name_splits(root, parts)
    return with_only([path for _, path in parts if path not in splits.values()], splits)


def with_only(left: Sequence[Path], splits: dict[str, Path]) -> dict[str, Path]:
    """The splits, and what is `left` of no split: a single one, where there is none to train on."""
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
    warn_of_some(root, left, len(paths), "files are in the folder of no split and not read")
    return parts


def _splits_among(root: Path, names: Iterable[str | None]) -> dict[str, str]:
    return name_splits(root, [(name, name) for name in dict.fromkeys(filter(None, names))])


def _split_part(parts: Sequence[str]) -> str | None:
    named = [part for part in parts if split_of(part)]
    return (named or list(filter(is_dev, parts)) or [None])[0]
