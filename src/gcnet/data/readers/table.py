"""Reads object detection data sets of the Hugging Face hub: a row for each image, with its `objects`.

They are Parquet files, whose images are unpacked once into the cache folder, or a `metadata.jsonl` beside the
images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gcnet.data.folders import files_below
from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import head_of, objects_in, read_lines
from gcnet.data.readers.splits import Readers, by_folder, file_a_split
from gcnet.data.source import Source, warn, whole
from gcnet.errors import GCNetError, needs
from gcnet.files import cache_folder, prepare_folder, write_bytes

_CLASS_KEYS = ("category", "categories", "label", "labels", "category_id", "class")
_BOX_KEYS = ("bbox", "bboxes", "box", "boxes")
_OUTLINE_KEYS = ("segmentation", "polygon", "polygons")


def find_table(root: Path) -> Readers:
    """`data/train-00000-of-00001.parquet` and its like, or `train/metadata.jsonl`."""
    files = [root] if root.is_file() else sorted(files_below(root, ".parquet"))
    parquet = [path for path in files if path.suffix == ".parquet" and head_of(path, 4) == b"PAR1"]
    if parquet:  # several are the parts of a split
        parts = by_folder(root, parquet, alone=True, stems=True)
        return {split: partial(_read_parquet, own) for split, own in parts.items()}
    return file_a_split(root, "jsonl", is_list, _read_list)


def is_list(path: Path) -> bool:
    """Whether it is a list of images with their objects, by its name and its first lines."""
    return path.name == "metadata.jsonl" and b'"objects"' in head_of(path, 1 << 16)


def _read_list(path: Path, *_: object) -> Source:
    entries = Entries()
    for id, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise GCNetError(f"{path}: line {id} is no JSON; export it again") from None
        if isinstance(row, dict):
            entries.add_image(row.get("file_name"))
            _add_objects(entries, row.get("objects"), ())
    return entries.source(path, path.parent)


def _read_parquet(files: Sequence[Path]) -> Source:
    parquet, arrow = needs("pyarrow.parquet", "parquet"), needs("pyarrow", "parquet")
    entries = Entries()
    names: tuple[str, ...] = ()
    unpacked = cache_folder() / "tables"
    warn(files[0].parent, f"its images are unpacked into {unpacked}")
    for path in files:
        folder = prepare_folder(unpacked / _mark(path))
        try:
            table = parquet.ParquetFile(path)
            if not {"image", "objects"} <= set(table.schema_arrow.names):
                raise GCNetError(f"{path} has no columns image and objects; see docs/your-data.md")
            names = names or _class_names(table.schema_arrow.metadata)
            batches = table.iter_batches(batch_size=16, columns=["image", "objects"])  # images are large
            for place, row in enumerate(row for batch in batches for row in batch.to_pylist()):
                image = row["image"]
                data = image.get("bytes") if isinstance(image, dict) else image
                if not isinstance(data, bytes):
                    raise GCNetError(f"{path}: image {place} is not in the table; export it with its images")
                entries.add_image(str(_unpack(data, folder / f"{place:08}")))
                _add_objects(entries, row["objects"], names)
        except GCNetError:
            raise
        except (arrow.ArrowException, OSError, ValueError) as error:  # names that are no text are ValueErrors
            line = str(error).partition("\n")[0]
            raise GCNetError(f"{path} cannot be read ({line}); fetch it again") from None
    return replace(entries.source(files[0].parent, files[0].parent, names), within=(unpacked,))


def _mark(path: Path) -> str:
    """A name for the state of a file: it changes with the file."""
    stat = path.stat()
    state = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(state).hexdigest()[:16]


def _unpack(data: bytes, path: Path) -> Path:
    """Writes an image, unless it exists."""
    path = path.with_suffix(".png" if data.startswith(b"\x89PNG") else ".jpg")
    if not (path.is_file() and path.stat().st_size == len(data)):
        write_bytes(path, data)
    return path.absolute()


def _add_objects(entries: Entries, objects: Any, names: Sequence[str]) -> None:
    """Of a mapping of lists, one for each property, or a list of mappings, one for each object."""
    if isinstance(objects, dict):
        columns = {key: value for key, value in objects.items() if isinstance(value, list)}
        count = max(map(len, columns.values()), default=0)
        objects = [{key: value[i] for key, value in columns.items() if i < len(value)} for i in range(count)]
    for place, one in enumerate(objects_in(objects)):
        label = whole(_first(one, _CLASS_KEYS))
        if isinstance(label, int) and 0 <= label < len(names):
            label = names[label]
        drawn = {"bbox": _first(one, _BOX_KEYS), "segmentation": _first(one, _OUTLINE_KEYS)}
        entries.add_object(f"{len(entries.images)}:{place}", label, drawn)


def _first(one: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((one[key] for key in keys if key in one), None)


def _class_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...]:
    """The names of a ClassLabel among the features that `datasets` notes in a table."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]["objects"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(_search_names(features))


def _search_names(features: Any) -> list[str]:
    if isinstance(features, dict):
        if features.get("_type") == "ClassLabel":
            return [name for name in features.get("names", []) if isinstance(name, str)]
        features = list(features.values())
    inner = features if isinstance(features, list) else []
    return next((names for one in inner if (names := _search_names(one))), [])
