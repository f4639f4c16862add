"""The splits of a data set, by the names of its parts: train..., val... and test..."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from gcnet.errors import GCNetError

Part = TypeVar("Part")

PREFIXES = {"train": "train", "val": "valid", "test": "test"}


def name_splits(
    root: Path, parts: Sequence[tuple[str, Part]], *, layout: str, shown: Callable[[Part], object]
) -> dict[str, Part]:
    """The parts of `root` that are "train", "valid" (called val2017, say, or validation) and "test".

    `parts` are names and what they stand for. Raises GCNetError where there are none (`layout` is what there
    could be) or where two claim the same split (which are `shown` so).
    """
    splits: dict[str, Part] = {}
    for prefix, split in PREFIXES.items():
        found = [part for name, part in parts if name.lower().startswith(prefix)]
        if len(found) > 1:
            first, second = map(shown, found[:2])
            raise GCNetError(f"{root} has two {split} splits, {first} and {second}; keep one")
        if found:
            splits[split] = found[0]
    if not splits:
        raise GCNetError(f"{root} holds no data set; expected {layout}")
    return splits


def pick_split(root: str | Path, splits: Mapping[str, Part], split: str) -> Part:
    """One of the splits of `root`. Raises GCNetError if it is not among them."""
    if split not in splits:
        raise GCNetError(f"{root} has no split {split!r}; it has {', '.join(splits)}")
    return splits[split]
