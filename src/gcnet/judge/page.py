"""The report of an evaluation as a page, and as JSON. The template holds the texts of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.data.dataset import DataSet, ImageRecord, LabelledImage
from gcnet.data.same_images import same_images
from gcnet.evaluation.evaluate import evaluator_of
from gcnet.files import prepare_folder, write_bytes, write_json
from gcnet.judge.classifier import describe_classes
from gcnet.judge.detector import Judged, describe, judge, single_images
from gcnet.judge.strips import draw_image, draw_strip, plain
from gcnet.judge.words import SAYS, confused, findings
from gcnet.models.spec import ClassifierSpec, ModelSpec
from gcnet.viz.figures import Figure, draw_each
from gcnet.viz.page import render_page

SHOWN = 12  # drawings of a kind
LISTED = 200  # entries of a kind in the JSON


def write_report(
    spec: ModelSpec | ClassifierSpec,
    results: Any,
    dataset: DataSet[Any],
    folder: Path,
    *,
    about: Mapping[str, str],
    train_set: DataSet[Any] | None = None,
) -> None:
    """Writes `report.html` and `report.json` of the results of an evaluation.

    `about` says what was evaluated on what; images of `dataset` are looked for in `train_set`.
    """
    prepare_folder(folder)
    shared = {"also_trained_on": None if train_set is None else _also_trained_on(dataset, train_set)}
    if isinstance(spec, ClassifierSpec):
        found = describe_classes(results, dataset, LISTED)
        template, drawn, draw = "classes.html", ("mistakes",), partial(_draw_class, dataset)
    else:
        judged = judge(evaluator_of(spec, dataset, results.images))
        found = describe(judged) | single_images(judged, dataset, LISTED)
        template, drawn = "report.html", ("worst_images", "mistakes", "suspects")
        draw = partial(_draw, judged, dataset)
    report = plain({**about, **shared, **found})
    write_json(folder / "report.json", report)
    page = render_page(
        Path(__file__).with_name(template),
        report=report,
        findings=findings(report),
        says=SAYS,
        confused=confused(report["confusion"]),
        drawn=draw_each(draw, {kind: report[kind][:SHOWN] for kind in drawn}),
        chart=_charts(report),
    )
    write_bytes(folder / "report.html", page)


def _also_trained_on(dataset: DataSet[Any], train_set: DataSet[Any]) -> list[dict[str, str]]:
    """The images that are also in the training split."""
    names, count = [*dataset.names(), *train_set.names()], len(dataset)
    groups = same_images([record.path for record in (*dataset.records, *train_set.records)])
    return [
        {"file_name": names[place], "trained_on": names[group[-1]]}
        for group in groups
        for place in group
        if place < count <= group[-1]
    ]


# What the page draws -----------------------------------------------------------------------------------


def _draw(judged: Judged, dataset: DataSet[ImageRecord], entry: Mapping[str, Any]) -> Figure:
    """The ground truth beside the detections, in an image or around one."""
    if "detection" not in entry:
        head = f"{entry['missed']} missed, {entry['false']} false"
        return draw_strip([judged], dataset, entry, head, entry["file_name"])
    on = f" on {entry['object']} (IoU {entry['iou']:.2f})" if entry["object"] else ""
    text = f"{SAYS[entry['error']]}{on}; {entry['file_name']}"
    head = f"{entry['class']} {entry['score']:.2f}"
    return draw_strip([judged], dataset, entry, head, text)


def _draw_class(dataset: DataSet[LabelledImage], entry: Mapping[str, Any]) -> Figure:
    return draw_image(dataset, entry, f"{entry['taken_for']} {entry['probability']:.2f}")


def _calibration(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line where scores are what they say, and what they are; a dot's area goes with what is in its bin."""
    bins = report["calibration"]["bins"]
    most = max((one["count"] for one in bins), default=1)
    dots = [(2 + 5 * (one["count"] / most) ** 0.5, f"{one['count']:,}") for one in bins]
    points = [(one["score"], one["right"]) for one in bins]
    return [
        {"name": "as good as it says", "points": [(0, 0), (1, 1)]},
        {"name": "share that is right", "points": points, "dots": dots},
    ]


def _charts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Lines in the unit square: of a detector also of each class and of all, and of sizes in logarithms."""
    charts: dict[str, Any] = {"calibration": _calibration(report)}
    if "curves" not in report:
        return charts
    levels, sizes = report["curves"]["score"], report["sizes"]

    def of(curves: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
        names = {"precision": "precision", "recall": "recall", "f1": "F1"}
        return [
            {"name": word, "points": list(zip(levels, curves[name], strict=True))}
            for name, word in names.items()
        ]

    sides = np.log2([one["side"] for one in sizes])
    low, span = (sides.min(), max(np.ptp(sides), 1e-9)) if len(sizes) else (0.0, 1.0)
    places = ((sides - low) / span).tolist()
    powers = [place for place in range(3, 14) if low <= place <= low + span]
    return charts | {
        "all": of(report["curves"]["all"]),
        "classes": [of(curves) for curves in report["curves"]["classes"]],
        "sizes": [
            {
                "name": "box AP",
                "points": [(x, one["value"]) for x, one in zip(places, sizes, strict=True)],
                "band": [(x, one["low"]) for x, one in zip(places, sizes, strict=True)]
                + [(x, one["high"]) for x, one in zip(places[::-1], sizes[::-1], strict=True)],
            }
        ],
        "size_ticks": [((power - low) / span, str(2**power)) for power in powers],
    }
