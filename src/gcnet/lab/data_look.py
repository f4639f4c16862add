"""Looks through a data set before a training: counts, checks, and the findings that a person should know."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcnet.console import listed, progress_bar
from gcnet.data.check import find_problems
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.same_images import same_images
from gcnet.data.survey import SMALL_SHARE, Survey, survey
from gcnet.data.suspects import Suspect, find_suspects
from gcnet.errors import GCNetError
from gcnet.viz.page import Line, percent

log = logging.getLogger(__name__)

Place = tuple[str, int]  # a split, and an index in it


@dataclass(frozen=True)
class Look:
    """What was found. `notes` are the readers', `problems` images that cannot be trained on.

    `same` has groups of places that hold one image, (split, index) each; `compared` of the images were
    decoded for that, the others compared by their bytes.
    """

    root: Path
    splits: Mapping[str, DataSet[ImageRecord]]
    notes: tuple[str, ...]
    survey: Survey
    suspects: tuple[Suspect, ...]
    problems: tuple[str, ...]
    same: tuple[tuple[Place, ...], ...]
    compared: int

    @property
    def name(self) -> str:
        """The folder's, or that of the file and its folder."""
        root = self.root.resolve()
        return root.name if root.is_dir() else f"{root.parent.name}/{root.name}"

    @property
    def shared(self) -> list[tuple[Place, ...]]:
        """The images that are in more than one split."""
        return [group for group in self.same if len({split for split, _ in group}) > 1]

    def file(self, split: str, index: int) -> str:
        """The name of an image's file."""
        return self.splits[split].records[index].path.name


@contextmanager
def notes_of_readers() -> Iterator[list[str]]:
    """Collects the warnings that the readers of data sets give, in place of their being printed."""
    notes: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    readers, handler = logging.getLogger("gcnet.data"), Handler()
    readers.addHandler(handler)
    before, readers.propagate = readers.propagate, False
    try:
        yield notes
    except GCNetError:  # what led to it is said before it
        for note in notes:
            log.warning("%s", note)
        raise
    finally:
        readers.propagate = before
        readers.removeHandler(handler)


def look_through(
    root: Path, splits: Mapping[str, DataSet[ImageRecord]], notes: Iterable[str], *, most_decoded: int = 2000
) -> Look:
    """Counts, checks headers of all images, and compares images with each other."""
    found = survey(splits)
    problems = find_problems(splits, progress=True)
    places = [(split, index) for split, dataset in splits.items() for index in range(len(dataset))]
    paths = [splits[split].records[index].path for split, index in places]
    compared = min(len(paths), most_decoded)
    with progress_bar(transient=True) as bar:
        task = bar.add_task("comparing images", total=compared)
        groups = same_images(paths, most_decoded=most_decoded, done=lambda: bar.advance(task))
    return Look(
        root,
        splits,
        tuple(_within(note, root) for note in notes),
        found,
        tuple(find_suspects(found.objects, found.class_names)),
        tuple(_within(problem, root) for problem in problems.values()),
        tuple(tuple(places[i] for i in group) for group in groups),
        compared,
    )


def _within(line: str, root: Path) -> str:
    """A line where paths in `root` are seen from there."""
    return re.sub(rf"(?<![\w./-]){re.escape(str(root))}/|{re.escape(str(root.absolute()))}/", "", line)


# In words, one line each -----------------------------------------------------------------------------

FEW = 10  # objects of a class to train on, below which one line says so
LEVELS = ("fix", "look", "note", "good")

TITLES = {
    "box mended": "boxes of another object, replaced by those of the outlines",
    "box against outline": "boxes that are not around their outlines",
    "box outside": "boxes that reach out of the image",
    "twice": "annotated twice, perhaps",
    "two classes": "one box, two classes",
    "huge": "as large as the image",
    "tiny": "tiny, under 8 pixels a side where images are fitted in 1333 x 800",
}


def findings(look: Look) -> list[Line]:
    """The lines at the top of the page, the most important first."""
    lines = [*_about_images(look), *_about_classes(look), *_about_objects(look)]
    if not any(level in ("fix", "look") for level, _ in lines):
        lines.append(("good", "nothing odd was found"))
    return sorted(lines, key=lambda line: LEVELS.index(line[0]))


def advice(found: Survey) -> str:
    """The image size to resize to; nothing without objects."""
    fit = found.suggested
    if fit is None:
        return ""
    size = f"{fit.limits[0]} x {fit.limits[1]}"
    if fit.small > SMALL_SHARE:
        return (
            f"even at {size}, {percent(fit.small)} of the objects are under 16 pixels a side: cut the images "
            "into tiles"
        )
    return f"{size} is the smallest with at most {SMALL_SHARE:.0%} of the objects under 16 pixels a side"


def _about_images(look: Look) -> Iterator[Line]:
    if look.problems:
        count, first = many(len(look.problems), "image"), listed(look.problems, 2, "; ")
        yield "fix", f"{count} missing, cut off or not of the annotated size: {first}"
    valid = look.survey.splits.get("valid")
    if "train" in look.splits and not (valid and valid.objects):
        level, missing = ("look", "object in the validation split") if valid else ("note", "validation split")
        yield level, f"there is no {missing}: a training on this is not scored"
    if look.shared:
        yield "fix", _copies(look, look.shared, "in more than one split, where scores measure memory")
    if again := [group for group in look.same if group not in look.shared]:
        yield "note", _copies(look, again, "more than once in a split")
    total = len(look.survey.image_sizes)
    if look.compared < total:
        yield "note", f"{look.compared:,} of {total:,} images were compared by what they show, all by bytes"
    if empty := sum(count.empty_images for count in look.survey.splits.values()):
        count = many(empty, "image")
        yield "note", f"{count} without an object to learn from; only --keep-empty trains on them"


def _copies(look: Look, groups: Sequence[Sequence[Place]], where: str) -> str:
    """How many images are there again, and the first of the files that hold the same one."""
    named = [
        listed([f"{split}/{look.file(split, index)}" for split, index in group], 3, " = ") for group in groups
    ]
    return f"{many(len(groups), 'image')} {where}: {listed(named, 2)}"


def _about_classes(look: Look) -> Iterator[Line]:
    names, splits = look.survey.class_names, list(look.survey.splits)
    first = look.survey.class_counts[:, 0]
    if not first.any():
        return
    if absent := [names[i] for i in np.flatnonzero(first == 0)]:
        yield "look", f"{many(len(absent), 'class')} without an object in {splits[0]}: {listed(absent)}"
    rarest = np.argsort(first, kind="stable")
    if few := [f"{names[i]} ({first[i]})" for i in rarest if 0 < first[i] < FEW]:
        yield "look", f"{many(len(few), 'class')} of fewer than {FEW} objects in {splits[0]}: {listed(few)}"
    for split, counts in zip(splits[1:], look.survey.class_counts[:, 1:].T, strict=True):
        unseen = [names[i] for i in np.flatnonzero((counts == 0) & (first > 0))]
        if unseen and counts.any():
            yield "look", f"{many(len(unseen), 'class')} without an object in {split}: {listed(unseen)}"


def _about_objects(look: Look) -> Iterator[Line]:
    counts = look.survey.splits.values()
    total, usable = sum(count.objects for count in counts), len(look.survey.objects)
    crowd, ignored = (sum(getattr(count, kind) for count in counts) for kind in ("crowd", "ignored"))
    if crowd:
        yield "note", f"{crowd:,} of {total:,} objects are crowds, not trained on and ignored in scores"
    if ignored:
        yield "note", f"{ignored:,} of {total:,} objects are marked to be ignored, or difficult"
    if not usable:
        brush = "; all are marked iscrowd, and --crowd-as-objects true takes them as objects"
        yield "fix", f"none of {total:,} objects can be learnt from{brush if crowd == total > 0 else ''}"
        return
    bare = int(np.isnan(look.survey.objects.bounds[:, 0]).sum())
    if bare == usable:
        yield "note", "no outlines: train a detector of boxes alone, faster_rcnn_* or cascade_rcnn_*"
    elif bare:
        yield "look", f"{bare:,} of {usable:,} objects have no outline: models with masks leave them out"
    kinds = Counter(suspect.kind for suspect in look.suspects)
    for kind, title in TITLES.items():
        if kinds[kind]:
            yield "look", f"{many(kinds[kind], 'object')}: {title}"
    yield "note", f"image size: {advice(look.survey)}"


def many(count: int, word: str) -> str:
    """`1 image`, `1,200 classes`."""
    return f"{count:,} {word if count == 1 else word + ('es' if word.endswith('s') else 's')}"
