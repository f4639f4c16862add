"""What `--data` names: the reader that knows it, and its splits as data sets."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gcnet.console import listed
from gcnet.data.annotations import Source, build, build_splits
from gcnet.data.coco import find_coco
from gcnet.data.dataset import WHOLE, DataSet, ImageRecord, pick_split
from gcnet.data.formats import find_cvat, find_labelme, find_via, find_voc, find_yolo
from gcnet.errors import GCNetError

log = logging.getLogger(__name__)

# Each finds the splits of a folder in its format, and how each is read; none where there is nothing of it.
READERS: Sequence[Callable[[Path], dict[str, Callable[[], Source]]]] = (
    find_coco,
    find_yolo,
    find_via,
    find_voc,
    find_cvat,
    find_labelme,
)

FORMATS = "COCO, YOLO, VIA, Pascal VOC, CVAT or LabelMe, see docs/train-your-own.md"
_SEEN = (".json", ".gz", ".xml", ".yaml", ".txt", ".csv")  # suffixes that annotations may have


def load_splits(
    root: str | Path, *, val_fraction: float = 0.2, crowd_as_objects: bool = False
) -> dict[str, DataSet[ImageRecord]]:
    """Every split of a data set, all with the classes of the first (the training split if any).

    A set that is not divided is: `val_fraction` of its images, drawn by a fixed seed, are "valid".
    Raises GCNetError where there is none, or what is there is of no use.
    """
    sources = {split: read() for split, read in find_splits(root).items()}
    return _divide(build_splits(sources, crowd_as_objects=crowd_as_objects), val_fraction)


def load_split(
    root: str | Path,
    split: str,
    class_names: Sequence[str] | None = None,
    *,
    val_fraction: float = 0.2,
    crowd_as_objects: bool = False,
) -> DataSet[ImageRecord]:
    """One split of a data set, with the classes of a trained model. Raises GCNetError without it."""
    found = find_splits(root)
    if WHOLE in found and split not in found:
        whole = build(found[WHOLE](), class_names, crowd_as_objects=crowd_as_objects)
        return pick_split(root, _divide({WHOLE: whole}, val_fraction), split)
    read = pick_split(root, found, split)
    return build(read(), class_names, crowd_as_objects=crowd_as_objects)


def find_splits(root: str | Path) -> dict[str, Callable[[], Source]]:
    """How each of the splits of `root` is read: "train", "valid" and "test", or "all" if it is not divided.

    Raises GCNetError where there are none or where two claim the same name.
    """
    root = Path(root)
    if not root.exists():
        raise GCNetError(f"{root} does not exist; give the folder of a data set, or its annotation file")
    for find in READERS:
        if found := find(root):
            return found
    raise GCNetError(f"{root} holds no data set that is known ({FORMATS}); {_seen(root)}")


def _seen(root: Path) -> str:
    """What there is instead, in a few words."""
    files = [path for path in itertools.islice(root.rglob("*"), 100_000) if path.suffix in _SEEN]
    if not files:
        return "there is no JSON, XML, YAML or TXT file in it"
    counts = Counter(path.suffix for path in files)
    named = [
        next(str(path.relative_to(root)) for path in files if path.suffix == suffix) for suffix in counts
    ]
    kinds = [
        f"{count} {suffix} (such as {name[-40:]})"
        for (suffix, count), name in zip(counts.items(), named, strict=True)
    ]
    return f"of files there are {listed(kinds, 3)}"


def _divide(splits: dict[str, DataSet[ImageRecord]], fraction: float) -> dict[str, DataSet[ImageRecord]]:
    """A set that is not divided into splits, in two: an image is always in the same part."""
    if WHOLE not in splits:
        return splits
    whole, count = splits[WHOLE], len(splits[WHOLE])
    if count < 2 or fraction == 0:
        return {"train": whole, **{name: data for name, data in splits.items() if name != WHOLE}}
    amount = min(max(round(count * fraction), 1), count - 1)
    held = np.random.default_rng(0).permutation(count)[:amount]
    valid = np.isin(np.arange(count), held)
    log.warning(
        "%s is not divided into splits: %d of its %d images, drawn at random, are held out for validation",
        whole.source,
        len(held),
        count,
    )
    parts = {
        split: replace(whole, records=[whole.records[i] for i in np.flatnonzero(where).tolist()])
        for split, where in (("train", ~valid), ("valid", valid))
    }
    return {**parts, **{name: data for name, data in splits.items() if name != WHOLE}}
