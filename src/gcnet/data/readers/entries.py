"""The images and objects of a split as a reader meets them, and which image an annotation file is of."""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gcnet.console import shown
from gcnet.data.readers.files import existing, image_places
from gcnet.data.source import Source, warn_of_some
from gcnet.image_files import IMAGE_SUFFIXES, has_image_suffix

_UNSAID = (None, "", 0, "0")  # as of sizes that a tool does not know


class Entries:
    """The images and objects of a split in the order in which a reader meets them."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.objects: list[dict[str, Any]] = []
        self._ids = Counter[str]()
        self._places = cache(_folders_of_images)
        self._misnamed: list[str] = []

    def add_image(self, file_name: Any, width: Any = None, height: Any = None) -> dict[str, Any]:
        """The next image, with the fields of COCO; its own size is taken where a side is missing or 0."""
        if width in _UNSAID or height in _UNSAID:
            width = height = None
        image = {"id": len(self.images) + 1, "file_name": file_name, "width": width, "height": height}
        self.images.append(image)
        return image

    def add_object(self, id: str, name: Any, drawn: Mapping[str, Any]) -> None:
        """An object of the last image, of the class `name`; None and "" are of no class.

        `id` tells people which it is; files of one name in several folders give several the same.
        `drawn` has its `bbox`, its `segmentation` or both, and what else COCO says of objects.
        """
        self._ids[id] += 1
        id += f" ({self._ids[id]})" if self._ids[id] > 1 else ""
        name = "" if name is None else str(name)
        self.objects.append({"id": id, "image_id": len(self.images), "category_id": name, **drawn})

    def image_beside(self, path: Path, name: Any, folders: Sequence[Path] = ()) -> str:
        """The absolute path of the image of an annotation file, by the `name` in it or by its own.

        Where files are renamed and their content is not, the name in one can be the image of another.
        """
        folders = self._places(path.parent, tuple(folders))
        named = name.replace("\\", "/") if isinstance(name, str) else ""
        last = named.rsplit("/", 1)[-1]
        names = [named, last] if has_image_suffix(last) else []
        own = [f"{path.stem}{suffix}" for suffix in IMAGE_SUFFIXES]

        def find(names: Sequence[str]) -> Path | None:
            return existing(folder / one for one in names for folder in folders)

        other = path.with_name(last.rpartition(".")[0] + path.suffix) if names else path
        if other != path and os.path.isfile(other) and find(own):
            self._misnamed.append(path.name)
            names = []
        found = find(names + own) or folders[0] / (names + own)[0]
        return str(found.absolute())

    def source(self, path: Path, image_dir: Path, listed: Sequence[str] = ()) -> Source:
        """All of them. The classes are those met or `listed`.

        What has an empty name gets the only one there is; beside several classes it is left out.
        """
        kind = "files name the image of another; that of their own name is taken"
        warn_of_some(path, self._misnamed, len(self.images), kind)
        names = {*listed, *(one["category_id"] for one in self.objects)} - {""}
        only = "" if len(names) > 1 else next(iter(names), "object")
        if bare := [one["id"] for one in self.objects if not one["category_id"]]:
            names |= {only} - {""}
            outcome = f"taken for {shown(only)}" if only else "left out"
            warn_of_some(path, bare, len(self.objects), f"objects have no class; {outcome}")
        ids = {name: id for id, name in enumerate(sorted(names), start=1)}
        for one in self.objects:
            one["category_id"] = ids.get(one["category_id"] or only)
        objects = [one for one in self.objects if one["category_id"]]
        categories: list[dict[str, Any]] = [{"id": id, "name": name} for name, id in ids.items()]
        return Source(path, image_dir, self.images, objects, categories, met=True)


def _folders_of_images(folder: Path, first: Sequence[Path]) -> list[Path]:
    """Where the images of annotation files in a folder may be: there, or `images/train` of `labels/train`."""
    above = [(folder, ""), (folder.parent, ""), (folder.parent.parent, folder.name)]
    places = (place / rest for base, rest in above for place in image_places(base))
    return [place for place in dict.fromkeys([*first, *places]) if os.path.isdir(place)]
