"""Compares two models on one data set: the difference, its interval, and the images that differ most.

Both are scored on the same resampled images (paired bootstrap), so that images that are hard for both do not
widen the interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gcnet.data.dataset import DataSet, ImageRecord, LabelledImage
from gcnet.evaluation.bootstrap import DRAWN, image_weights
from gcnet.evaluation.evaluate import evaluator_of
from gcnet.evaluation.results import CocoResults
from gcnet.files import write_bytes, write_json
from gcnet.judge.classifier import describe_two
from gcnet.judge.detector import Judged, ap_intervals, errors_of_images, judge
from gcnet.judge.page import LISTED, SHOWN
from gcnet.judge.strips import draw_image, draw_strip, plain
from gcnet.models.spec import ModelSpec
from gcnet.viz.figures import Figure, draw_each
from gcnet.viz.page import render_page


def write_comparison(
    specs: Sequence[Any],
    results: Sequence[Any],
    dataset: DataSet[Any],
    folder: Path,
    *,
    about: Mapping[str, str],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes `compare.html` and `compare.json` of the results of two models, and returns what the second has.

    `specs` and `results` are of two detectors, or of two classifiers (what `ClassResult.entry` has of each
    image). `about` says which models `a` and `b` are, `notes` what else to know of the verdict.
    """
    both = _detectors if isinstance(specs[0], ModelSpec) else _classifiers
    compared, differences, draw = both(specs, results, dataset)
    intervals = DRAWN | {"drawn": "images, the same for both"}
    said = " ".join([verdict(differences), *notes])
    report = plain({**about, "intervals": intervals, "verdict": said, **compared})
    write_json(folder / "compare.json", report)
    drawn = draw_each(draw, {"differing_images": report["differing_images"][:SHOWN]})
    page = render_page(Path(__file__).with_name("compare.html"), report=report, drawn=drawn)
    write_bytes(folder / "compare.html", page)
    return report


# The content of the report, the differences that the verdict is about, and how a differing image is drawn.
Compared = tuple[dict[str, Any], dict[str, dict[str, float]], Callable[[Mapping[str, Any]], Figure]]


def _detectors(
    specs: Sequence[ModelSpec], results: Sequence[CocoResults], dataset: DataSet[ImageRecord]
) -> Compared:
    both_found = zip(specs, results, strict=True)
    models = [judge(evaluator_of(spec, dataset, found.images)) for spec, found in both_found]
    a, b = models
    weights, kinds = image_weights(len(a.evaluator.order)), {"box": [a.boxes, b.boxes]}
    if a.masks and b.masks:
        kinds["mask"] = [a.masks, b.masks]
    ap = {
        kind: {"a": ap_intervals(both[:1], weights), "b": ap_intervals(both[1:], weights)}
        | {"difference": ap_intervals(both, weights)}
        for kind, both in kinds.items()
    }
    report = {
        "images": len(a.evaluator.order),
        "ap": {kind: {who: one["all"] for who, one in whom.items()} for kind, whom in ap.items()},
        "classes": [
            {"name": name}
            | {kind: {who: one["classes"][k] for who, one in whom.items()} for kind, whom in ap.items()}
            for k, name in enumerate(dataset.class_names)
        ],
        "best": {who: asdict(one.best) if one.best else None for who, one in (("a", a), ("b", b))},
        "differing_images": _differing(models, dataset),
    }
    differences = {f"{name} AP": one["difference"]["all"]["AP"] for name, one in ap.items()}
    return report, differences, partial(_draw, models, dataset)


def _classifiers(_: Any, results: Sequence[Any], dataset: DataSet[LabelledImage]) -> Compared:
    report = describe_two(results, dataset, LISTED)

    def draw(entry: Mapping[str, Any]) -> Figure:
        said = [f"{who.upper()}: {entry[who]['says']} {entry[who]['probability']:.2f}" for who in "ab"]
        return draw_image(dataset, entry, "; ".join(said))

    return report, {"top-1 accuracy": report["top1"]["difference"]}, draw


def verdict(differences: Mapping[str, Mapping[str, float]]) -> str:
    """What the intervals of differences mean, one sentence for each figure that is named."""
    said = []
    for kind, one in differences.items():
        interval = f"(95% between {one['low']:+.3f} and {one['high']:+.3f})"
        size, more = f"by {abs(one['value']):.3f} {kind} {interval}", one["value"] > 0
        if math.isnan(one["value"]):
            said.append(f"There is nothing in these images to score {kind} on.")
        elif one["low"] > 0 or one["high"] < 0:
            said.append(f"B is {'better' if more else 'worse'} {size}.")
        else:
            none = f"There is no difference in {kind} {interval}"
            has = f"B has {'more' if more else 'less'} {size}" if round(one["value"], 3) else none
            said.append(f"{has}: these images cannot tell the two apart.")
    return " ".join(said)


def _differing(models: Sequence[Judged], dataset: DataSet[ImageRecord]) -> list[dict[str, Any]]:
    """The images with most errors more in one model than in the other, each at its own best threshold."""
    errors = [np.stack(errors_of_images(model), 1) for model in models]  # of each image, false and missed
    more = errors[1].sum(1) - errors[0].sum(1)
    return [
        {"file_name": dataset.name(place), "place": place}
        | {
            who: {"false": int(counts[image, 0]), "missed": int(counts[image, 1])}
            for who, counts in zip("ab", errors, strict=True)
        }
        for image in np.argsort(-np.abs(more), kind="stable")[:LISTED].tolist()
        if more[image]
        for place in [models[0].evaluator.order[image]]
    ]


def _draw(models: Sequence[Judged], dataset: DataSet[ImageRecord], entry: Mapping[str, Any]) -> Figure:
    words = [f"{who.upper()}: {entry[who]['missed']} missed, {entry[who]['false']} false" for who in "ab"]
    return draw_strip(models, dataset, entry, "; ".join(words), entry["file_name"])
