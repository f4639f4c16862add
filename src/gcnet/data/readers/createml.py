"""Reads CreateML, as LabelImg and Roboflow write it: JSON lists of images with boxes and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcnet.data.readers.entries import Entries
from gcnet.data.readers.files import head_of, object_of, objects_in, read_json, readable
from gcnet.data.readers.splits import Readers, file_an_image
from gcnet.data.source import Source


def find_createml(root: Path) -> Readers:
    """Finds one file or several, in a folder for each split or all in one."""
    return file_an_image(root, ".json", is_createml, _read_createml)


def is_createml(path: Path) -> bool:
    """Whether it is a list of images with boxes, by the keys at its beginning."""
    head = head_of(path, 1 << 16)
    return head.lstrip()[:1] == b"[" and all(
        key in head for key in (b'"image', b'"annotation', b'"coordinates"')
    )


def _read_createml(folder: Path, files: Sequence[Path]) -> Source:
    entries = Entries()
    for path, content in readable(files, read_json):
        for image in objects_in(content):
            name = image.get("image", image.get("imagefilename"))  # Roboflow's second name for it
            entries.add_image(entries.image_beside(path, name))
            for number, one in enumerate(objects_in(image.get("annotations", image.get("annotation")))):
                entries.add_object(f"{name}:{number}", one.get("label"), object_of(_object, one))
    return entries.source(folder, folder)


def _object(one: dict[str, Any]) -> dict[str, Any]:
    """The box, of which CreateML has the centre, in pixels."""
    x, y, width, height = (float(one["coordinates"][key]) for key in ("x", "y", "width", "height"))
    return {"bbox": [x - width / 2, y - height / 2, width, height]}
