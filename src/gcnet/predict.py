"""Objects in photos: files, folders or patterns in, overlays and COCO results out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from gcnet.errors import GCNetError
from gcnet.evaluation.progress import progress_bar
from gcnet.evaluation.results import coco_results
from gcnet.files import prepare_folder, write_bytes, write_json
from gcnet.image_files import find_images
from gcnet.models.detector import Detector
from gcnet.ops.images import read_image
from gcnet.viz import draw_detections


@dataclass(frozen=True)
class PredictSummary:
    """What a prediction run did: `failed` has the images that could not be read, and why."""

    out: Path
    images: int
    detections: int
    failed: tuple[tuple[Path, str], ...]


def predict_paths(
    detector: Detector,
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    score_threshold: float = 0.5,
    overlays: bool = True,
    progress: bool = True,
) -> PredictSummary:
    """Finds objects in the images that `inputs` stand for (see `find_images`) and writes them in `out`.

    `results.json` is a list in COCO results format: `image_id` is the position among the sorted images,
    `category_id` the 0-based label; `file_name` and `category_name` say both in words. `images.json` lists
    every image with its size and number of detections, or the error. An overlay has the name of its image
    (`-2`, `-3`, ... where names repeat), as JPEG for JPEGs and PNG for all else.

    An image that cannot be read is reported on stderr and skipped. Whatever ends the run, the JSON files
    hold all that was found until then. Raises GCNetError before the model runs if nothing matches, `out`
    cannot be written, an overlay would replace one of the images or the threshold is not in [0, 1].
    """
    if not 0 <= score_threshold <= 1:
        raise GCNetError(f"score threshold {score_threshold} is not in [0, 1]; give a number that is")
    paths = find_images(inputs)
    folder = prepare_folder(out)
    targets = _overlay_paths(paths, folder) if overlays else [None] * len(paths)
    images: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    try:
        with progress_bar(disable=not progress) as bar:
            task = bar.add_task("predicting", total=len(paths))
            for index, (path, image) in enumerate(read_ahead(paths)):
                entry: dict[str, Any] = {"id": index, "file_name": path.as_posix()}
                if isinstance(image, GCNetError):
                    bar.console.print(f"skipped: {image}", markup=False, highlight=False, soft_wrap=True)
                    images.append(entry | {"error": str(image)})
                else:
                    found = _predict_image(detector, image, entry, score_threshold, targets[index])
                    height, width = image.shape[:2]
                    images.append(entry | {"height": height, "width": width, "detections": len(found)})
                    results += found
                bar.advance(task)
    finally:
        write_json(folder / "results.json", results)
        write_json(folder / "images.json", images)
    failed = tuple((Path(image["file_name"]), image["error"]) for image in images if "error" in image)
    return PredictSummary(folder, len(images) - len(failed), len(results), failed)


def _predict_image(
    detector: Detector,
    image: UInt8[np.ndarray, "H W 3"],
    entry: dict[str, Any],
    score_threshold: float,
    overlay: Path | None,
) -> list[dict[str, Any]]:
    """Results for one image; draws them over it in the file `overlay`."""
    names = detector.spec.class_names
    found = detector.predict_images([image], score_threshold=score_threshold)[0]
    if overlay is not None:
        write_image(overlay, draw_detections(image, found, names, score_threshold))
    return [
        result | {"file_name": entry["file_name"], "category_name": names[result["category_id"]]}
        for result in coco_results(found, entry["id"], range(len(names)))
    ]


def _overlay_paths(paths: list[Path], folder: Path) -> list[Path | None]:
    """A file in `folder` for each image. Names that differ only in case count as one, as on some disks."""
    taken: set[str] = set()
    targets: list[Path | None] = []
    inputs = {path.resolve() for path in paths}
    for path in paths:
        suffix = ".jpg" if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
        name, copy = path.stem + suffix, 1
        while name.lower() in taken:
            copy += 1
            name = f"{path.stem}-{copy}{suffix}"
        taken.add(name.lower())
        if (folder / name).resolve() in inputs:
            raise GCNetError(
                f"the overlay {folder / name} would replace an input image; choose another --out"
            )
        targets.append(folder / name)
    return targets


def read_ahead(paths: list[Path]) -> Iterator[tuple[Path, UInt8[np.ndarray, "H W 3"] | GCNetError]]:
    """Images in order, or why they cannot be read; the next is decoded while this one is worked on."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(_read, paths[0])
        for path, following in zip(paths, [*paths[1:], None], strict=True):
            image = upcoming.result()
            if following is not None:
                upcoming = pool.submit(_read, following)
            yield path, image


def _read(path: Path) -> UInt8[np.ndarray, "H W 3"] | GCNetError:
    try:
        return read_image(path)
    except GCNetError as error:
        return error


def write_image(path: Path, image: UInt8[np.ndarray, "H W 3"], *, quality: int = 95) -> None:
    """Writes an RGB image in the format of the file's suffix; `quality` is of JPEGs, in [0, 100]."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    written, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not written:
        raise GCNetError(f"cannot encode the overlay {path}; is the image too large for {path.suffix}?")
    write_bytes(path, encoded.tobytes())
