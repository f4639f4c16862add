"""The names of the classes in masks: of numbers, of colours, or of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gcnet.console import listed
from gcnet.data.readers.files import read_lines
from gcnet.errors import GCNetError

COLOURED = 1 << 24  # is added to the numbers of colours, so that red is not 255
GRAY = 0x010101
_NAMES = ("classes.txt", "class_names.txt")
_COLOURS = ("labelmap.txt", "class_dict.csv")  # of CVAT, and of many sets for semantic segmentation
_COLOUR_LINE = re.compile(r"([^#:,][^:,]*)[:,]\s*(\d+),\s*(\d+),\s*(\d+)")
_NUMBERED = "_classes.csv"  # of Roboflow, in each split: a number and a name a line
_NUMBER_LINE = re.compile(r"(\d+)\s*,\s*(.*[^,\s].*)")
_NO_CLASSES = ("__ignore__", "_background_", "background", "void")


@dataclass(frozen=True)
class Classes:
    """The names of classes in their order, and what has them: masks in folders, or colours and numbers."""

    names: tuple[str, ...] = ()
    masks: Mapping[Path, str] = field(default_factory=dict)
    colours: Mapping[int, str] = field(default_factory=dict)
    path: Path | None = None

    def of(self, used: set[int]) -> dict[int, str]:
        """The name of each number that is `used`. Raises GCNetError where the names do not fit.

        They are of colours or numbers, or of 1, 2, ... in their order, or as many as numbers.
        """
        if len(self.names) < 2 and not self.colours:
            return dict.fromkeys(used, self.names[0] if self.names else "object")
        used = used - {0}
        said = ((number, self.colours.get(number, self.colours.get(_as_colour(number)))) for number in used)
        named = {number: name for number, name in said if name is not None}
        if self.colours and len(named) == len(used):
            return named
        if not named and max(used, default=0) < COLOURED:  # colours have no order
            if max(used, default=0) <= len(self.names):
                return dict(enumerate(self.names, start=1))
            if len(used) == len(self.names):
                return dict(zip(sorted(used), self.names, strict=True))
        raise GCNetError(
            f"{self.path} names {len(self.names)} classes, but the masks have the numbers "
            f"{_shown(used)}: give {how_to_name(used)}"
        )


def how_to_name(used: set[int]) -> str:
    """What has to be said of the classes in masks of these numbers."""
    if max(used, default=0) >= COLOURED:
        return f"a class_dict.csv with a line name,r,g,b for each colour ({_shown(used)})"
    return "a classes.txt with the names of 1, 2, ..., a line each, in the order of the numbers"


def read_classes(root: Path) -> Classes:
    """What a file in the folder of a data set says of the classes in its masks."""
    for path in (path for name in _COLOURS if (path := root / name).is_file()):
        lines = [found.groups() for line in read_lines(path) if (found := _COLOUR_LINE.match(line))]
        rgb = ((name.strip(), int(r) + 256 * int(g) + 65536 * int(b)) for name, r, g, b in lines)
        colours = {number + COLOURED: name for name, number in rgb}
        colours = {number: "" if name.lower() in _NO_CLASSES else name for number, name in colours.items()}
        if any(colours.values()):
            return Classes(tuple(filter(None, colours.values())), colours=colours, path=path)
    for path in (path for place in (root, *sorted(root.glob("*/"))) if (path := place / _NUMBERED).is_file()):
        lines = [found.groups() for line in read_lines(path) if (found := _NUMBER_LINE.fullmatch(line))]
        numbers = {int(number): "" if name.lower() in _NO_CLASSES else name for number, name in lines}
        if any(numbers.values()):
            return Classes(tuple(filter(None, numbers.values())), colours=numbers, path=path)
    for path in (path for name in _NAMES if (path := root / name).is_file()):
        names = (name for name in read_lines(path) if name.lower() not in _NO_CLASSES)
        return Classes(tuple(names), path=path)
    return Classes()


def _as_colour(number: int) -> int:
    return number * GRAY + COLOURED if number <= 255 else number


def _shown(numbers: set[int]) -> str:
    """The first few, colours as on web pages."""
    colours = {number: number.to_bytes(4, "little")[:3].hex() for number in sorted(numbers - {0})}
    return listed([str(one) if one < COLOURED else f"#{colour}" for one, colour in colours.items()], 4)
