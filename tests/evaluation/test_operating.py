"""Precision, recall and F1 by counting; the table of what is taken for what; calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_sets import draw_set, evaluator_of

from gcnet.evaluation.errors import find_errors
from gcnet.evaluation.operating import LEVELS, best_point, calibration, confusion, counted, curve


def test_curves_are_what_counting_gives() -> None:
    matches = evaluator_of(*draw_set(seed=5)).matches()["box"]
    for label in (None, 2):
        scores, right, wanted = counted(matches, label)
        found = curve(matches, label)
        for level in (0, 37, 80, 100):
            kept = scores >= LEVELS[level]
            hits = right[kept].sum()
            assert found["recall"][level] == pytest.approx(hits / wanted)
            assert found["precision"][level] == pytest.approx(hits / kept.sum() if kept.any() else 1.0)
            assert found["f1"][level] == pytest.approx(2 * hits / (kept.sum() + wanted))


def test_the_best_point_is_reached_from_its_score_on() -> None:
    matches = evaluator_of(*draw_set(seed=5)).matches()["box"]
    best = best_point(matches)
    assert best is not None
    scores, right, wanted = counted(matches)
    assert not (scores == best.score).any()
    for level in [best.score, *np.unique(scores)]:
        kept = scores >= level
        f1 = 2 * right[kept].sum() / (kept.sum() + wanted)
        assert f1 <= best.f1 + 1e-12
        assert level != best.score or f1 == pytest.approx(best.f1)
    assert best_point(matches, 0) != best
    dataset, results = draw_set(2)
    assert best_point(evaluator_of(dataset, []).matches()["box"]) is None
    wrong = [replace(one, boxes=one.boxes + 1000) for one in results]
    assert best_point(evaluator_of(dataset, wrong).matches()["box"]) is None


def test_the_table_counts_each_object_and_each_detection_once() -> None:
    matches = evaluator_of(*draw_set(seed=5)).matches()["box"]
    table = confusion(matches, 0.4)
    sure = matches.scores >= 0.4
    assert table[:-1].sum() == len(matches.truth)
    assert table[:, :-1].sum() == sure.sum()
    assert np.trace(table) == (matches.right[:, 0, 0] & sure).sum()
    wrong_class = find_errors(matches).kind == "class"
    others = table[:-1, :-1].sum() - np.trace(table)
    assert 0 < others <= (wrong_class & sure).sum() + 20


def test_calibration_of_what_is_right_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    found = calibration(scores, rng.random(20_000) < scores)
    assert len(found["bins"]) == 10
    assert sum(one["count"] for one in found["bins"]) == 20_000
    assert found["error"] < 0.02
    assert calibration(np.full(10, 0.9), np.arange(10) < 4)["error"] == pytest.approx(0.5)
    assert calibration(np.zeros(0), np.zeros(0, bool)) == {"bins": [], "error": None}
