"""`live.html`, a page that reloads itself during a run: losses, learning rate, AP, time left, samples."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from gcnet.data.dataset import DataSet, Instance
from gcnet.engine.loggers import MetricsFile, has_number
from gcnet.engine.run import Run
from gcnet.evaluation.classify import ClassResult
from gcnet.evaluation.results import ImageResults
from gcnet.files import write_bytes
from gcnet.viz.figures import Figure, draw_window
from gcnet.viz.page import render_page

NAME = "live.html"
SHARE = 0.01  # of a run's time that its page may take
SELDOM = 30.0  # seconds after which a page is old, whatever the length of an epoch
SAMPLES, OBJECTS = 6, 20  # images of a validation, and the best so many detections of each
POINTS = 200  # of a line


class LivePage:
    """The logger of the page. `recorded` has all rows; `scores` are a validation's, the main one first."""

    def __init__(self, run: Run, recorded: MetricsFile, scores: Sequence[str]) -> None:
        self._run, self._recorded, self._scores = run, recorded, scores
        self._began, self._from = time.monotonic(), run.iteration
        self._written, self._cost = -math.inf, 0.0
        self._samples: list[Figure] = []

    def begin(self) -> None:
        """Writes a first page."""
        self._render(running=True)

    def write(self, iteration: int, group: str, values: Mapping[str, float]) -> None:
        """Writes the page after an epoch or validation, or if it is old; but not too often."""
        since = time.monotonic() - self._written
        wanted = group == "valid" or iteration % self._run.per_epoch == 0 or since > SELDOM
        if wanted and since * SHARE >= self._cost:
            self._render(running=True)

    def close(self) -> None:
        """Writes the final page."""
        self._render(running=False)

    def show(self, dataset: DataSet, found: Sequence[Any], threshold: float) -> None:
        """Draws the results on some images of a validation; of a detector, above a score."""
        spread = range(0, len(found), max(1, len(found) // SAMPLES))[:SAMPLES]
        self._samples = [draw_sample(dataset, i, found[i], threshold) for i in spread]

    def _render(self, *, running: bool) -> None:
        started = time.monotonic()
        write_bytes(self._run.out / NAME, self._page(started, running=running))
        self._written = time.monotonic()
        self._cost = self._written - started

    def _page(self, now: float, *, running: bool) -> bytes:
        run, rows = self._run, self._recorded.rows
        trained = [row for row in rows if has_number(row, "loss")]
        done = run.iteration - self._from
        pace = (now - self._began) / done if done else math.nan
        best = max((row[self._scores[0]] for row in self._validations()), default=math.nan)
        losses = _losses(trained)
        return render_page(
            Path(__file__).with_name("live.html"),
            name=run.model.spec.name,
            out=str(run.out),
            refresh=min(max(round(pace * run.per_epoch if done else 0), 5), 60) if running else 0,
            iteration=run.iteration,
            total=run.total,
            epoch=run.iteration / run.per_epoch,
            epochs=run.recipe.epochs,
            pace=pace,
            left=str(timedelta(seconds=round(pace * (run.total - run.iteration)))) if done else "",
            rate=trained[-1]["lr"] if trained else math.nan,
            best=best,
            score=self._scores[0].replace("_", " "),
            losses=[(name, trained[0].get(name, math.nan), trained[-1][name]) for name in losses],
            charts=self._charts(trained),
            samples=self._samples,
        )

    def _validations(self) -> list[dict[str, float]]:
        return [row for row in self._recorded.rows if has_number(row, self._scores[0])]

    def _charts(self, trained: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
        """The lines of charts in the unit square, and the largest value of each chart."""
        wanted = {
            "Losses": (trained, _losses(trained)[:3]),
            "Learning rate": (trained, ["lr"]),
            "Validation": (self._validations(), list(dict.fromkeys(self._scores))[:3]),
        }
        charts = []
        for title, (rows, names) in wanted.items():
            shown = [*rows[:: math.ceil(len(rows) / POINTS) or 1], *rows[-1:]]
            values = [row[name] for row in shown for name in names if has_number(row, name)]
            if not values:
                continue
            top = 1.0 if title == "Validation" else max(values) or 1.0
            lines = []
            for name in names:
                given = [row for row in shown if has_number(row, name)]
                points = [(row["iteration"] / self._run.total, row[name] / top) for row in given]
                if points:
                    lines.append({"name": name.replace("_", " "), "points": points})
            charts.append({"title": title, "lines": lines, "top": top})
        return charts


def _losses(trained: Sequence[Mapping[str, float]]) -> list[str]:
    """The names of the losses: their sum, then its parts from the largest, if there are several."""
    if not trained:
        return []
    names = [name for name in trained[-1] if "loss" in name and has_number(trained[-1], name)]
    names.sort(key=lambda name: -trained[0].get(name, 0.0))  # as at first: lines keep their colours
    return names if len(names) > 2 else ["loss"]


def draw_sample(dataset: DataSet[Any], index: int, found: Any, threshold: float) -> Figure:
    """An image beside its detections, or with the classes that a classifier gives."""
    image, record, names = dataset.read_image(index), dataset.records[index], dataset.class_names
    if isinstance(found, ClassResult):
        entry = found.entry
        head = f"{entry['predicted'][0]} {entry['probabilities'][0]:.2f}"
        drawn = [draw_window(image, None, [], names)]
        return Figure.of(drawn, head, f"is {entry['class']}; {record.path.name}")
    items, scores = as_instances(found, dataset.category_ids, threshold)
    drawn = [
        draw_window(image, None, record.instances, names),
        draw_window(image, None, items, names, scores),
    ]
    return Figure.of(drawn, "", record.path.name)


def as_instances(
    found: ImageResults, category_ids: Sequence[int], threshold: float
) -> tuple[list[Instance], list[float]]:
    """The best detections above a score as objects to draw, and their scores."""
    rows = [row for row, score in enumerate(found.scores.tolist()) if score >= threshold][:OBJECTS]
    items = []
    for row in rows:
        x, y, width, height = found.boxes[row].tolist()
        mask: Any = {"size": list(found.size), "counts": found.counts[row]} if found.counts else []
        label = category_ids.index(int(found.category_ids[row]))
        items.append(Instance(row, label, (x, y, x + width, y + height), mask, width * height, crowd=False))
    return items, found.scores[rows].tolist()
