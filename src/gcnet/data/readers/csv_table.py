"""Reads CSV tables with a row for each object: its box, or the run lengths of its mask.

Columns are known by their names in any order: `filename`, `xmin`, `ymin`, `xmax`, `ymax`, `class`, and so on,
as TensorFlow's tutorials, Roboflow and Kaggle have them. A table without names, as of keras-retinanet, has a
path, x1, y1, x2, y2 and a class in each row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gcnet.data.dataset import WHOLE, split_of
from gcnet.data.listed_images import NO_SIZE, own_size
from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import folder_with, head_of, image_places, read_text, split_lines
from gcnet.data.readers.run_lengths import read_runs
from gcnet.data.readers.splits import Readers, file_a_split
from gcnet.data.source import Source, number, warn, warn_of_some
from gcnet.errors import GCNetError
from gcnet.files import several
from gcnet.image_files import has_image_suffix, is_of_masks

# Names of columns, the likeliest first, in small letters and without a prefix such as `bbox_`. Where none is
# there, a name that has one of their words in it will do: `image_names`, `cell_type`.
_IMAGE = (
    *("filename", "imagefilename", "filepath", "imagepath", "imagefile", "imagename", "imgpath", "imgname"),
    *("imgfile", "file", "path", "image", "img", "frame", "imageid", "imgid", "name", "id"),
)
_CLASS = (
    *("classname", "class", "labelname", "label", "categoryname", "category", "objectname", "object", "type"),
    *("classid", "labelid", "categoryid", "annotationtag", "name"),
)
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("left", "top", "right", "bottom"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("upperleftcornerx", "upperleftcornery", "lowerrightcornerx", "lowerrightcornery"),  # of LISA
)
_SIDES = tuple(
    (*corner, *sides)
    for corner in (("x", "y"), ("left", "top"), ("xmin", "ymin"))
    for sides in (("w", "h"), ("width", "height"))
)
_IN_ONE = ("bbox", "bboxes", "box", "boxes", "boundingbox")  # [x, y, width, height] in one cell
_RUNS = ("encodedpixels", "rle", "rlemask", "maskrle", "annotation", "segmentation")
_SIZES = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("width", "height"))
_SPLIT = ("split", "subset", "set", "datasplit", "partition")
_NOTHING = ("", "nan", "none", "null")


@dataclass(frozen=True)
class Columns:
    """Where a table has what: the numbers of its columns, empty where it has none.

    `drawn` is of run lengths if `runs`, or else of boxes, one column or four, which are two corners if
    `corners`; `size` is the image's width and height, `split` names a split.
    """

    image: int
    drawn: tuple[int, ...]
    corners: bool = False
    runs: bool = False
    label: tuple[int, ...] = ()
    size: tuple[int, ...] = ()
    crowd: tuple[int, ...] = ()
    split: tuple[int, ...] = ()
    has_names: bool = True


UNNAMED = Columns(0, (1, 2, 3, 4), corners=True, label=(5,), has_names=False)


def find_csv(root: Path) -> Readers:
    """`annotations.csv`, `data/train_labels.csv` and `data/test_labels.csv`, or `train/_annotations.csv`.

    The splits of a table that is alone may also be in a column of it.
    """
    found = file_a_split(root, "csv", is_csv_table, _read_table)
    whole = found.get(WHOLE)
    return (_in_column(*whole.args[:2]) if isinstance(whole, partial) else {}) or found


def _in_column(path: Path, root: Path) -> Readers:
    """The splits that a column names; none without training and another."""
    columns = _columns_at_first(path)
    if columns is None or not columns.split:
        return {}
    (place,), rows = columns.split, _numbered(table_rows(path), columns)
    parts: dict[str | None, dict[int, list[str]]] = {}
    for n, row in rows.items():
        split = split_of(row[place]) if len(row) > place else None
        parts.setdefault(None if split == WHOLE else split, {})[n] = row
    if not {"train"} < parts.keys() - {None}:
        return {}
    left = parts.pop(None, {})
    names_left = [row[columns.image] if len(row) > columns.image else f"row {n}" for n, row in left.items()]
    warn_of_some(path, names_left, len(rows), "rows are of no split and not read")
    names = sorted({_label(row, columns) for row in rows.values()} - {""})
    return {
        split: partial(read_rows, path, root, split, parts[split], columns, names)
        for split in ("train", "valid", "test")
        if split in parts
    }


def is_csv_table(path: Path) -> bool:
    """Whether a file is a table of objects, by its first rows."""
    return path.suffix.lower() == ".csv" and _columns_at_first(path) is not None


def _columns_at_first(path: Path) -> Columns | None:
    text = head_of(path, 1 << 16).decode("utf-8-sig", errors="replace")
    try:
        return _columns(list(_rows(split_lines(text)[:20])))
    except csv.Error:
        return None


def _rows(lines: Sequence[str]) -> Iterable[list[str]]:
    first = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(",;\t", key=first.count))
    return (row for row in reader if not _is_blank(row))  # spreadsheets leave ",,,"


def _columns(rows: Sequence[Sequence[str]]) -> Columns | None:
    """The columns of a table with these first rows; None if it has no images or boxes."""
    if not rows:
        return None
    plain = [re.sub(r"[^a-z\d]", "", name.lower()) for name in rows[0]]
    places = {name: place for place, name in reversed(list(enumerate(plain)))}
    # `bbox_x` is of the box where `width` may be the image's.
    places |= {re.sub("^(bbox|box|roi)(?=.)", "", name): place for name, place in places.items()}
    likely = [name for name in plain if re.search("image|file|path", name)]
    image = _first(places, (*_IMAGE, *likely))
    corners, sides = _first(places, _CORNERS), _first(places, _SIDES)
    runs = () if corners or sides else _first(places, _RUNS)
    cells = [row[place] for place in runs for row in rows if len(row) > place]
    runs = runs if any(re.match(r"\s*\d+ +\d+( +\d|\s*$)", cell) for cell in cells) else ()
    drawn = corners or sides or runs or _first(places, _IN_ONE)
    if image and drawn:
        free = {name: place for name, place in places.items() if place not in (*image, *drawn)}
        likely = [name for name in plain if name.endswith(("class", "label", "category", "type", "name"))]
        label, size = _first(free, (*_CLASS, *likely)), _first(free, _SIZES)
        crowd, split = _first(free, ("isgroupof",)), _first(free, _SPLIT)
        return Columns(image[0], drawn, bool(corners), bool(runs), label, size, crowd, split)
    return _unnamed(rows)


def _unnamed(rows: Sequence[Sequence[str]]) -> Columns | None:
    """Those of a table of keras-retinanet's: a path, x1, y1, x2, y2 and a class."""
    if not all(len(row) >= 6 and _is_image(row[0]) for row in rows):
        return None
    boxes = [row[1:5] for row in rows if not _is_blank(row[1:5])]
    if not boxes or np.isnan(_numbers(boxes)).any():
        return None
    return UNNAMED


def _first(places: dict[str, int], choices: Iterable[str | Sequence[str]]) -> tuple[int, ...]:
    """The columns of the first of the `choices`, a name or several, that are all there; empty if none are."""
    found = (several(names) for names in choices if places.keys() >= {*several(names)})
    return tuple(places[name] for name in next(found, ()))


def _is_image(name: str) -> bool:
    return has_image_suffix(name.replace("\\", "/").rsplit("/", 1)[-1])


def _is_blank(cells: Iterable[str]) -> bool:
    return all(cell.strip().lower() in _NOTHING for cell in cells)


def _numbers(cells: Sequence[Sequence[str]]) -> Float[np.ndarray, "N 4"]:
    """Boxes of four cells, or of one with four numbers in it; NaN for what is no number."""
    split = [re.findall(r"[^\s,\[\]()]+", row[0]) if len(row) == 1 else row for row in cells]
    rows = [[number(cell) for cell in row] if len(row) == 4 else [np.nan] * 4 for row in split]
    return np.array(rows, np.float64).reshape(-1, 4)


def table_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file that are not blank. Raises GCNetError, which names it."""
    text = read_text(path)
    usual = csv.field_size_limit(max(len(text), 1))  # of outlines and run lengths a cell can be long
    try:
        return list(_rows(split_lines(text)))
    except csv.Error as error:
        raise GCNetError(f"{path} is no CSV table ({error}); export it again") from None
    finally:
        csv.field_size_limit(usual)


def _read_table(path: Path, root: Path, split: str) -> Source:
    rows = table_rows(path)
    columns = _columns(rows[:20])
    if columns is None:
        raise GCNetError(f"{path} has no columns of images and objects; see docs/your-data.md")
    return read_rows(path, root, split, _numbered(rows, columns), columns)


def _numbered(rows: Sequence[list[str]], columns: Columns) -> dict[int, list[str]]:
    """The rows by number, without the names of columns, which are there again where tables were joined."""
    return {n: row for n, row in enumerate(rows, start=1) if not (columns.has_names and row == rows[0])}


def _label(row: Sequence[str], columns: Columns) -> str:
    return "".join(row[place].strip() for place in columns.label if place < len(row))


def read_rows(
    path: Path,
    root: Path,
    split: str,
    rows: Mapping[int, list[str]],
    columns: Columns,
    listed: Sequence[str] = (),
) -> Source:
    """The images and objects of a file's rows; the images are beside it or above it, up to `root`.

    The rows are by their numbers. The classes are those met or `listed`.
    """
    width = max(columns.image, *columns.drawn, *columns.label) + 1
    whole = {n: row for n, row in rows.items() if len(row) >= width and row[columns.image].strip()}
    left = [f"row {n}" for n in rows if n not in whole]
    warn_of_some(path, left, len(rows), "rows are cut off or name no image; left out")
    folders = _folders(root, path, split)
    names = _named(folders, [row[columns.image].strip() for row in whole.values()])
    folder = folder_with(folders, list(dict.fromkeys(names)))
    entries = Entries()
    image_of: dict[str, dict[str, Any]] = {}
    for name, row in zip(names, whole.values(), strict=True):
        image = image_of.get(name) or image_of.setdefault(name, entries.add_image(name))
        size = [number(row[place]) for place in columns.size if place < len(row)]
        if len(size) == 2 and min(size) >= 1:
            image["width"], image["height"] = size
    images = {n: image_of[name] for n, name in zip(whole, names, strict=True)}
    kept = {n: row for n, row in whole.items() if not _is_blank(row[place] for place in columns.drawn)}
    cells = [[row[place] for place in columns.drawn] for row in kept.values()]
    found = _drawn(path, columns, cells, [images[n] for n in kept], folder)
    for (n, row), drawn in zip(kept.items(), found, strict=True):
        crowd = "".join(row[place] for place in columns.crowd if place < len(row))
        drawn |= {"image_id": images[n]["id"], "iscrowd": crowd}
        entries.add_object(f"row {n}", _label(row, columns), drawn)
    return entries.source(path, folder, listed)


def _drawn(
    path: Path,
    columns: Columns,
    cells: Sequence[Sequence[str]],
    images: Sequence[dict[str, Any]],
    folder: Path,
) -> list[dict[str, Any]]:
    """The box or mask of each object; `cells` and `images` are theirs."""
    own = cache(lambda name: own_size(folder / name))
    if columns.runs:
        # An image of another size than the table says is named by the look at all images before a training.
        said = [(own(image["file_name"]), (image["height"], image["width"])) for image in images]
        sizes = [size if one in (size, (None, None)) else NO_SIZE for size, one in said]
        return read_runs(path, [row[0] for row in cells], sizes)
    boxes, corners = _numbers(cells), columns.corners
    shares = bool(np.nanmax(boxes, initial=0) <= 1 and boxes.size)
    if shares or len(columns.drawn) == 1:
        sizes = np.array([_size(image, own) for image in images], np.float64).reshape(-1, 2)[:, ::-1]
        if shares:
            boxes = boxes * np.tile(sizes, 2)
        beyond = boxes[:, :2] + boxes[:, 2:] > sizes + 1
        if len(columns.drawn) == 1 and beyond.any() and not (boxes[:, 2:] <= boxes[:, :2]).any():
            corners = True
            warn(path, "boxes are taken for two corners; as corner and size they leave images")
    if corners:
        first, second = boxes[:, :2], boxes[:, 2:]
        if swapped := np.count_nonzero((second < first).any(1)):  # of mirrored images
            warn(path, f"{swapped} of {len(boxes)} boxes have their corners in another order")
        boxes = np.concatenate([np.minimum(first, second), np.abs(second - first)], 1)
    return [{"bbox": box} for box in boxes.tolist()]


def _size(image: dict[str, Any], own: Callable[[str], tuple[int, int]]) -> tuple[float, float]:
    """(height, width) of an image, as the table or else the image says; NaN of one that cannot be read."""
    if image["width"] is not None:
        return image["height"], image["width"]
    size = own(image["file_name"])
    return (np.nan, np.nan) if size == NO_SIZE else size


def _folders(root: Path, path: Path, split: str) -> list[Path]:
    """Where the images of a table may be: beside it or above, in folders of images and of its split."""
    bases = [path.parent, *(base for base in path.parent.parents if base.is_relative_to(root))]
    folders = [place for place in image_places(*bases) if place.is_dir()]
    of_split = [one for folder in folders for one in sorted(folder.glob("*/")) if split_of(one.name) == split]
    return list(dict.fromkeys([*folders, *of_split]))


def _named(folders: Sequence[Path], names: list[str]) -> list[str]:
    """The names with their endings: some tables have ids in place of files."""
    if any(map(_is_image, names)):
        return names
    endings: dict[str, str] = {}
    for folder in folders:
        if not is_of_masks(folder.name):
            for file in folder.iterdir():
                if has_image_suffix(file.name):
                    endings.setdefault(file.stem, file.suffix)
    return [name + endings.get(name, "") for name in names]
