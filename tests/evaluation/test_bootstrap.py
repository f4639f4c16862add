"""A resample's AP is that of a data set in which images are there so often."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import draw_set, evaluator_of
from hostile_sets import HostileSet

from gcnet.data.annotations import build
from gcnet.data.source import Source
from gcnet.evaluation.average_precision import score
from gcnet.evaluation.bootstrap import ap_samples, image_weights, interval, nan_mean, threshold_samples
from gcnet.evaluation.operating import best_point


def ap(matches, area: int = 0) -> np.ndarray:
    precision = score(matches).precision[..., area]
    return np.where(precision > -1, precision, np.nan).mean(1)


def test_images_that_are_drawn_twice_are_there_twice() -> None:
    dataset, results = draw_set(8, seed=2)
    drawn = np.array([2, 0, 1, 1, 0, 3, 0, 1], np.float32)
    samples = ap_samples(evaluator_of(dataset, results).matches()["box"], drawn[None])
    times = [(image, again) for image in range(8) for again in range(int(drawn[image]))]
    ids = {place: number for number, place in enumerate(times)}
    records = [replace(dataset.records[image], id=ids[image, again]) for image, again in times]
    copies = [replace(results[image], image_id=ids[image, again]) for image, again in times]
    again = evaluator_of(replace(dataset, records=records), copies).matches()["box"]
    assert np.allclose(samples[0], ap(again), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 3, 8, 11])
def test_all_images_once_give_the_ap_itself(seed: int, tmp_path: Path) -> None:
    """Of crowds, ties, images without objects, and in each range of areas."""
    hostile = HostileSet(seed)
    for image in hostile.images:
        (tmp_path / image["file_name"]).touch()
    source = Source(tmp_path, tmp_path, hostile.images, hostile.annotations, hostile.categories)
    for matches in evaluator_of(build(source), hostile.found).matches().values():
        once = np.ones((1, len(hostile.images)), np.float32)
        for area in range(4):
            assert np.allclose(ap_samples(matches, once, area)[0], ap(matches, area), 0, 1e-5, equal_nan=True)


def test_weights_are_the_same_for_every_model() -> None:
    weights = image_weights(30, 50)
    assert (weights == image_weights(30, 50)).all()
    assert (weights.sum(1) == 30).all()
    assert weights.std() > 0.5
    tracemalloc.start()
    size = image_weights(2000).nbytes
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.1 * size  # of 118,000 images they are 470 MB


def test_thresholds_of_resamples_lie_around_the_best() -> None:
    dataset, results = draw_set(seed=4)
    matches = evaluator_of(dataset, results).matches()["box"]
    best = best_point(matches)
    assert best is not None
    once = threshold_samples(matches, np.ones((1, 20), np.float32))
    assert once[0] == matches.scores[matches.scores > best.score].min()


def test_intervals_are_moved_to_the_figure_and_stay_in_range() -> None:
    samples = np.append(np.linspace(0.4, 0.8, 1001), np.nan)
    assert interval(0.5, samples) == pytest.approx({"value": 0.5, "low": 0.31, "high": 0.69})
    assert interval(0.95, samples)["high"] == 1.0
    assert np.isnan(interval(0.5, np.full(3, np.nan))["low"])
    assert np.isnan(nan_mean(np.full((2, 3), np.nan), 1)).all()
