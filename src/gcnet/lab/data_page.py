"""The page of a data set: counts, findings and drawings of its ground truth.

The template beside this file holds the texts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.console import listed, progress_bar
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.survey import Survey
from gcnet.data.suspects import Suspect
from gcnet.errors import GCNetError
from gcnet.files import alone_in, prepare_folder, remove_leftovers, write_bytes
from gcnet.lab.data_look import TITLES, Look, Place, advice, findings
from gcnet.ops.images import write_image
from gcnet.prediction.names import OutputNames
from gcnet.prediction.written import Written
from gcnet.viz import draw_targets
from gcnet.viz.figures import Figure, draw_each, draw_window, window_around
from gcnet.viz.page import count_bars, render_page, size_bars

EACH = 6  # figures of a kind of suspect, and images that are in two splits
LIST = ".drawn.jsonl"  # of the files that were drawn
CLOSE = 4  # sides of an object that its close-up shows


def write_page(look: Look, path: Path, *, images: int = 24) -> None:
    """Writes the page, with the ground truth of `images` images and the worst suspects."""
    found = look.survey
    suspects = {kind: [one for one in look.suspects if one.kind == kind] for kind in TITLES}
    shown: dict[str, Sequence[Suspect | Place]] = {kind: worst[:EACH] for kind, worst in suspects.items()}
    shown["same"] = [place for group in look.shared[:EACH] for place in group[:2]]
    shown["sample"] = _sample(look, images)
    drawn = draw_each(partial(_draw, look), shown)
    kinds = [
        {"title": TITLES[kind].capitalize(), "count": len(worst), "figures": drawn[kind]}
        for kind, worst in suspects.items()
        if worst
    ]
    page = render_page(
        Path(__file__).with_name("data_page.html"),
        look=look,
        lines=findings(look),
        columns=_split_columns(found),
        classes=_class_rows(found),
        object_sizes=size_bars(found.objects.side),
        image_sizes=size_bars(np.sqrt(found.image_sizes.prod(1))),
        per_image=count_bars(found.objects_an_image),
        common_sizes=_common_sizes(found),
        advice=advice(found),
        kinds=kinds,
        same=drawn["same"],
        sample=drawn["sample"],
    )
    write_bytes(path, page)


def _split_columns(found: Survey) -> list[dict[str, Any]]:
    """What there is in the splits; of what training leaves out, only columns that are not all zero."""
    titles = {
        "images": "images",
        "trained_images": "trained on",
        "objects": "objects",
        "empty_images": "images without objects",
        "small_images": "images under 32 pixels",
        "crowd": "crowd",
        "ignored": "to ignore",
        "unusable": "of no use",
        "without_outline": "no outline",
    }
    columns = [
        {"title": title, "counts": [getattr(count, field) for count in found.splits.values()]}
        for field, title in titles.items()
    ]
    return [column for place, column in enumerate(columns) if place < 3 or any(column["counts"])]


def _class_rows(found: Survey) -> list[dict[str, Any]]:
    """Of each class its name and counts, of all splits together first; the most frequent class first."""
    totals = found.class_counts.sum(1)
    rows = []
    for label in np.argsort(-totals, kind="stable").tolist():
        each = found.class_counts[label].tolist() if len(found.splits) > 1 else []
        share = totals[label] / max(totals.max(), 1)
        rows.append({"name": found.class_names[label], "share": share, "counts": [int(totals[label]), *each]})
    return rows


def _common_sizes(found: Survey) -> str:
    """Widths and heights of the images."""
    counts = Counter(f"{width} x {height}" for height, width in found.image_sizes.tolist())
    if len(counts) == 1:
        return f"All images are of {next(iter(counts))} pixels."
    most = [f"{size} ({count:,})" for size, count in counts.most_common(5)]
    return f"The images are of {len(counts):,} sizes, most often {listed(most)}."


# Drawings ----------------------------------------------------------------------------------------------


def _sample(look: Look, count: int) -> list[Place]:
    """Images to draw: one of each class first, the rarest first; then evenly from all."""
    objects, splits = look.survey.objects, list(look.splits)
    found = np.full(len(look.survey.class_names), len(objects))
    np.minimum.at(found, objects.label, np.arange(len(objects)))  # the first of each class
    places: dict[Place, None] = {}
    for label in np.argsort(look.survey.class_counts.sum(1), kind="stable").tolist():
        if len(places) < count and found[label] < len(objects):
            row = found[label]
            places[splits[objects.split[row]], int(objects.image[row])] = None
    every = [(split, index) for split, dataset in look.splits.items() for index in range(len(dataset))]
    for number in np.linspace(0, len(every) - 1, min(count, len(every))).astype(int).tolist():
        if len(places) < count:
            places[every[number]] = None
    return sorted(places, key=lambda place: (splits.index(place[0]), place[1]))


def _draw(look: Look, shown: Suspect | Place) -> Figure:
    """A suspect with what is around it, or all of an image."""
    if isinstance(shown, Suspect):
        return _close_up(look, shown)
    split, index = shown
    image, items = look.splits[split].read_image(index), look.splits[split].records[index].instances
    drawn = draw_window(image, None, items, look.survey.class_names)
    return Figure.of([drawn], split, look.file(split, index))


def _close_up(look: Look, suspect: Suspect) -> Figure:
    objects, row, names = look.survey.objects, suspect.row, look.survey.class_names
    split, index = list(look.splits)[objects.split[row]], int(objects.image[row])
    record = look.splits[split].records[index]
    box, bounds = objects.box[row], objects.bounds[row]
    low, high = np.fmin(box[:2], bounds[:2]), np.fmax(box[2:], bounds[2:])
    side = max(float((high - low).max()) * (CLOSE if suspect.kind == "tiny" else 1.5), 48.0)
    window = window_around([*low, *high], side, (record.height, record.width))
    item = record.instances[objects.place[row]]
    drawn = draw_window(look.splits[split].read_image(index), window, [item], names)
    return Figure.of([drawn], names[item.label], f"{suspect.words}; {split}/{record.path.name}, id {item.id}")


def draw_all(splits: Mapping[str, DataSet[ImageRecord]], out: Path) -> list[str]:
    """Draws each image with its objects in `out`/SPLIT, under its own name; what could not be read is told.

    What an earlier call drew there is removed. Raises GCNetError where nothing can be written, or something
    else would be replaced.
    """
    written, tasks = Written(prepare_folder(out), LIST), {}
    for split, dataset in splits.items():
        names = OutputNames([record.path for record in dataset.records])
        tasks |= {f"{split}/{names.picture(index)}": (dataset, index) for index in range(len(dataset))}

    def draw(name: str) -> str | None:
        dataset, index = tasks[name]
        try:
            image = dataset.read_image(index)
        except GCNetError as error:
            return str(error)
        write_image(out / name, draw_targets(image, dataset.records[index], dataset.class_names))
        written.add(name)
        return None

    with alone_in(out), progress_bar(transient=True) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        written.begin([record.path for dataset in splits.values() for record in dataset.records], tasks)
        for split in splits:
            remove_leftovers(prepare_folder(out / split))
        failed = list(bar.track(pool.map(draw, tasks), total=len(tasks), description="drawing"))
    return [problem for problem in failed if problem]
