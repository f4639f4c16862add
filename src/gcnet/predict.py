"""Objects in photos: files, folders or patterns in, overlays and COCO results out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8

from gcnet.console import progress_bar
from gcnet.errors import GCNetError
from gcnet.evaluation.results import coco_results
from gcnet.files import prepare_folder, write_bytes, write_json
from gcnet.image_files import find_images
from gcnet.models.detector import Detector
from gcnet.models.eval_mode import eval_mode
from gcnet.ops.images import read_image
from gcnet.types import Batch, Detections
from gcnet.viz import draw_detections

Result = TypeVar("Result")

# That read, and as many that write: each holds an image or two. A photograph takes 0.1 s to decode and more
# to draw and write, and a GPU finds its objects in less.
THREADS = min(4, os.cpu_count() or 1)


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
    found = _Found()
    try:
        with progress_bar(disable=not progress) as bar:
            task = bar.add_task("predicting", total=len(paths))

            def report(error: str | None) -> None:
                if error is not None:
                    bar.console.print(f"skipped: {error}", markup=False, highlight=False, soft_wrap=True)
                bar.advance(task)

            _predict_all(detector, paths, targets, score_threshold, partial(found.take, report=report))
    finally:
        write_json(folder / "results.json", found.results)
        write_json(folder / "images.json", found.images)
    failed = tuple((Path(image["file_name"]), image["error"]) for image in found.images if "error" in image)
    return PredictSummary(folder, len(found.images) - len(failed), len(found.results), failed)


@dataclass(frozen=True)
class _Done:
    """What came of an image: its entry in `images.json`, its results, and why the run cannot go on."""

    entry: dict[str, Any]
    results: list[dict[str, Any]]
    failure: GCNetError | None = None


@dataclass(frozen=True)
class _Found:
    """The content of `images.json` and `results.json`, so far."""

    images: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def take(self, pending: deque[Future[_Done]], report: Callable[[str | None], None]) -> GCNetError | None:
        """Waits for the first of `pending` and takes what came of it; returns its failure."""
        done = pending[0].result()  # Ctrl-C comes while this waits: it must still be there then
        pending.popleft()
        self.images.append(done.entry)
        self.results.extend(done.results)
        report(done.entry.get("error"))
        return done.failure


def _predict_all(
    detector: Detector,
    paths: Sequence[Path],
    targets: Sequence[Path | None],
    score_threshold: float,
    take: Callable[[deque[Future[_Done]]], GCNetError | None],
) -> None:
    """Predicts images in order, while others are read, drawn and written; `take` gets each as it is done.

    Whatever ends the run, images that were predicted are finished and taken.
    """
    pending: deque[Future[_Done]] = deque()
    with eval_mode(detector), ThreadPoolExecutor(THREADS) as pool:
        try:
            for index, loaded in enumerate(run_ahead(partial(_load, detector), paths)):
                entry: dict[str, Any] = {"id": index, "file_name": paths[index].as_posix()}
                if isinstance(loaded, GCNetError):
                    work = partial(_Done, entry | {"error": str(loaded)}, [])
                else:
                    image, batch = loaded
                    found = detector.predict(batch, score_threshold=score_threshold)[0].to("cpu")
                    names = detector.spec.class_names
                    work = partial(_finish, image, found, entry, names, score_threshold, targets[index])
                pending.append(pool.submit(work))
                while pending and (len(pending) > THREADS or pending[0].done()):
                    if failure := take(pending):
                        raise failure
            while pending:
                if failure := take(pending):
                    raise failure
        finally:
            while pending:
                take(pending)


def _load(detector: Detector, path: Path) -> tuple[UInt8[np.ndarray, "H W 3"], Batch] | GCNetError:
    image = read(path)
    return image if isinstance(image, GCNetError) else (image, detector.prepare(image))


def _finish(
    image: UInt8[np.ndarray, "H W 3"],
    found: Detections,
    entry: dict[str, Any],
    names: Sequence[str],
    score_threshold: float,
    overlay: Path | None,
) -> _Done:
    """Results for one image; draws them over it in the file `overlay`."""
    results = [
        result | {"file_name": entry["file_name"], "category_name": names[result["category_id"]]}
        for result in coco_results(found, entry["id"], range(len(names)))
    ]
    height, width = image.shape[:2]
    entry = entry | {"height": height, "width": width, "detections": len(found)}
    try:
        if overlay is not None:
            write_image(overlay, draw_detections(image, found, names, score_threshold))
    except GCNetError as error:  # the disk is full: results come before pictures
        return _Done(entry, results, error)
    return _Done(entry, results)


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


def read_ahead(paths: Sequence[Path]) -> Iterator[tuple[Path, UInt8[np.ndarray, "H W 3"] | GCNetError]]:
    """Images in order, or why they cannot be read; the next are decoded while this one is worked on."""
    return zip(paths, run_ahead(read, paths), strict=True)


def run_ahead(work: Callable[[Path], Result], paths: Sequence[Path]) -> Iterator[Result]:
    """`work(path)` in order, done by threads while the results before are used; few are held."""
    upcoming: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for path in paths:
                upcoming.append(pool.submit(work, path))
                if len(upcoming) > THREADS:
                    yield upcoming.popleft().result()
            while upcoming:
                yield upcoming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read(path: Path) -> UInt8[np.ndarray, "H W 3"] | GCNetError:
    """The image in a file, or why it cannot be read."""
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
    write_bytes(path, encoded.data)
