"""Files about an image, written beside the results as soon as it is predicted.

H x W images, RGB uint8.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from jaxtyping import UInt8

from gcnet.data.write import polygons, yolo_line
from gcnet.evaluation.results import ImageResults
from gcnet.files import disk_errors, prepare_folder, remove_leftovers, write_bytes
from gcnet.found import Found
from gcnet.ops.images import write_image
from gcnet.prediction.formats import objects_of
from gcnet.prediction.names import OutputNames
from gcnet.prediction.written import Written
from gcnet.remote import is_address
from gcnet.viz.canvas import Piece
from gcnet.viz.objects import draw_detections

# The folders of these files in the folder of the results.
FOLDERS = {
    "crops": ("crops",),
    "cutouts": ("cutouts",),
    "labelme": ("labelme",),
    "yolo": ("yolo/images", "yolo/labels"),
}
DATA = "yolo/data.yaml"


@dataclass(frozen=True)
class Beside:
    """Writes the files of these `kinds`: those of `FOLDERS`, and overlays."""

    folder: Path
    kinds: Sequence[str]
    names: OutputNames
    class_names: Sequence[str]

    @property
    def folders(self) -> list[Path]:
        """The folders of these kinds."""
        return [self.folder / name for kind in self.kinds for name in FOLDERS.get(kind, ())]

    def there(self, indices: Iterable[int]) -> list[str]:
        """The files that are there already under names which are written for the images at `indices`."""
        found: dict[str, list[str]] = {}  # by the names of images
        for folder in self.folders:
            for file in folder.iterdir() if folder.is_dir() else ():
                name = file.stem.rpartition("-")[0] if folder.name in ("crops", "cutouts") else file.stem
                found.setdefault(name, []).append(file.relative_to(self.folder).as_posix())
        return [file for index in indices if found for file in found.get(self.names[index], ())]

    def prepare(self) -> None:
        """Makes the folders, and files that exist once for each kind."""
        for folder in self.folders:
            remove_leftovers(prepare_folder(folder))
        if "yolo" in self.kinds:
            # All images as both: whoever trains on them divides them.
            content = {"train": "images", "val": "images", "names": dict(enumerate(self.class_names))}
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            self._write(DATA, text.encode())

    def write(
        self, index: int, image: UInt8[np.ndarray, "H W 3"], found: Found, results: ImageResults
    ) -> dict[str, Any]:
        """Writes the files about an image; what its entry says of them."""
        name = self.names[index]
        if "crops" in self.kinds:
            self._write_crops(index, image, results)
        if "cutouts" in self.kinds:
            self._write_cutouts(name, image, found)
        if "labelme" in self.kinds:
            self._write(f"labelme/{name}.json", self._labelme(index, results).encode())
        if "yolo" in self.kinds:
            self._write_yolo(index, results)
        if "overlay" not in self.kinds:
            return {}
        overlay = self.names.picture(index)
        self._write_image(overlay, draw_detections(image, found, self.class_names))
        return {"overlay": overlay}

    def _write(self, name: str, data: bytes | memoryview) -> None:
        write_bytes(self.folder / name, data)
        Written(self.folder).add(name)

    def _write_image(self, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        write_image(self.folder / name, image)
        Written(self.folder).add(name)

    def _write_crops(self, index: int, image: UInt8[np.ndarray, "H W 3"], results: ImageResults) -> None:
        """Writes the content of each box."""
        suffix = Path(self.names.picture(index)).suffix
        for number, (x, y, w, h) in enumerate(results.boxes.tolist()):
            part = image[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))]
            if part.size:
                self._write_image(f"crops/{self.names[index]}-{number}{suffix}", part)

    def _write_cutouts(self, name: str, image: UInt8[np.ndarray, "H W 3"], found: Found) -> None:
        """Writes each object, transparent around its mask."""
        assert found.mask_probs is not None
        for number, (box, probs) in enumerate(zip(found.frames.tolist(), found.mask_probs, strict=True)):
            piece = Piece.of_detection(box, probs, found.image_size)
            if piece.mask.any():
                part = cv2.cvtColor(image[piece.window], cv2.COLOR_RGB2BGRA)
                part[..., 3] = piece.mask * 255
                encoded = cv2.imencode(".png", part)[1]
                self._write(f"cutouts/{name}-{number}.png", encoded.data)

    def _labelme(self, index: int, results: ImageResults) -> str:
        """Outlines or boxes with their scores as descriptions, and the image's relative path."""
        height, width = results.size
        content = {"version": "5.5.0", "flags": {}, "shapes": list(self._shapes(results))}
        path = os.fspath(self.names.paths[index])
        if not is_address(path):
            here = os.path.abspath(self.folder / "labelme")
            path = Path(os.path.relpath(os.path.abspath(path), here)).as_posix()
        size = {"imageHeight": height, "imageWidth": width}
        return json.dumps(content | {"imagePath": path, "imageData": None} | size, indent=2)

    def _shapes(self, results: ImageResults) -> Iterator[dict[str, Any]]:
        for item in objects_of(results):
            x1, y1, x2, y2 = item.box
            parts = polygons(item.segmentation) if isinstance(item.segmentation, dict) else []
            score = f"{results.scores[int(item.id)]:.3f}"
            shape = {"label": self.class_names[item.label], "description": score, "flags": {}}
            shape["group_id"] = int(item.id) if len(parts) > 1 else None
            for part in parts:
                yield shape | {"shape_type": "polygon", "points": part.tolist()}
            if not parts:
                yield shape | {"shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}

    def _write_yolo(self, index: int, results: ImageResults) -> None:
        """Writes the objects' lines, and a link to the image in a folder where YOLO finds both."""
        height, width = results.size
        lines = "".join(yolo_line(item, width, height) for item in objects_of(results))
        name = self.names[index]
        self._write(f"yolo/labels/{name}.txt", lines.encode())
        if is_address(os.fspath(self.names.paths[index])):
            return
        image = Path(self.names.paths[index]).absolute()
        link = f"yolo/images/{name}{image.suffix}"
        place = self.folder / link
        with disk_errors(place):
            place.unlink(missing_ok=True)
            try:
                place.symlink_to(image)
            except (OSError, NotImplementedError):  # a system, or a disk, without links
                shutil.copyfile(image, place)
        Written(self.folder).add(link)
