"""Predicts image files, and writes the results into a folder."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.console import listed, one_line, progress_bar
from gcnet.deploy.runtime import Exported
from gcnet.errors import GCNetError, check_least, check_threshold
from gcnet.files import alone_in, prepare_folder, write_json
from gcnet.image_files import MAX_PIXELS
from gcnet.journal import Journal
from gcnet.models.spec import ClassifierSpec
from gcnet.models.views import Views
from gcnet.ops.images import write_image
from gcnet.prediction.beside import DATA, Beside
from gcnet.prediction.formats import WHOLE, ImageFound, Parts, result_entries
from gcnet.prediction.names import OutputNames, images_in
from gcnet.prediction.predictions import Counts, Predictions
from gcnet.prediction.steps import Classify, Detect, DetectorLike, through_views
from gcnet.prediction.stream import Done, predict_all
from gcnet.prediction.wanted import Wanted
from gcnet.prediction.written import Written
from gcnet.remote import is_address

log = logging.getLogger(__name__)

RESULTS, IMAGES, SHEET = "results.json", "images.json", "overview.jpg"


def predict_files(
    model: Any,
    paths: Sequence[str],
    out: str | os.PathLike[str] | None = None,
    *,
    score_threshold: float = 0.5,
    top: int = 5,
    wanted: Wanted = Wanted(),  # noqa: B008  (frozen)
    batch_size: int = 1,
    views: Views = Views(),  # noqa: B008  (frozen)
    max_pixels: int = MAX_PIXELS,
    progress: bool = True,
) -> Predictions:
    """Predicts image files (see `find_images`), and writes results to `out` if it is given.

    A detector keeps what scores above `score_threshold`: `results.json` and `images.json` (see
    `Predictions`), and an overlay with the name of each image (`-2`, `-3`, ... where a name is taken), as
    JPEG for JPEGs and PNG for all else. A classifier names the `top` most probable classes: `results.json`
    has the entries of the images, `overview.jpg` shows the first 40. `wanted` says what else is written, and
    what of this is not. A shard writes in a folder of its own in `out`.

    Memory does not grow with what is found: with `out` it goes to disk at once. Of `batch_size` images that
    are predicted together all have one padded size, so that what is found in one does not depend on others.

    An image that cannot be read is reported on stderr and skipped, and so is an overlay that cannot be
    written. What an earlier call wrote in `out` is removed (see `Written`). Other files stay: names that
    images have count as taken. Whatever ends the run, the JSON files hold all that was found until then, or
    after a kill `unfinished.jsonl` does, and the same call goes on from there.

    Args:
        model: a `Detector`, a `Classifier`, or an export of one, for which PyTorch is not needed.
        views: of a detector: what it is shown of an image, `batch_size` of them at a time where there are
            several.

    Raises:
        GCNetError: before the model runs, if `out` cannot be written or holds other results, an image would
            replace one of the images, the threshold is not in [0, 1], or `top` or `batch_size` is below 1.
    """
    check_threshold(score_threshold)
    check_least(1, top=top, batch_size=batch_size)
    of_detector = is_detector(model)
    wanted.check_model(model.spec, is_detector=of_detector)
    views.check_model(model.spec.name, is_detector=of_detector)
    model, weights = ready(model)
    kept = {"top": top}
    if of_detector:
        kept = {"score_threshold": score_threshold, "max_detections": model.spec.roi.detections}
    call = {"command": "predict", "model": model.spec.name, "weights": weights, **kept}
    call["files of an image"] = list(wanted.beside)  # those of images that are done are not written again
    if out is not None and wanted.shard[1] > 1:
        out = Path(out) / "shard-{}-of-{}".format(*wanted.shard)
    call |= views.as_dict()
    model, batch_size = through_views(model, views, batch_size)
    with _journal(out, call) as journal:
        overlays = wanted.overlays and journal is not None
        if of_detector:
            kinds = [*wanted.beside, *["overlay"] * overlays]
            beside = _beside(journal, paths, model, kinds) if journal and kinds else None
            steps = Detect(model, paths, score_threshold, beside)
        else:
            if journal and overlays and SHEET in images_in(paths, journal.folder):
                sheet = journal.folder / SHEET
                raise GCNetError(f"the overview {sheet} would replace an input image; choose another --out")
            steps = Classify(model, paths, top, overlays)
        return _Run(steps, paths, journal, wanted).finish(batch_size, max_pixels, progress)


def is_detector(model: Any) -> bool:
    """Whether a model is a detector and not a classifier."""
    return not isinstance(model.spec, ClassifierSpec)


def ready(model: Any) -> tuple[Any, str]:
    """The model for inference, and hex digits that identify its weights."""
    if isinstance(model, Exported):
        return model, model.fingerprint
    from gcnet.models.modes import fingerprint, in_eval_mode

    return in_eval_mode(model), fingerprint(model)


def _beside(journal: Journal, paths: Sequence[str], model: DetectorLike, kinds: Sequence[str]) -> Beside:
    inputs = images_in(paths, journal.folder)
    names = OutputNames(paths, [name for name in journal.notes["taken"] if name not in inputs])
    if inputs and "overlay" in kinds:
        for index in range(len(paths)):
            if names.picture(index) in inputs:
                target = journal.folder / names.picture(index)
                raise GCNetError(f"the overlay {target} would replace an input image; choose another --out")
    beside = Beside(journal.folder, kinds, names, model.spec.class_names)
    for place in beside.folders:
        if images_in(paths, place):
            raise GCNetError(f"{place} holds some of the images and is to be written in; give another --out")
    return beside


# The folder -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _journal(out: str | os.PathLike[str] | None, call: dict[str, Any]) -> Iterator[Journal | None]:
    """A context with the journal in `out`, in which no other process writes there."""
    if out is None:
        yield None
        return
    folder = prepare_folder(out)
    with alone_in(folder):
        for name in ("last.ckpt", "metrics.json"):
            if (folder / name).exists():
                raise GCNetError(f"{folder} holds the {name} of something else; give another --out")
        with Journal(folder, call, {"taken": _other_images(folder)}) as journal:
            yield journal


def _other_images(folder: Path) -> list[str]:
    """The images in the folder that no earlier call drew; they must not be replaced."""
    pictures = set(filter(_is_picture, os.listdir(folder)))
    return sorted(pictures.difference(Written(folder).unchanged()))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in (".jpg", ".png")


# A run ------------------------------------------------------------------------------------------------


class _Run:
    """A call in progress: its results are in the journal, or in memory without a folder."""

    def __init__(
        self, steps: Detect | Classify, paths: Sequence[str], journal: Journal | None, wanted: Wanted
    ) -> None:
        self.steps, self.paths, self.journal, self.wanted = steps, paths, journal, wanted
        self.of_detector, self.beside, self.class_names = False, None, ()
        if isinstance(steps, Detect):
            self.of_detector, self.beside = True, steps.beside
            self.class_names = steps.detector.spec.class_names
        formats = wanted.formats or (["coco-results"] if self.of_detector else [])
        self.whole = [WHOLE[word] for word in formats if word in WHOLE]
        self.files = (IMAGES, RESULTS) if self.of_detector else (RESULTS, "")  # of images, and of detections
        self.places = np.full(len(paths), -1, np.int64)  # of images that are done, in the journal
        self.ours = np.arange(wanted.shard[0], len(paths), wanted.shard[1])
        self.parts = Parts(wanted.formats, self.ours, wanted.images_a_file)
        self.held: dict[int, Done] = {}
        self.counts = Counts()
        self.unwritten: list[GCNetError] = []

    def finish(self, batch_size: int, max_pixels: int, progress: bool) -> Predictions:
        """Predicts the images that are not in the journal, and writes the results of all."""
        if self.journal is not None:
            self._recall(self.journal)
        if self.beside is not None:
            self.beside.prepare()
        left = self.ours[self.places[self.ours] < 0].tolist()
        doing = "predicting" if self.of_detector else "classifying"
        try:
            with progress_bar(disable=not progress, rate="images") as bar:
                task = bar.add_task(doing, total=len(self.ours), completed=len(self.ours) - len(left))

                def take(done: Done) -> None:
                    if "error" in done.entry:
                        line = f"skipped: {one_line(done.entry['error'])}"
                        bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
                    self._keep(done)
                    bar.advance(task)

                predict_all(self.steps, self.paths, left, take, batch_size=batch_size, max_pixels=max_pixels)
        except BaseException:
            with contextlib.suppress(GCNetError):  # results are in the journal; the first error matters
                self._write()
            raise
        finally:
            if self.unwritten:
                log.warning(
                    "files of %d images are not written, first: %s", len(self.unwritten), self.unwritten[0]
                )
        return self._write()

    def _recall(self, journal: Journal) -> None:
        """Finds the results of an earlier call in images that have not changed since.

        Without any, removes the files of one that has ended, and raises GCNetError if some of these were
        changed and would be replaced.
        """
        written, beside = Written(journal.folder), self.beside
        if next(journal.entries(), None) is None:
            own = [self.files[0], *(name for name, _ in self.whole), *self.parts.names()]
            own += [DATA] if "yolo" in self.wanted.formats else []
            own += [SHEET] if self.wanted.overlays and not self.of_detector else []
            written.begin(self.paths, [*own, *(beside.there(range(len(self.paths))) if beside else ())])
            return
        index_of = {path: index for index, path in enumerate(self.paths)}
        others: list[str] = []
        for place, path, value in journal.entries():
            if path not in index_of:
                others.append(path)
                continue
            index = index_of[path]
            again = "error" in value["entry"] or value["stamp"] != _stamp(path) or self.steps.wants(index)
            # Images that have come or gone since may take its name, or leave theirs to it.
            renamed = beside is not None and value.get("name") not in (None, beside.names[index])
            self.places[index] = -1 if again or renamed else place
        # Images that are gone by now are left out; a call that has none of the others is another one.
        there = [path for path in others if is_address(path) or os.path.lexists(path)]
        if there or (others and not (self.places >= 0).any()):
            raise GCNetError(
                f"{written.folder} holds the unfinished work of another call, with {listed(others, 1)}: "
                f"repeat that one to go on, delete {journal.path.name}, or give another --out"
            )
        stale = set(beside.there(self.ours[self.places[self.ours] < 0].tolist()) if beside else ())
        # Files of several images are new.
        written.remove(lambda name: name not in stale and ("/" in name or _is_picture(name)))
        self._write_parts(range(self.parts.count), whole=True)

    def _keep(self, done: Done) -> None:
        if self.journal is None:
            self.held[done.index] = done
        else:
            path = self.paths[done.index]
            stamp = None if done.failure else _stamp(path)  # files that the disk did not take are due again
            name = self.beside.names[done.index] if self.beside else None
            values = {"stamp": stamp, "name": name, "entry": done.entry, "found": done.found}
            self.places[done.index] = self.journal.add(path, values)
            if self.parts.count:
                self._write_parts([self.parts.part_of(done.index)], whole=True)
        if done.unwritten:
            self.unwritten.append(done.unwritten)

    def _images(self, indices: np.ndarray | None = None) -> Iterator[ImageFound]:
        """The results, in the order of the images; of all, or of those at `indices`."""
        if self.journal is None:
            for index in sorted(self.held):
                yield ImageFound.of(self.held[index].entry, self.held[index].found)
            return
        for index in (self.ours if indices is None else indices).tolist():
            if self.places[index] >= 0:
                value = self.journal.at(int(self.places[index]))
                if "id" in value["entry"]:
                    value["entry"]["id"] = index  # images may have come between
                yield ImageFound.of(value["entry"], value["found"])

    def _write_parts(self, parts: Iterable[int], *, whole: bool) -> None:
        """Writes the parts all of whose images are done, or those where only some are."""
        assert self.journal is not None
        for part in parts:
            indices = self.parts.indices(part)
            done = self.places[indices] >= 0
            if done.any() and done.all() == whole:
                images = partial(self._images, indices)
                for name in self.parts.write(self.journal.folder, part, images, self.class_names):
                    Written(self.journal.folder).add(name)

    def _counted(self) -> Iterator[ImageFound]:
        """The results, which are counted in `counts`."""
        images = failed = objects = 0
        for image in self._images():
            images += 1
            failed += "error" in image.entry
            objects += image.entry.get("detections", 0)
            yield image
        self.counts = Counts(images, failed, objects)

    def _write(self) -> Predictions:
        """Writes the results to the folder, or returns them."""
        if self.journal is None:
            return self._in_memory()
        folder = self.journal.folder
        written = Written(folder)
        self._write_parts(range(self.parts.count), whole=False)  # where the run was ended
        for name, write in self.whole:
            write(folder / name, self._images, self.class_names)
            written.add(name)
        write_json(folder / self.files[0], (image.entry for image in self._counted()))
        written.add(self.files[0])
        if (sheet := self.steps.sheet()) is not None:
            write_image(folder / SHEET, sheet, quality=90)
            written.add(SHEET)
        return Predictions(folder, self.counts, of_detector=self.of_detector, _files=self.files)

    def _in_memory(self) -> Predictions:
        images = list(self._counted())
        entries = [image.entry for image in images]
        results = [one for image in images for one in result_entries(image, self.class_names)]
        found = [done.result for _, done in sorted(self.held.items()) if done.result is not None]
        return Predictions(None, self.counts, found, of_detector=self.of_detector, _held=(entries, results))


def _stamp(path: str) -> list[int]:
    """A value that changes with the file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]
