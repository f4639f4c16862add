"""Non-maximum suppression against the plainest version that one can write."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcnet.ops import nms as module
from gcnet.ops.boxes import box_iou
from gcnet.ops.nms import grouped_nms, grouped_nms_static, soft_nms


def random_boxes(count: int, seed: int, spread: float = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes that overlap a lot, distinct scores, three groups."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    boxes = torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 30], dim=1)
    scores = torch.randperm(count, generator=generator).float() / count
    return boxes, scores, torch.randint(0, 3, (count,), generator=generator)


def brute_force(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        rivals = [k for k in kept if groups[k] == groups[index]]
        if not rivals or box_iou(boxes[[index]], boxes[rivals]).max() <= threshold:
            kept.append(index)
    return kept


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(0, 1000), st.sampled_from([0.3, 0.5, 0.7]))
def test_equals_brute_force(count: int, seed: int, threshold: float) -> None:
    boxes, scores, groups = random_boxes(count, seed)
    assert grouped_nms(boxes, scores, groups, threshold).tolist() == brute_force(
        boxes, scores, groups, threshold
    )


def test_group_by_group_equals_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores, groups = random_boxes(2000, 7, spread=200)
    together = grouped_nms(boxes, scores, groups, 0.5)
    monkeypatch.setattr(module, "SPLIT_THRESHOLD", 1000)
    assert torch.equal(grouped_nms(boxes, scores, groups, 0.5), together)
    assert 0 < len(together) < 2000


def test_boxes_are_shifted_apart_below_ten_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []

    def spy(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        calls.append(boxes)
        return scores.argsort(descending=True)[:1]

    monkeypatch.setattr(module, "nms", spy)
    for count in (9_999, 10_000):
        boxes, scores, groups = random_boxes(count, 1)
        grouped_nms(boxes, scores, groups, 0.5)
        assert sum(len(call) for call in calls[-3:]) == count
        assert bool(torch.cat(calls[-3:]).max() > boxes.max()) == (count == 9_999)
    assert len(calls) == 2 * 3


def test_a_call_for_each_group_gives_what_one_call_gives_also_where_scores_are_equal() -> None:
    boxes, scores, groups = random_boxes(2000, 3, spread=200)
    scores = (scores * 20).round() / 20
    shifted = boxes + (groups * (boxes.max() + 1))[:, None]
    assert torch.equal(grouped_nms(boxes, scores, groups, 0.5), module.nms(shifted, scores, 0.5))


@pytest.mark.parametrize(("count", "limit"), [(300, 20), (300, 300), (5, 20)])
def test_in_a_fixed_number_of_places(count: int, limit: int) -> None:
    """The same boxes in the same order, also where scores are equal; the other places are not filled."""
    boxes, scores, groups = random_boxes(count, 4)
    scores = (scores * 20).round() / 20
    kept = grouped_nms(boxes, scores, groups, 0.5)[:limit]
    index, filled = (
        one[0] for one in grouped_nms_static(boxes[None], scores[None], groups[None], 0.5, limit)
    )
    assert len(index) == len(filled) == min(limit, count)
    assert filled.sum() == len(kept)
    assert torch.equal(index[: len(kept)], kept)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU would do, done here."""
    monkeypatch.setattr(module, "on_gpu", lambda tensor: True)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("count", "limit"), [(300, 20), (300, 300), (5, 20)])
@pytest.mark.parametrize("together", [False, True])
def test_in_parallel(count: int, limit: int, together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one after the other, for two images at once, and with groups that stand together."""
    monkeypatch.setattr(module, "PAIRS", 100_000)
    images = [random_boxes(count, seed) for seed in (4, 5)]
    boxes, scores = torch.stack([one[0] for one in images]), torch.stack([one[1] for one in images])
    scores, groups = (scores * 20).round() / 20, images[0][2].sort().values.expand(2, -1)
    sizes = groups[0].bincount().tolist() if together else None
    index, filled = grouped_nms_static(boxes, scores, groups, 0.5, limit, sizes=sizes)
    assert index.shape == filled.shape == (2, min(limit, count))
    for image in range(2):
        kept = grouped_nms(boxes[image], scores[image], groups[image], 0.5)[:limit]
        assert filled[image].sum() == len(kept)
        assert torch.equal(index[image, : len(kept)], kept)


def test_long_chains_need_more_rounds() -> None:
    """Each box overlaps the next, so that every second one stays; as the anchors of a black image."""
    corners = torch.arange(200.0)[:, None] * torch.tensor([4.0, 0, 4, 0])
    boxes, scores = corners + torch.tensor([0.0, 0, 32, 32]), torch.linspace(1, 0.5, 200)
    kept = module.parallel_nms(boxes[None], scores[None], 0.7)[0]
    assert kept.nonzero().flatten().tolist() == list(range(0, 200, 2))
    with module.without_waiting() as flags:
        early = module.parallel_nms(boxes[None], scores[None], 0.7)[0]
    assert [bool(flag) for flag in flags] == [True]
    assert not torch.equal(early, kept)
    with module.without_waiting() as flags:
        module.parallel_nms(boxes[None, :12], scores[None, :12], 0.7)
    assert [bool(flag) for flag in flags] == [False]


def test_overlap_equal_to_the_threshold_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU exactly one half
    scores, groups = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    assert grouped_nms(boxes, scores, groups, 0.5).tolist() == [0, 1]
    assert grouped_nms(boxes, scores, groups, 0.49).tolist() == [0]


def test_groups_do_not_touch_each_other() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)
    kept = grouped_nms(boxes, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 1, 0, 1]), 0.5)
    assert kept.tolist() == [3, 2]


def test_no_boxes() -> None:
    kept = grouped_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    assert kept.tolist() == []
    assert kept.dtype == torch.int64


def plain_soft_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, sigma: float | None, least: float
) -> tuple[list[int], list[float]]:
    """As in the paper, box by box."""
    left, kept, found = dict(enumerate(scores.tolist())), [], []
    while left:
        best = max(left, key=lambda index: left[index])
        kept.append(best)
        found.append(left.pop(best))
        for other in list(left):
            iou = float(box_iou(boxes[[best]], boxes[[other]])) if groups[best] == groups[other] else 0.0
            linear = 1 - iou if iou >= threshold else 1.0
            left[other] *= linear if sigma is None else math.exp(-(iou**2) / sigma)
            if left[other] < least:
                del left[other]
    return kept, found


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(0, 1000), st.sampled_from([None, 0.2, 0.5]))
def test_soft_nms_is_as_in_the_paper(count: int, seed: int, sigma: float | None) -> None:
    """Of two sets at once."""
    sets = [random_boxes(count, seed + one) for one in range(2)]
    boxes, scores, groups = (torch.stack(own) for own in zip(*sets, strict=True))
    options = {"iou_threshold": 0.3, "sigma": sigma, "min_score": 0.1}
    index, found = soft_nms(boxes.double(), scores.double(), groups, 20, **options)
    assert index.shape == found.shape == (2, min(20, count))
    for own, (kept, theirs) in enumerate(plain_soft_nms(*one, 0.3, sigma, 0.1) for one in sets):
        filled = found[own] > 0
        assert index[own][filled].tolist() == kept[: min(20, count)][: int(filled.sum())]
        torch.testing.assert_close(
            found[own][filled], torch.tensor(theirs[:20]).double()[: int(filled.sum())], atol=1e-6, rtol=0
        )
        assert filled.sum() == min(len([one for one in theirs if one > 0]), 20, count)


def test_soft_nms_of_nothing() -> None:
    index, found = soft_nms(
        torch.zeros(2, 0, 4),
        torch.zeros(2, 0),
        torch.zeros(2, 0, dtype=torch.int64),
        5,
        iou_threshold=0.5,
        sigma=None,
        min_score=0.0,
    )
    assert index.shape == found.shape == (2, 0)
