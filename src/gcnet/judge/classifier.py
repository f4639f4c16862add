"""The content of a classifier's `report.json`: what an evaluation says of it, in plain values.

I images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.evaluation.bootstrap import RESAMPLES, SEED, Interval, image_weights, nan_mean
from gcnet.evaluation.operating import calibration


def describe_classes(
    results: Sequence[Mapping[str, Any]], dataset: DataSet[LabelledImage], most: int
) -> dict[str, Any]:
    """Accuracy, confusion, calibration and the `most` mistakes with the highest probability.

    `results` are what `ClassResult.entry` has of each image, in the order of the data set.
    """
    names, count = list(dataset.class_names), len(results)
    places = {name: label for label, name in enumerate(names)}
    truth = np.array([places[one["class"]] for one in results], int)
    found = np.array([places[one["predicted"][0]] for one in results], int)
    sure = np.array([one["probabilities"][0] for one in results], float)
    right, weights = truth == found, image_weights(count)
    table = np.zeros((len(names), len(names)), int)
    np.add.at(table, (truth, found), 1)
    bins, error = calibration(sure, right)
    usual = float(sure[right].mean()) if right.any() else 1.0
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]

    def accuracy(own: np.ndarray) -> dict[str, float]:
        drawn = weights[:, own]
        total = drawn.sum(1)
        samples = np.where(total > 0, (drawn * right[own]).sum(1) / np.maximum(total, 1), np.nan)
        return asdict(Interval.of(float(nan_mean(right[own].astype(float))), samples))

    return {
        "images": count,
        "intervals": {"level": 0.95, "resamples": RESAMPLES, "seed": SEED, "drawn": "images"},
        "top1": accuracy(np.arange(count)),
        "classes": [
            {
                "name": name,
                "images": int((truth == label).sum()),
                "top1": accuracy(np.flatnonzero(truth == label)),
            }
            for label, name in enumerate(names)
        ],
        "confusion": {"rows_are": "classes", "names": names, "table": table.tolist()},
        "calibration": {"bins": [asdict(one) for one in bins], "error": error},
        "mistakes": [
            {
                "file_name": dataset.name(place),
                "place": place,
                "class": names[truth[place]],
                "taken_for": names[found[place]],
                "probability": float(sure[place]),
                "suspect": bool(sure[place] >= usual),  # as sure as right ones are on average
            }
            for place in wrong[:most].tolist()
        ],
    }
