"""Confidence intervals of a difference between trainings, over seeds and over images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.errors import GCNetError
from gcnet.evaluation.average_precision import LIMIT, Matches
from gcnet.evaluation.bootstrap import ap_samples, image_weights, nan_mean
from gcnet.evaluation.coco_ap import CocoEvaluator
from gcnet.evaluation.results import ImageResults

# Student's t that leaves 2.5 % above, by degrees of freedom from 1 on.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def t95(freedom: int) -> float:
    """Half the width of a 95 % interval, in standard errors (to 0.003)."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.5 / freedom


@dataclass(frozen=True)
class Difference:
    """By how much a cell's box AP is higher than that of a baseline, with 95 % bounds.

    They hold for other images of the kind and, with `seeds` of 2 or more each, for other seeds.
    """

    value: float
    low: float
    high: float
    seeds: int

    def in_words(self, cell: str, baseline: str) -> str:
        """The difference as a sentence."""
        better = "not told apart"
        if self.low > 0 or self.high < 0:
            better = "better" if self.value > 0 else "worse"
        where = "on other images and with other seeds" if self.seeds > 1 else "on other images, of this seed"
        interval = f"95% between {self.low:+.3f} and {self.high:+.3f} {where}"
        return f"{cell} beside {baseline}: {better}, {self.value:+.3f} box AP, {interval}"


@dataclass(frozen=True)
class Scored:
    """The runs of a cell: the box AP of each seed, and their mean on images drawn with replacement."""

    seeds: tuple[float, ...]
    drawn: Float[np.ndarray, " B"]


def score_runs(results: Sequence[Path], dataset: DataSet[ImageRecord]) -> Scored:
    """The scores of runs whose `results.json` of the images of `dataset` these are, one for each seed.

    The same images are drawn for all runs of a data set.
    """
    weights = image_weights(len(dataset))
    scores = [_box_ap(path, dataset, weights) for path in results]
    return Scored(tuple(ap for ap, _ in scores), np.mean([drawn for _, drawn in scores], 0))


def difference(cell: Scored, baseline: Scored) -> Difference:
    """What images do is counted on the same drawn ones, what seeds do from how far they are apart."""
    own, other = cell.seeds, baseline.seeds
    value = float(np.mean(own) - np.mean(other))
    variance, seeds = float(np.nanvar(cell.drawn - baseline.drawn)), min(len(own), len(other))
    freedom = len(own) + len(other) - 2
    if seeds > 1:
        variance += sum(float(np.var(runs, ddof=1)) / len(runs) for runs in (own, other))
    half = (t95(freedom) if seeds > 1 else 1.96) * math.sqrt(variance)
    return Difference(value, value - half, value + half, seeds)


def _box_ap(path: Path, dataset: DataSet[ImageRecord], weights: np.ndarray) -> tuple[float, np.ndarray]:
    """AP, and what it is on drawn images."""
    found = read_boxes(path, dataset)
    most = max([LIMIT, *map(len, found)])  # as where runs were scored
    matches: Matches = CocoEvaluator(dataset, found, most).matches(masks=False)["box"]
    once = np.ones((1, len(dataset)), np.float32)
    return float(nan_mean(ap_samples(matches, once))), nan_mean(ap_samples(matches, weights), (1, 2))


def read_boxes(path: Path, dataset: DataSet[ImageRecord]) -> list[ImageResults]:
    """The boxes of a `results.json`. Raises GCNetError if images or classes are gone since."""
    found: dict[Any, list[Mapping[str, Any]]] = {record.id: [] for record in dataset.records}
    for entry in json.loads(path.read_bytes()):
        for kind, known in (("image", found), ("category", dataset.category_ids)):
            if (id := entry[f"{kind}_id"]) not in known:
                raise GCNetError(
                    f"{path} has the {kind} id {id}, which {dataset.source} has no more: put it back, or "
                    "begin anew with another --out"
                )
        found[entry["image_id"]].append(entry)
    return [
        ImageResults(
            record.id,
            (record.height, record.width),
            np.array([entry["bbox"] for entry in found[record.id]], np.float64).reshape(-1, 4),
            np.array([entry["score"] for entry in found[record.id]], np.float64),
            np.array([entry["category_id"] for entry in found[record.id]], np.int64),
            None,
        )
        for record in dataset.records
    ]
