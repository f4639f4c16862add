"""Who answers for which object, and who is looked at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcnet.ops import matching
from gcnet.ops.boxes import box_iou
from gcnet.ops.matching import (
    BACKGROUND,
    IGNORED,
    fill_up,
    ignored_regions,
    match_boxes,
    random_sample,
    sample_matches,
)

OBJECTS = torch.tensor([[0.0, 0, 100, 100], [200, 200, 300, 300]])


def column(height: float) -> list[float]:
    """A box that overlaps the first object by height / 100."""
    return [0.0, 0, 100, height]


def match(candidates: list[list[float]], low_quality: float | None = None, objects: torch.Tensor = OBJECTS):
    matches = match_boxes(
        torch.tensor(candidates), objects, positive_iou=0.7, negative_iou=0.3, low_quality_iou=low_quality
    )
    return matches.tolist()


def test_thresholds() -> None:
    heights = [100, 71, 70, 69, 31, 30, 29, 1]
    ignored_from_30 = [0, 0, 0, IGNORED, IGNORED, IGNORED, BACKGROUND, BACKGROUND]
    assert match([column(h) for h in heights]) == ignored_from_30


def test_best_object_wins() -> None:
    objects = torch.tensor([column(80), column(100)])
    assert match([column(98), column(82)], objects=objects) == [1, 0]


def test_low_quality_gives_every_object_its_best_candidate() -> None:
    second = [200.0, 200, 300, 240]  # 0.4 of the second object
    assert match([column(90), second], low_quality=None) == [0, IGNORED]
    assert match([column(90), second], low_quality=0.3) == [0, 1]
    assert match([column(90), [200.0, 200, 300, 225]], low_quality=0.3) == [0, BACKGROUND]


def test_low_quality_takes_all_ties() -> None:
    assert match([column(40), column(40), column(39)], low_quality=0.3) == [0, 0, IGNORED]


def test_low_quality_later_object_wins_a_shared_candidate() -> None:
    objects = torch.tensor([column(100), [0.0, 0, 100, 110]])
    # The candidate overlaps the first object more, yet it is also the second one's best.
    assert match([column(60)], objects=objects, low_quality=0.3) == [1]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 40), st.integers(0, 9), st.integers(0, 1000), st.sampled_from([1, 100, 1 << 22]))
def test_low_quality_against_the_loop(
    monkeypatch: pytest.MonkeyPatch, candidates: int, objects: int, seed: int, pairs: int
) -> None:
    """The reference's loop over objects, each overwriting what came before; however many at a time."""
    monkeypatch.setattr(matching, "PAIRS", pairs)
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 40, (candidates + objects, 2), generator=generator).float()
    side = torch.randint(5, 40, (candidates + objects, 2), generator=generator).float()
    boxes = torch.cat([corner, corner + side], dim=1)
    anchors, found = boxes[:candidates], boxes[candidates:]
    ours = match_boxes(anchors, found, positive_iou=0.7, negative_iou=0.3, low_quality_iou=0.3)

    expected = torch.full((candidates,), IGNORED)
    if candidates and objects:
        iou = box_iou(found, anchors)
        best, index = iou.max(dim=0)
        expected[best < 0.3] = BACKGROUND
        expected = torch.where(best >= 0.7, index, expected)
        for number in range(objects):
            if iou[number].max() >= 0.3:
                expected[iou[number] == iou[number].max()] = number
    elif candidates:
        expected[:] = BACKGROUND
    assert torch.equal(ours, expected)


def test_no_objects_is_all_background() -> None:
    assert match([column(50)], objects=torch.zeros(0, 4), low_quality=0.3) == [BACKGROUND]


def test_no_candidates() -> None:
    for low in (None, 0.3):
        matches = match_boxes(
            torch.zeros(0, 4), OBJECTS, positive_iou=0.7, negative_iou=0.3, low_quality_iou=low
        )
        assert matches.shape == (0,)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 60), st.integers(0, 20))
def test_random_sample(first: int, second: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    marked = torch.rand(2, 50).argsort(dim=1) < torch.tensor([[first], [second]])
    limit = torch.tensor([size // 2, size])
    index, taken = random_sample(marked, limit, size)
    for image, count in enumerate((first, second)):
        chosen = index[image][taken[image]]
        assert len(chosen) == len(chosen.unique()) == min(count, int(limit[image]))
        assert marked[image][chosen].all()


def test_random_sample_is_uniform() -> None:
    torch.manual_seed(0)
    marked = torch.arange(12).expand(4000, 12) % 3 != 0
    index, taken = random_sample(marked, torch.full((4000,), 2), 5)
    counts = torch.bincount(index[taken], minlength=12)
    assert not counts[::3].any()
    assert ((counts[marked[0]] - 1000).abs() < 4 * 30).all()  # four standard deviations


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_sampling_counts(positives: int, negatives: int, ignored: int) -> None:
    parts = [torch.zeros(positives), torch.full((negatives,), BACKGROUND), torch.full((ignored,), IGNORED)]
    matches = torch.cat(parts).long()
    matches = torch.stack([matches, matches.flip(0)])
    sample = sample_matches(matches, batch_size=40, positive_fraction=0.25, sample=random_sample)
    assert sample.index.shape == sample.positive.shape == sample.taken.shape == (2, 40)
    for row, index, positive, taken in zip(matches, sample.index, sample.positive, sample.taken, strict=True):
        count = int(positive.sum())
        assert count == min(positives, 10)
        assert taken.sum() == count + min(negatives, 40 - count)
        assert positive[:count].all()
        assert taken[: int(taken.sum())].all()
        assert (row[index[positive]] >= 0).all()
        assert (row[index[taken & ~positive]] == BACKGROUND).all()
        assert len(index[taken].unique()) == taken.sum()


def test_candidates_that_do_not_count_are_ignored() -> None:
    candidates = torch.tensor([column(90), column(60), column(20)])
    valid = torch.tensor([False, True, True])
    for low, expected in ((None, [IGNORED, IGNORED, BACKGROUND]), (0.3, [IGNORED, 0, BACKGROUND])):
        matches = match_boxes(
            candidates, OBJECTS[:1], positive_iou=0.7, negative_iou=0.3, low_quality_iou=low, valid=valid
        )
        assert matches.tolist() == expected


@pytest.mark.parametrize("pairs", [1, 1 << 22])
def test_candidates_in_a_region_to_ignore(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """Those that lie in it by more than half of themselves; they take no object either."""
    monkeypatch.setattr(matching, "PAIRS", pairs)
    candidates = torch.tensor([[0.0, 0, 100, 100], [200, 0, 210, 10], [205, 0, 215, 10], [206, 0, 216, 10]])
    ignored = torch.tensor([[0.0, 0, 100, 60], [190, 0, 210, 20]])
    for objects, first in ((OBJECTS[:1], IGNORED), (OBJECTS[:0], IGNORED)):
        matches = match_boxes(
            candidates,
            objects,
            positive_iou=0.7,
            negative_iou=0.3,
            low_quality_iou=0.3,
            ignored=ignored,
        )
        assert matches.tolist() == [first, IGNORED, BACKGROUND, BACKGROUND]
    free = match_boxes(
        candidates, OBJECTS[:1], positive_iou=0.7, negative_iou=0.3, low_quality_iou=0.3, ignored=ignored[:0]
    )
    assert free.tolist() == [0, BACKGROUND, BACKGROUND, BACKGROUND]


def test_many_images_at_once_are_each_alone() -> None:
    """Of different numbers of objects and regions, some without any."""
    generator = torch.Generator().manual_seed(0)

    def boxes(count: int) -> torch.Tensor:
        corner, side = (torch.rand(count, 2, generator=generator) * 40 for _ in range(2))
        return torch.cat([corner, corner + side], dim=1)

    candidates, valid = boxes(3 * 50).view(3, 50, 4), torch.rand(3, 50, generator=generator) < 0.8
    objects, regions = [boxes(4), boxes(0), boxes(9)], [None, boxes(2), boxes(1)]
    options = {"positive_iou": 0.6, "negative_iou": 0.3, "low_quality_iou": 0.3}
    filled, real = fill_up(objects)
    ours = match_boxes(
        candidates, filled, real=real, valid=valid, ignored=ignored_regions(regions), **options
    )
    for image in range(3):
        own = {"valid": valid[image], "ignored": regions[image]}
        assert torch.equal(ours[image], match_boxes(candidates[image], objects[image], **own, **options))
    assert len(ours.unique()) > 5
    assert ignored_regions([None, None]) is None
