"""What an evaluation says of a classifier, and of two beside each other, in plain values.

I images, K classes, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.evaluation.bootstrap import DRAWN, image_weights, interval, nan_mean
from gcnet.evaluation.operating import calibration


def describe_classes(
    results: Sequence[Mapping[str, Any]], dataset: DataSet[LabelledImage], most: int
) -> dict[str, Any]:
    """Accuracy, confusion, calibration and the `most` mistakes with the highest probability.

    `results` are what `ClassResult.entry` has of each image, in the order of the data set.
    """
    names, count = list(dataset.class_names), len(results)
    truth, found, sure = _answers(results, names)
    right, weights = truth == found, image_weights(count)
    table = np.zeros((len(names), len(names)), int)
    np.add.at(table, (truth, found), 1)
    usual = float(sure[right].mean()) if right.any() else 1.0
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]

    return {
        "images": count,
        "intervals": DRAWN,
        **_by_class(truth, names, lambda own: _share(right[own], weights[:, own])),
        "confusion": {"rows_are": "classes", "names": names, "table": table.tolist()},
        "calibration": calibration(sure, right),
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


def describe_two(
    results: Sequence[Sequence[Mapping[str, Any]]], dataset: DataSet[LabelledImage], most: int
) -> dict[str, Any]:
    """The accuracy of two classifiers, its difference, and the `most` images that one of them has right.

    First of these are those whose wrong answer has the highest probability.
    """
    names = list(dataset.class_names)
    both = [_answers(one, names) for one in results]
    truth = both[0][0]
    right = [truth == found for _, found, _ in both]
    weights = image_weights(len(truth))

    def compared(own: Bool[np.ndarray, " I"]) -> dict[str, Any]:
        a, b = (one[own] for one in right)
        drawn = weights[:, own]
        return {
            "a": _share(a, drawn),
            "b": _share(b, drawn),
            "difference": _share(b.astype(int) - a, drawn, least=-1.0),
        }

    differ = np.flatnonzero(right[0] != right[1])
    sure = np.where(right[0], both[1][2], both[0][2])
    return {
        "images": len(truth),
        **_by_class(truth, names, compared),
        "differing_images": [
            {"file_name": dataset.name(image), "place": image, "class": names[truth[image]]}
            | {
                who: {"says": names[found[image]], "probability": float(probability[image])}
                for who, (_, found, probability) in zip("ab", both, strict=True)
            }
            for image in differ[np.argsort(-sure[differ], kind="stable")][:most].tolist()
        ],
    }


def _answers(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Of each image the label, the label that is most probable, and its probability."""
    places = {name: label for label, name in enumerate(names)}
    truth = np.array([places[one["class"]] for one in results], int)
    found = np.array([places[one["predicted"][0]] for one in results], int)
    return truth, found, np.array([one["probabilities"][0] for one in results], float)


def _by_class(
    truth: Int[np.ndarray, " I"], names: Sequence[str], top1: Callable[[Bool[np.ndarray, " I"]], Any]
) -> dict[str, Any]:
    """What `top1` gives for all images, and for those of each class."""
    classes = [
        {"name": name, "images": int((truth == label).sum()), "top1": top1(truth == label)}
        for label, name in enumerate(names)
    ]
    return {"top1": top1(np.ones(len(truth), bool)), "classes": classes}


def _share(
    right: Bool[np.ndarray, " I"] | Int[np.ndarray, " I"],
    weights: Float32[np.ndarray, "B I"],
    least: float = 0.0,
) -> dict[str, float]:
    """The share of images that are right, or a difference of two such, with its interval."""
    total = weights.sum(1)
    samples = np.where(total > 0, np.einsum("bi,i->b", weights, right) / np.maximum(total, 1), np.nan)
    return interval(float(nan_mean(right.astype(float))), samples, least=least)
