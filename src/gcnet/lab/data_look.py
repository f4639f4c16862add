"""A look through a data set before a training: counts, headers of all images, what is twice, what is odd."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gcnet.console import progress_bar
from gcnet.data.check import find_problems
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.same_images import same_images
from gcnet.data.survey import Survey, survey
from gcnet.data.suspects import Suspect, find_suspects

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
        tuple(note.replace(f"{root}/", "") for note in notes),
        found,
        tuple(find_suspects(found.objects, found.class_names)),
        tuple(problem.replace(f"{root}/", "") for problem in problems.values()),
        tuple(tuple(places[i] for i in group) for group in groups),
        compared,
    )
