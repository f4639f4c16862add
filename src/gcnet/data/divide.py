"""Divides a data set without splits into training and validation images."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from gcnet.console import shown
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.readers.files import read_object
from gcnet.data.source import warn, whole
from gcnet.errors import GCNetError
from gcnet.files import write_json


@dataclass(frozen=True)
class Division:
    """How a data set without splits is divided. Equal settings give equal parts.

    Attributes:
        val_fraction: share of the images that is held out, drawn with a fixed seed; 0 holds out none.
        group_by: a field of COCO's image entries, such as `patient`, or a regular expression for the path of
            an image. Images with equal values or matches are in the same part.
        split_file: a `split.json`, whose validation images are held out again; the other fields are ignored.

    Raises GCNetError for a fraction that is none.
    """

    val_fraction: float = 0.2
    group_by: str = ""
    split_file: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise GCNetError(f"val_fraction is {self.val_fraction}; give 0 or more, less than 1")


def divide(
    dataset: DataSet[ImageRecord], entries: Sequence[Mapping[str, Any]], division: Division
) -> dict[str, DataSet[ImageRecord]]:
    """ "train" and "valid" of a data set; `entries` are the images as annotated.

    Raises GCNetError where a group or the split file has nothing to do with the images.
    """
    if division.split_file:
        return _as_listed(dataset, Path(division.split_file))
    if len(dataset) < 2 or division.val_fraction == 0:
        return {"train": dataset}
    groups = _groups(dataset, entries, division.group_by)
    valid = _draw(groups, division.val_fraction)
    by = f", all of the same {shown(division.group_by)} together" if division.group_by else ""
    held = f"{valid.sum()} of its {len(dataset)} images, drawn at random{by}, are held out for validation"
    warn(dataset.source, f"it is not divided into splits: {held}")
    return {"train": _part(dataset, ~valid), "valid": _part(dataset, valid)}


def warn_of_unused_file(split_file: str, source: str | Path) -> None:
    """Warns that a split file, if one is given, has no effect on data with splits of its own.

    Raises GCNetError if there is no such file.
    """
    if split_file:
        read_object(Path(split_file))
        warn(source, f"it has splits of its own: --split-file {split_file} is passed over")


def part_of(
    dataset: DataSet[ImageRecord], share: float, seed: int, group_by: str = ""
) -> DataSet[ImageRecord]:
    """A random share of the images; with one seed, a larger share contains a smaller one.

    Images whose paths agree in the regular expression `group_by` are drawn together; COCO's fields are gone.
    """
    if share >= 1:
        return dataset
    groups = _groups(dataset, [], group_by)
    numbers = _numbers(groups)
    order = np.random.default_rng(seed).permutation(numbers.max() + 1)[numbers]  # of each image's group
    last = np.sort(order)[max(round(len(groups) * share), 1) - 1]
    return _part(dataset, order <= last)


def write_split(path: Path, train_set: DataSet[Any], valid_set: DataSet[Any]) -> None:
    """Writes which images are in which part, in the format of `split_file`."""
    write_json(path, {"train": train_set.names(), "valid": valid_set.names()})


def read_trained(path: Path) -> set[str]:
    """The names of the images that a split file says were trained on."""
    names = read_object(path).get("train")
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _draw(groups: Sequence[str], fraction: float) -> Bool[np.ndarray, " N"]:
    """The images to hold out: random groups until there are enough; at least one group stays."""
    group_of = _numbers(groups)
    sizes = np.bincount(group_of)
    order = np.random.default_rng(0).permutation(len(sizes))
    wanted = min(max(round(len(groups) * fraction), 1), len(groups) - 1)
    before = sizes[order].cumsum() - sizes[order]
    return np.isin(group_of, order[:-1][before[:-1] < wanted])


def _numbers(groups: Sequence[str]) -> Int[np.ndarray, " N"]:
    """The number of each image's group, in the order in which they are met."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[name] for name in groups], int)


def _groups(dataset: DataSet[ImageRecord], entries: Sequence[Mapping[str, Any]], by: str) -> list[str]:
    """The group of each image; without groups, each image is its own."""
    names = dataset.names()
    if not by:
        return [str(number) for number in range(len(names))]
    fields = {whole(entry["id"]): entry[by] for entry in entries if entry.get(by) is not None}
    if fields:
        found = [f"={fields[one.id]}" if one.id in fields else None for one in dataset.records]
    else:
        try:
            matches = [re.search(by, name) for name in names]
        except re.error as error:
            raise GCNetError(f"--group-by {shown(by)} is no regular expression: {error}") from None
        found = [json.dumps(match.groups() or match.group()) if match else None for match in matches]
    if not any(found):
        images = f"the images of {dataset.source}"
        nothing = f"matches no path of {images}"
        if entries:
            nothing = f"is no field of {images}, and no path of theirs matches it"
        raise GCNetError(f"--group-by {shown(by)} {nothing}, such as {shown(names[0], 120)}; correct it")
    groups = [group or name for group, name in zip(found, names, strict=True)]
    if len(set(groups)) == 1:
        raise GCNetError(f"--group-by {shown(by)} puts all images into one group; correct it")
    return groups


def _as_listed(dataset: DataSet[ImageRecord], path: Path) -> dict[str, DataSet[ImageRecord]]:
    """The parts of a split file. Images that it does not list are trained on."""
    held = read_object(path).get("valid")
    if not isinstance(held, list):
        raise GCNetError(f'{path} has no list "valid"; give the split.json of a run')
    listed = {name for name in held if isinstance(name, str)}
    valid = np.array([name in listed for name in dataset.names()], bool)
    if not valid.any():
        raise GCNetError(
            f"no image of {dataset.source} is held out in {path}; give the split.json of a run on it"
        )
    return {"train": _part(dataset, ~valid), "valid": _part(dataset, valid)}


def _part(dataset: DataSet[ImageRecord], which: Bool[np.ndarray, " N"]) -> DataSet[ImageRecord]:
    return replace(dataset, records=[dataset.records[i] for i in which.nonzero()[0].tolist()])
