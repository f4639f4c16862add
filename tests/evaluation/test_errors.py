"""Kinds of error, one of each by hand, and beside the authors' own tool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_sets import draw_set, evaluator_of

from gcnet.data.dataset import DataSet, ImageRecord, Instance
from gcnet.evaluation.errors import KINDS, find_errors, gains
from gcnet.evaluation.results import ImageResults

# tidecv 1.0.1 with its defaults: counts, and `fix_main_errors` / 100.
THEIRS = {
    1: (
        {"class": 56, "box": 91, "both": 10, "duplicate": 279, "background": 16, "missed": 2},
        (0.027409667, 0.126808717, 0.002020923, 0.129371729, 0.002845895, 0.006718682),
    ),
    3: (
        {"class": 68, "box": 94, "both": 11, "duplicate": 262, "background": 18, "missed": 2},
        (0.072739441, 0.115338507, 0.002187488, 0.092967072, 0.004742001, 0.006665433),
    ),
}


@pytest.mark.parametrize("seed", THEIRS)
def test_counts_and_gains_are_those_of_tidecv(seed: int) -> None:
    matches = evaluator_of(*draw_set(seed=seed)).matches()["box"]
    errors = find_errors(matches)
    counts, gained = THEIRS[seed]
    assert errors.counts() == counts
    assert np.allclose(list(gains(matches, errors).values()), gained, atol=1e-8)


def test_one_of_each_kind() -> None:
    """Objects of 20 x 20 in a row; the last one is a crowd, in which what is found does not count."""
    crowd, labels = [False] * 4 + [True], [0, 0, 0, 1, 0]
    corners = [(100.0 * i, 10.0, 100.0 * i + 20, 30.0) for i in range(5)]
    items = tuple(Instance(i, labels[i], corners[i], [], 400.0, crowd[i]) for i in range(5))
    dataset = DataSet(Path("x"), [ImageRecord(7, Path("7.png"), 600, 200, items)], ("a", "b"), (3, 5))
    found = [
        (0, 3, 0.99, ""),  # right
        (2, 3, 0.95, "duplicate"),
        (112, 3, 0.9, "box"),
        (302, 3, 0.8, "class"),
        (312, 3, 0.7, "both"),
        (550, 5, 0.6, "background"),
        (401, 3, 0.5, ""),  # in the crowd
    ]
    boxes = np.array([[x, 10, 20, 20] for x, *_ in found], float)
    scores, categories = np.array([one[2] for one in found]), np.array([one[1] for one in found])
    results = [ImageResults(7, (200, 600), boxes, scores, categories, None)]
    matches = evaluator_of(dataset, results).matches()["box"]
    errors = find_errors(matches)
    by_score = np.argsort(-matches.scores)
    assert errors.kind[by_score].tolist() == [one[3] for one in found]
    assert errors.missed.tolist() == [False, False, True, False, False]
    gained = gains(matches, errors)
    assert gained["class"] > 0.4  # the only object of its class is then found
    assert gained["missed"] > 0
    assert gained["both"] == 0  # the object of the other class is another's
    assert errors.meant[errors.kind == "class"].tolist() == [4]  # the object after those of a


def test_nothing_found_and_nothing_to_find() -> None:
    dataset, _ = draw_set(2)
    matches = evaluator_of(dataset, []).matches()["box"]
    assert find_errors(matches).counts() == {**dict.fromkeys(KINDS, 0), "missed": 16}
    empty = DataSet(dataset.source, [], dataset.class_names, dataset.category_ids)
    matches = evaluator_of(empty, []).matches()["box"]
    assert set(gains(matches, find_errors(matches)).values()) == {0.0}
