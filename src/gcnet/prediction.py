"""Images in, objects or classes out: read ahead, predicted, and written while the next are predicted.

H x W images, RGB uint8.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from gcnet.console import listed, one_line, progress_bar
from gcnet.deploy.runtime import ExportedDetector
from gcnet.errors import GCNetError
from gcnet.evaluation.results import coco_results
from gcnet.files import DiskFullError, alone_in, prepare_folder, write_json
from gcnet.found import Found
from gcnet.image_files import MAX_PIXELS, find_images
from gcnet.journal import Journal
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.modes import fingerprint, in_eval_mode
from gcnet.ops.decode import image_size, read_image
from gcnet.ops.images import shrink_image, write_image
from gcnet.types import Classification, Detections
from gcnet.viz import draw_detections, sheet

Result = TypeVar("Result")

log = logging.getLogger(__name__)

# That read, and as many that write: each holds an image or two. A photograph takes 0.1 s to decode and more
# to draw and write, and a GPU finds its objects in less.
THREADS = min(4, os.cpu_count() or 1)
AHEAD = 100_000_000  # pixels that are read ahead at most, three bytes each; a larger image is so alone

SHOWN, COLUMNS = 40, 5  # images on a classifier's sheet, and in one of its rows
THUMBNAIL = 240  # pixels of an image's long side on the sheet
CAPTION = 27  # characters that fit over it


@dataclass(frozen=True)
class Predictions:
    """What came of the images, in order.

    Attributes:
        out: the folder that holds it, if one was given.
        images: one entry for each image: `file_name`, and `error` where it could not be read. A detector's
            have `id`, `height`, `width`, the number of `detections` and the name of the `overlay`, a
            classifier's the most probable classes, `predicted`, and their `probabilities`.
        results: a detector's detections in COCO's results format: `image_id` is the image's `id`,
            `category_id` the 0-based label; `file_name` and `category_name` say both in words.
        found: the `Detections` (of an export `Found`, the same as arrays) or `Classification` of each image
            that could be read, where `out` is not given: those of a million images do not fit into memory.
    """

    out: Path | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    found: list[Detections | Found | Classification] = field(default_factory=list)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The entries of the images that could not be read."""
        return [entry for entry in self.images if "error" in entry]


def predict_files(
    model: Detector | Classifier | ExportedDetector,
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    score_threshold: float = 0.5,
    top: int = 5,
    overlays: bool = True,
    max_pixels: int = MAX_PIXELS,
    progress: bool = True,
) -> Predictions:
    """Predicts the images that `images` stand for (see `find_images`), and writes in `out` if it is given.

    A detector keeps what scores above `score_threshold`: `results.json` and `images.json` (see
    `Predictions`), and an overlay with the name of each image (`-2`, `-3`, ... where a name is taken), as
    JPEG for JPEGs and PNG for all else. A classifier names the `top` most probable classes: `results.json`
    has the entries of the images, `overview.jpg` shows the first 40. `overlays` are all these pictures.

    An image that cannot be read is reported on stderr and skipped, and so is an overlay that cannot be
    written. Other pictures in `out` stay: names that they have count as taken. Whatever ends the run, the
    JSON files hold all that was found until then, or after a kill `unfinished.jsonl` does, and the same call
    goes on from there.

    Raises:
        GCNetError: before the model runs, if nothing matches, `out` cannot be written or holds other results,
            a picture would replace one of the images, the threshold is not in [0, 1] or `top` is below 1.
    """
    if not 0 <= score_threshold <= 1:
        raise GCNetError(f"score threshold {score_threshold} is not in [0, 1]; give a number that is")
    if top < 1:
        raise GCNetError(f"top is {top}; ask for 1 class or more")
    paths = find_images(images)
    if not isinstance(model, ExportedDetector):
        model = in_eval_mode(model)
    kept = {"top": top} if isinstance(model, Classifier) else {"score_threshold": score_threshold}
    with _folder(out, model, paths, kept) as (folder, journal):
        pictures = folder if overlays else None
        if isinstance(model, Classifier):
            overview = _overview_path(paths, pictures) if pictures else None
            steps = _Classify(model, paths, max_pixels, top, overview)
        else:
            taken = journal.notes["taken"] if journal else ()
            drawn = overlay_paths(paths, pictures, taken) if pictures else None
            steps = _Detect(model, paths, max_pixels, score_threshold, drawn)
        return _predict(steps, paths, folder, journal, progress)


@contextlib.contextmanager
def _folder(
    out: str | os.PathLike[str] | None,
    model: Detector | Classifier | ExportedDetector,
    paths: Sequence[Path],
    options: dict[str, Any],
) -> Iterator[tuple[Path | None, Journal | None]]:
    """The folder of the results and the journal of what is done, while no other process writes there."""
    if out is None:
        yield None, None
        return
    folder = prepare_folder(out)
    with alone_in(folder):
        _check_results(folder, is_detector=not isinstance(model, Classifier))
        weights = model.fingerprint if isinstance(model, ExportedDetector) else fingerprint(model)
        call = {"command": "predict", "model": model.spec.name, "weights": weights, **options}
        if isinstance(model, Detector):
            call["max_detections"] = model.spec.roi.detections
        journal = Journal(folder, call, {"taken": _other_pictures(folder)})
        finished = False
        try:
            if others := sorted(journal.done.keys() - {path.as_posix() for path in paths}):
                raise GCNetError(
                    f"{folder} holds the unfinished work of another call, with {listed(others, 1)}: repeat "
                    "that one to go on, delete unfinished.jsonl, or give another --out"
                )
            yield folder, journal
            finished = True
        finally:
            journal.close(finished=finished)


def _check_results(folder: Path, *, is_detector: bool) -> None:
    """Raises GCNetError if the folder holds results that are not those of an earlier `gcnet predict`."""
    of_others = [name for name in ("last.ckpt", "metrics.json") if (folder / name).exists()]
    if not of_others and (folder / "results.json").exists():
        of_others = [] if (folder / "images.json").exists() == is_detector else ["results.json"]
    if of_others:
        raise GCNetError(f"{folder} holds the {of_others[0]} of something else; give another --out")


def _other_pictures(folder: Path) -> list[str]:
    """The pictures in the folder that no earlier call drew there: they are not to be replaced."""
    try:
        drawn = {entry.get("overlay") for entry in json.loads((folder / "images.json").read_bytes())}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        drawn = set()
    pictures = (path.name for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    return sorted(name for name in pictures if name not in drawn)


@dataclass(frozen=True)
class _Done:
    """What came of an image.

    `failure` is why the run cannot go on after it, `undrawn` why it has no overlay.
    """

    index: int
    entry: dict[str, Any]
    found: Detections | Found | Classification | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    failure: GCNetError | None = None
    undrawn: GCNetError | None = None


def _predict(
    steps: _Detect | _Classify,
    paths: Sequence[Path],
    folder: Path | None,
    journal: Journal | None,
    progress: bool,
) -> Predictions:
    """Predicts the images that are not in the journal, and writes the results of all."""
    done = _recorded(steps, paths, journal)
    undrawn: list[GCNetError] = []
    predictions = Predictions(folder)
    try:
        with progress_bar(disable=not progress) as bar:
            task = bar.add_task(steps.doing, total=len(paths), completed=len(done))

            def take(one: _Done) -> None:
                if "error" in one.entry:
                    line = f"skipped: {one_line(one.entry['error'])}"
                    bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
                elif journal is not None:
                    values = {"stamp": _stamp(paths[one.index]), "entry": one.entry, "results": one.results}
                    journal.add(paths[one.index].as_posix(), values)
                done[one.index] = one
                undrawn.extend([one.undrawn] if one.undrawn else [])
                if folder is None and one.found is not None:
                    predictions.found.append(one.found)
                bar.advance(task)

            _predict_all(steps, [index for index in range(len(paths)) if index not in done], take)
    except BaseException:
        with contextlib.suppress(GCNetError):  # what is done is in the journal, and why it ended is said
            _write(steps, folder, predictions, done)
        raise
    finally:
        if undrawn:
            log.warning("%d overlays are not drawn, first: %s", len(undrawn), undrawn[0])
    _write(steps, folder, predictions, done)
    return predictions


def _recorded(steps: _Detect | _Classify, paths: Sequence[Path], journal: Journal | None) -> dict[int, _Done]:
    """What an earlier call found in images that have not changed since."""
    done: dict[int, _Done] = {}
    for index, path in enumerate(paths if journal is not None and journal.done else ()):
        before = journal.done.get(path.as_posix()) if journal is not None else None
        if before is None or before["stamp"] != _stamp(path) or steps.wants_again(index):
            continue
        entry = before["entry"] | steps.entry(index)  # images may have come between
        done[index] = _Done(index, entry, results=[one | {"image_id": index} for one in before["results"]])
    return done


def _stamp(path: Path) -> list[int]:
    """Another one if the file has changed."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _write(
    steps: _Detect | _Classify, folder: Path | None, predictions: Predictions, done: dict[int, _Done]
) -> None:
    """Puts what is done into `predictions`, in order, and into the folder."""
    for index in sorted(done):
        predictions.images.append(done[index].entry)
        predictions.results.extend(done[index].results)
    if folder is not None:
        steps.write(folder, predictions)


def _predict_all(steps: _Detect | _Classify, left: Sequence[int], take: Callable[[_Done], None]) -> None:
    """Predicts the images `left` in order, while others are read, drawn and written.

    `take` gets each as it is done. Whatever ends the run, images that were predicted are finished and taken.
    """
    pending: deque[Future[_Done]] = deque()

    def take_first() -> None:
        done = pending[0].result()  # Ctrl-C comes while this waits: it must still be there then
        pending.popleft()
        take(done)
        if done.failure is not None:
            raise done.failure

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for index, loaded in zip(
                left, _run_ahead(partial(_load, steps), left, partial(_count_pixels, steps)), strict=True
            ):
                if isinstance(loaded, GCNetError):
                    work = partial(_Done, index, steps.entry(index) | {"error": str(loaded)})
                else:
                    image, prepared = loaded
                    work = partial(steps.finish, index, image, steps.predict(prepared))
                pending.append(pool.submit(work))
                while pending and (len(pending) > THREADS or pending[0].done()):
                    take_first()
            while pending:
                take_first()
        finally:
            while pending:
                with contextlib.suppress(GCNetError):  # the first one is on its way
                    take_first()


def _load(steps: _Detect | _Classify, index: int) -> tuple[UInt8[np.ndarray, "H W 3"], Any] | GCNetError:
    try:
        image = read_image(steps.paths[index], max_pixels=steps.max_pixels)
    except GCNetError as error:
        return error
    return image, steps.prepare(image)


def _count_pixels(steps: _Detect | _Classify, index: int) -> int:
    """Of an image, by its header; one that is not read has none."""
    try:
        height, width = image_size(steps.paths[index], max_pixels=steps.max_pixels)
    except GCNetError:
        return 0
    return height * width


def _run_ahead(
    work: Callable[[int], Result], indices: Sequence[int], pixels: Callable[[int], int]
) -> Iterator[Result]:
    """`work(index)` in order, done by threads while the results before are used; few are held."""
    upcoming: deque[tuple[int, Future[Result]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for index in indices:
                count = pixels(index)
                while upcoming and (
                    len(upcoming) > THREADS or count + sum(other for other, _ in upcoming) > AHEAD
                ):
                    yield upcoming.popleft()[1].result()
                upcoming.append((count, pool.submit(work, index)))
            while upcoming:
                yield upcoming.popleft()[1].result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Detect:
    """The steps of an image: `prepare` while others are predicted, `predict`, and `finish` in a thread again.

    Finds objects: boxes and masks in COCO's results format, and an overlay for each image.
    """

    detector: Detector | ExportedDetector
    paths: Sequence[Path]
    max_pixels: int
    score_threshold: float
    overlays: Sequence[Path] | None
    doing: str = "predicting"

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        return self.detector.prepare(image)

    def predict(self, prepared: Any) -> Any:
        found = self.detector.predict(prepared, score_threshold=self.score_threshold)[0]
        return found if isinstance(found, Found) else found.to("cpu")

    def entry(self, index: int) -> dict[str, Any]:
        return {"id": index, "file_name": self.paths[index].as_posix()}

    def finish(self, index: int, image: UInt8[np.ndarray, "H W 3"], found: Any) -> _Done:
        entry, names = self.entry(index), self.detector.spec.class_names
        results = [
            result | {"file_name": entry["file_name"], "category_name": names[result["category_id"]]}
            for result in coco_results(found, index, range(len(names)))
        ]
        height, width = image.shape[:2]
        entry |= {"height": height, "width": width, "detections": len(found)}
        if not self.overlays:
            return _Done(index, entry, found, results)
        try:
            overlay = draw_detections(image, found, names, self.score_threshold)
            write_image(self.overlays[index], overlay)
        except DiskFullError as error:  # results come before pictures
            return _Done(index, entry, found, results, failure=error)
        except GCNetError as error:  # a name that is too long, an image that is too wide for a JPEG
            return _Done(index, entry, found, results, undrawn=error)
        return _Done(index, entry | {"overlay": self.overlays[index].name}, found, results)

    def wants_again(self, index: int) -> bool:
        return False

    def write(self, folder: Path, predictions: Predictions) -> None:
        write_json(folder / "results.json", predictions.results)
        write_json(folder / "images.json", predictions.images)


@dataclass(frozen=True)
class _Classify:
    """The same steps for a classifier: the most probable classes, and a sheet of the first images."""

    classifier: Classifier
    paths: Sequence[Path]
    max_pixels: int
    top: int
    overview: Path | None
    doing: str = "classifying"
    shown: dict[int, tuple[np.ndarray, str]] = field(default_factory=dict)  # threads finish in any order

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        return image

    def predict(self, prepared: Any) -> Any:
        return self.classifier.predict_images([prepared], top=self.top)[0]

    def entry(self, index: int) -> dict[str, Any]:
        return {"file_name": self.paths[index].as_posix()}

    def finish(self, index: int, image: UInt8[np.ndarray, "H W 3"], found: Any) -> _Done:
        best = [round(p, 5) for p in found.probabilities.tolist()]
        if self.overview and len(self.shown) < SHOWN:
            lines = (self.paths[index].name, f"{found.names[0]} {best[0]:.2f}")
            self.shown[index] = _thumbnail(image), "\n".join(map(_shortened, lines))
        entry = self.entry(index) | {"predicted": list(found.names), "probabilities": best}
        return _Done(index, entry, found)

    def wants_again(self, index: int) -> bool:
        """Whether an image is looked at though its classes are known: for the sheet."""
        return self.overview is not None and index < SHOWN

    def write(self, folder: Path, predictions: Predictions) -> None:
        write_json(folder / "results.json", predictions.images)
        if self.overview and self.shown:
            images, captions = zip(*(self.shown[index] for index in sorted(self.shown)), strict=True)
            shown = sheet(images, captions, columns=COLUMNS, cell=THUMBNAIL)
            write_image(self.overview, shown, quality=90)


def _thumbnail(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    scale = min(THUMBNAIL / max(image.shape[:2]), 1.0)
    return shrink_image(image, (max(int(image.shape[0] * scale), 1), max(int(image.shape[1] * scale), 1)))


def _shortened(line: str) -> str:
    return line if len(line) <= CAPTION else f"{line[: CAPTION // 2 - 2]}...{line[-(CAPTION // 2 - 1) :]}"


def overlay_paths(paths: Sequence[Path], folder: Path, others: Iterable[str] = ()) -> list[Path]:
    """A file in `folder` for each image, none of which is among `others`.

    Names that differ only in case count as one, as on some disks.
    """
    inputs = {path.resolve() for path in paths}
    taken = {name.lower() for name in others if (folder / name).resolve() not in inputs}
    targets: list[Path] = []
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


def _overview_path(paths: Sequence[Path], folder: Path) -> Path:
    overview = folder / "overview.jpg"
    if overview.resolve() in {path.resolve() for path in paths}:
        raise GCNetError(f"the overview {overview} would replace an input image; choose another --out")
    if overview.exists() and not (folder / "results.json").exists():
        raise GCNetError(f"the overview {overview} would replace another picture; choose another --out")
    return overview
